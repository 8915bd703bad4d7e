//! How fast the log of a backlog is applied, beside a native subscription with `binary = true` and the very same backlog.

use super::{Side, data, peers};
use crate::{Args, median, table::Row};
use causeway_tests::{Cluster, DEST, operation::Op};
use std::time::Instant;

/// A kind of backlog.
struct Workload {
    name: &'static str,
    /// Against the native subscription.
    ratio_min: f64,
    /// Transactions for each transaction that was asked for: these are smaller.
    times: u64,
    /// Changed rows a transaction.
    rows: u64,
    script: Option<fn() -> String>,
}

const WORKLOADS: [Workload; 3] = [
    Workload { name: "tpcb", ratio_min: 1.6, times: 5, rows: 4, script: None },
    Workload { name: "insert", ratio_min: 1.2, times: 1, rows: 10, script: Some(|| data::INSERTS.to_owned()) },
    Workload { name: "update", ratio_min: 1.2, times: 1, rows: 10, script: Some(data::updates) },
];

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = super::cluster(args);
    let west = "catchup";
    data::catchup(&Side::west(&cluster), west);
    // The peer has a database of its own beside ours, at the same side. It comes first: an operation refuses publications.
    native(&cluster, west);
    let op = cluster.start_copy(west);
    op.until_ready();
    let asked = |workload: &&Workload| args.backlog.is_empty() || args.backlog.iter().any(|name| name == workload.name);
    let rows = WORKLOADS.iter().filter(asked).map(|workload| row(args, &cluster, &op, workload)).collect();
    op.cancel();
    op.until_ended();
    peers::unsubscribe(&cluster, west, NATIVE);
    rows
}

const NATIVE: &str = "catchup_native";

fn native(cluster: &Cluster, from: &str) {
    let east = Side::east(cluster);
    data::empty(&east, NATIVE);
    let dump = Side::west(cluster).run("pg_dump", &["-s", "--no-publications", from]);
    let schema = cluster.dir().join("native.sql");
    std::fs::write(&schema, dump.stdout).expect("write the schema");
    east.run("psql", &["-Xqd", NATIVE, "-f", schema.to_str().expect("a path in UTF-8")]);
    Side::west(cluster).sql(
        from,
        "CREATE PUBLICATION peers FOR TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, \
        pgbench_history, inserted, updated, marker",
    );
    peers::subscription(cluster, from, NATIVE, "copy_data = true, binary = true");
    let left = "SELECT count(*) FILTER (WHERE srsubstate <> 'r') || '/' || (count(*) > 0) FROM pg_subscription_rel";
    east.until(NATIVE, left, "0/true");
    east.sql(NATIVE, "VACUUM ANALYZE");
}

fn row(args: &Args, cluster: &Cluster, op: &Op<'_>, workload: &Workload) -> Row {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let transactions = args.log_transactions * workload.times;
    for round in 0..args.rounds {
        cluster.kill(DEST);
        Side::east(cluster).sql(NATIVE, "ALTER SUBSCRIPTION peers DISABLE");
        let marker = write(cluster, workload, transactions);
        super::settle(cluster);
        // In turns, so that neither always finds the log in the cache the other filled.
        for turn in 0..2 {
            if (turn + round) % 2 == 0 {
                let started = Instant::now();
                cluster.restart(DEST);
                arrived(cluster, "catchup", &marker);
                ours.push(started.elapsed().as_secs_f64());
                op.until_ready();
            } else {
                let started = Instant::now();
                Side::east(cluster).sql(NATIVE, "ALTER SUBSCRIPTION peers ENABLE");
                arrived(cluster, NATIVE, &marker);
                theirs.push(started.elapsed().as_secs_f64());
            }
        }
        let (our, their) = (ours[ours.len() - 1], theirs[theirs.len() - 1]);
        eprintln!("  {}, round {round}: Causeway {our:.1} s, native {their:.1} s", workload.name);
    }
    let changes = (transactions * workload.rows) as f64;
    let (ours, theirs) = (median(&ours), median(&theirs));
    let ratio = theirs / ours;
    Row::of(
        format!("catch-up of {transactions} transactions, {}", workload.name),
        format!("{:.0} changes/s", changes / ours),
    )
    .against(format!("native subscription {:.0}/s", changes / theirs), ratio)
    .bar(format!("at least {} (goal 2)", workload.ratio_min), ratio >= workload.ratio_min)
}

/// Writes the backlog, and a last row to wait for.
fn write(cluster: &Cluster, workload: &Workload, transactions: u64) -> String {
    let west = Side::west(cluster);
    let mut pgbench = west.command("pgbench");
    // The commits need not wait for the disk: only writing the backlog becomes faster.
    pgbench.env("PGOPTIONS", "-c synchronous_commit=off").args(["-n", "-c", "8", "-j", "2", "-t"]);
    pgbench.arg((transactions / 8).to_string());
    if let Some(script) = workload.script {
        let file = cluster.dir().join("backlog.pgbench");
        std::fs::write(&file, script()).expect("write the script");
        pgbench.arg("-f").arg(file);
    }
    let output = pgbench.arg("catchup").output().expect("run pgbench");
    assert!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let insert = "INSERT INTO marker SELECT coalesce(max(id), 0) + 1 FROM marker RETURNING id";
    west.value("catchup", insert)
}

fn arrived(cluster: &Cluster, database: &str, marker: &str) {
    Side::east(cluster).until(database, &format!("SELECT count(*)::text FROM marker WHERE id = {marker}"), "1");
}
