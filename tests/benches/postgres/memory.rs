//! The most memory each agent ever took, for a small database, a large one, and one with a row and a transaction that are huge.

use super::{Side, data};
use crate::{Args, peak, table::Row};
use causeway_tests::{Cluster, State};

/// Beside twice the largest row.
const PEAK_MAX_MIB: f64 = 192.0;

/// The largest row, and the rows of the largest transaction.
const ROW_MB: u64 = 200;
const TRANSACTION_ROWS: u64 = 5_000_000;

pub fn measure(args: &Args) -> Vec<Row> {
    let sizes = if args.memory_mb.is_empty() { &[100, 5000][..] } else { &args.memory_mb };
    let peaks: Vec<_> = sizes.iter().map(|mb| (*mb, sized(args, *mb))).collect();
    let mut rows = peak::rows(&peaks, PEAK_MAX_MIB);
    let most = PEAK_MAX_MIB + 2.0 * ROW_MB as f64;
    for (agent, mib) in ["source agent", "destination agent"].into_iter().zip(huge(args)) {
        let what =
            format!("peak RSS of the {agent}, a row of {ROW_MB} MB and a transaction of {TRANSACTION_ROWS} rows");
        rows.push(Row::of(what, format!("{mib:.1} MiB")).bar(format!("below {most:.0} MiB"), mib < most));
    }
    rows
}

fn sized(args: &Args, mb: u64) -> [f64; 2] {
    let cluster = super::cluster(args);
    data::pgbench(&Side::west(&cluster), "sized", mb.div_ceil(13).max(1));
    whole(&cluster, "sized", || {})
}

fn huge(args: &Args) -> [f64; 2] {
    let cluster = super::cluster(args);
    let west = Side::west(&cluster);
    data::empty(&west, "huge");
    let row = format!("SELECT string_agg(md5(i::text), '') FROM generate_series(1, {}) i", ROW_MB * 1_000_000 / 32);
    west.sql(
        "huge",
        &format!("CREATE TABLE wide (id int PRIMARY KEY, body text); INSERT INTO wide VALUES (1, ({row}))"),
    );
    west.sql("huge", "CREATE TABLE many (id bigint PRIMARY KEY, body text)");
    drop(west);
    whole(&cluster, "huge", || {
        let west = Side::west(&cluster);
        west.sql("huge", "INSERT INTO wide SELECT 2, body FROM wide");
        west.sql(
            "huge",
            &format!("INSERT INTO many SELECT i, md5(i::text) FROM generate_series(1, {TRANSACTION_ROWS}) i"),
        );
    })
}

/// A move from its start to its end, with something going on while it is ready.
fn whole(cluster: &Cluster, database: &str, meanwhile: impl FnOnce()) -> [f64; 2] {
    let op = cluster.start_move(database);
    op.until_it_within("readiness", super::PATIENCE, |op| op.state() == State::ReadyForCompletion);
    meanwhile();
    op.until_it_within("all is applied", super::PATIENCE, |op| {
        let lag = op.progress.as_ref().map_or(u64::MAX, |progress| progress.lag_bytes);
        op.state() == State::ReadyForCompletion && lag < 1 << 20
    });
    op.complete();
    op.until_it_within("the end", super::PATIENCE, causeway_tests::operation::ended);
    let peaks = peak::of_agents(cluster);
    eprintln!("  {database}: source {:.1} MiB, destination {:.1} MiB", peaks[0], peaks[1]);
    peaks
}
