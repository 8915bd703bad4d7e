//! The writer with all its habits, ended in every way, satisfies the checker.

mod support;

use std::time::Duration;

use causeway_ledger::{WriteOptions, transaction::ACCOUNTS};
use rusqlite::Connection;
use support::{Bench, PATIENCE, assert_ok};

#[test]
fn every_habit_at_once_keeps_the_ledger_right() {
    for (processes, journal_mode, page_size) in [(false, "WAL", 512), (true, "WAL", 4096), (false, "DELETE", 65536)] {
        let bench = Bench::new();
        let options = WriteOptions {
            writers: 2,
            processes,
            readers: 1,
            reader_hold_ms: 5,
            reader_pause_ms: 20,
            churn: 3000,
            truncate_every: 50,
            reopen_every: 7,
            vacuum_every: 150,
            big_every: 40,
            rollback_every: 31,
            journal_mode: journal_mode.into(),
            auto_vacuum: "FULL".into(),
            page_size,
            ..bench.options()
        };
        let summary = bench.run(&options, 400);
        let report = bench.check_with(bench.check_options().with_content_hash());
        assert_ok(&report);
        assert_eq!(report.acknowledged, summary.committed, "{summary}");
        assert_eq!((report.found, report.transactions), (report.acknowledged, report.acknowledged));
        assert_eq!(report.integrity.as_deref(), Some("ok"));
        assert_eq!(summary.writers.len(), 2);
        assert!(summary.committed >= 400 && summary.snapshots > 0 && summary.torn == 0, "{summary:?}");
        assert!(summary.freeze_ms.is_none() && summary.latency.max_ms > 0.0, "{summary:?}");
    }
}

#[test]
fn a_killed_writer_takes_up_where_it_was() {
    for processes in [false, true] {
        let bench = Bench::new();
        let options = WriteOptions { writers: 2, rate: 0.0, processes, ..bench.options() };
        for kill in 0..8 {
            let mut writer = bench.spawn(&WriteOptions { no_setup: kill > 0, ..options.clone() });
            writer.wait_for_commits(1 + 20 * kill, PATIENCE).expect("the writer commits");
            writer.kill().expect("the writer dies");
            assert_ok(&bench.check());
        }
        assert_eq!(bench.run(&options, 10).losses_noticed, 0);
        let report = bench.check();
        assert_ok(&report);
        assert!(report.transactions >= 8 * 70, "{report}");
    }
}

#[test]
fn a_run_ends_by_its_clock_and_by_its_count() {
    let bench = Bench::new();
    let started = std::time::Instant::now();
    let options = WriteOptions { duration: 0.3, rate: 100.0, ..bench.options() };
    let summary = bench.spawn(&options).wait_at_most(PATIENCE).expect("it ends by itself");
    assert!(started.elapsed() >= Duration::from_millis(300) && (10..=40).contains(&summary.committed), "{summary}");
    let options = WriteOptions { transactions: 17, ..bench.options() };
    let summary = bench.spawn(&options).wait_at_most(PATIENCE).expect("it ends by itself");
    assert_eq!(summary.committed, 17);
    assert_ok(&bench.check());
}

#[test]
fn a_database_of_others_gets_the_ledger_beside_its_tables() {
    let bench = Bench::new();
    bench.tamper("PRAGMA journal_mode=WAL; CREATE TABLE theirs(a TEXT); INSERT INTO theirs VALUES('x')");
    bench.run(&WriteOptions { journal_mode: String::new(), ..bench.options() }, 20);
    assert_ok(&bench.check());
    let conn = Connection::open(bench.path("app.db")).expect("the database opens");
    let count = |sql| conn.query_row(sql, [], |r| r.get::<_, i64>(0)).expect("a count");
    assert_eq!(count("SELECT count(*) FROM theirs"), 1);
    assert_eq!(count("SELECT count(*) FROM account"), ACCOUNTS);
}

#[test]
fn the_checker_leaves_no_trace() {
    let bench = Bench::new();
    let mut writer = bench.spawn(&bench.options());
    writer.wait_for_commits(50, PATIENCE).expect("the writer commits");
    // While it is in use, ...
    assert_ok(&bench.check());
    writer.wait_for_more_commits(20, PATIENCE).expect("the writer goes on");
    // ... after a kill, that left log and wal-index, ...
    writer.kill().expect("the writer dies");
    let before = bench.files();
    assert_eq!(before, ["app.db", "app.db-shm", "app.db-wal", "app.hist"]);
    let wal = std::fs::read(bench.path("app.db-wal")).expect("the log");
    let acknowledged = bench.check().found;
    assert!(acknowledged >= 70);
    assert_eq!(bench.files(), before);
    assert_eq!(std::fs::read(bench.path("app.db-wal")).expect("the log"), wal);
    // ... with a log only, as in a backup, ...
    std::fs::remove_file(bench.path("app.db-shm")).expect("no wal-index");
    let report = bench.check();
    assert_ok(&report);
    assert_eq!((report.found, bench.files().len()), (acknowledged, 3));
    // ... and after a proper end.
    bench.run(&bench.options(), 5);
    assert_ok(&bench.check());
    assert_eq!(bench.files(), ["app.db", "app.hist"]);
}

#[test]
fn a_hot_journal_is_recovered_in_a_copy() {
    let bench = Bench::new();
    let options =
        WriteOptions { journal_mode: "DELETE".into(), rate: 0.0, rollback_every: 2, big_every: 3, ..bench.options() };
    for _ in 0..6 {
        let mut writer = bench.spawn(&options);
        writer.wait_for_commits(9, PATIENCE).expect("the writer commits");
        writer.kill().expect("the writer dies");
        let before = bench.files();
        assert_ok(&bench.check());
        assert_eq!(bench.files(), before);
    }
}

#[test]
fn an_exclusive_writer_is_told_by_a_pragma() {
    let bench = Bench::new();
    let mut writer = bench.spawn(&WriteOptions { pragma: vec!["locking_mode=EXCLUSIVE".into()], ..bench.options() });
    writer.wait_for_commits(5, PATIENCE).expect("the writer commits");
    let conn = Connection::open(bench.path("app.db")).expect("the database opens");
    conn.busy_timeout(Duration::ZERO).expect("a timeout");
    assert!(conn.query_row("SELECT count(*) FROM ledger", [], |r| r.get::<_, i64>(0)).is_err());
    drop(conn);
    writer.stop().expect("the writer stops");
    assert_ok(&bench.check());
}
