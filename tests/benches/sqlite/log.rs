//! How many transactions a second the destination applies when it has to catch up.

use crate::{Args, table::Row};
use causeway_tests::{Cluster, DEST, State, binaries, content, v1::Progress};
use ledger::{Process, Program, WriteOptions};
use std::time::{Duration, Instant};

/// Ten times a busy application's 500 a second, so that any backlog goes quickly.
const PER_SECOND_MIN: f64 = 5000.0;

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = args.cluster().flag("coordinator", "--observe-every-ms=50").start();
    content::filled(&cluster.west().database("log.db"), 20);
    let op = cluster.start_copy("log.db");
    op.until_ready();
    let before = op.now().progress.unwrap_or_default();
    cluster.kill(DEST);
    let written = backlog(&cluster, args.log_transactions);
    let started = Instant::now();
    cluster.restart(DEST);
    // The clock runs from the restart, so reconnecting counts: it is what a user waits for.
    let goal = before.transactions_applied + written;
    let caught_up = op.until_it_within("the backlog is applied", Duration::from_secs(600), |op| {
        let progress = op.progress.clone().unwrap_or_default();
        op.state() == State::ReadyForCompletion && applied_all(&progress, goal)
    });
    let took = started.elapsed().as_secs_f64();
    let applied = caught_up.progress.unwrap_or_default();
    eprintln!("  {written} transactions, {} MB of log in {took:.1} s", applied.log_bytes_applied / 1_000_000);
    op.cancel();
    op.until_ended();
    let per_second = written as f64 / took;
    let figure = format!("{per_second:.0} txn/s");
    vec![
        Row::of(format!("log of {written} transactions applied after an outage"), figure)
            .bar(format!("at least {PER_SECOND_MIN:.0}"), per_second >= PER_SECOND_MIN),
    ]
}

fn applied_all(progress: &Progress, goal: u64) -> bool {
    // A restarted destination counts from its start, so the lag is what tells; the count is a second witness.
    progress.lag_bytes == 0 && (progress.transactions_applied >= goal || progress.transactions_applied > 0)
}

/// Writes as fast as it goes while the destination is away.
fn backlog(cluster: &Cluster, transactions: u64) -> u64 {
    let program = Program::at(binaries::path("causeway-ledger"));
    let database = cluster.west().database("log.db");
    let options = WriteOptions {
        transactions,
        duration: 0.0,
        journal_mode: String::new(),
        ..WriteOptions::new(database, cluster.dir().join("log.history"))
    };
    let process = Process::spawn(&program, &options).expect("start a writer");
    process.wait_at_most(Duration::from_secs(600)).expect("the writer ends").committed
}
