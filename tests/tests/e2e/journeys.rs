//! Moves and copies under load, with nothing going wrong.

use causeway_tests::{
    Cluster, Kind, State,
    application::assert_sound,
    content,
    operation::{GRACE_MS, request},
    place::Place,
};
use ledger::{CheckOptions, FillOptions, Summary, driver::TableHash};
use rusqlite::Connection;

/// Far above what a freeze takes, so that a busy machine fails no test; `make bench` measures it.
pub const FREEZE_MS_MAX: f64 = 5000.0;

/// The freeze of the only move of a run.
#[track_caller]
pub fn assert_frozen_briefly(summary: &Summary) {
    let freeze_ms = summary.freeze_ms.expect("the application changed its place");
    println!("freeze {freeze_ms:.1} ms, {summary}");
    assert!(freeze_ms > 0.0 && freeze_ms < FREEZE_MS_MAX, "freeze of {freeze_ms} ms");
}

/// What holds after every move from west to east.
#[track_caller]
pub fn assert_moved(cluster: &Cluster, database: &str, summary: &Summary) {
    let history = cluster.dir().join(format!("{database}.history"));
    let report = cluster.assert_sound(&cluster.east().database(database), &history);
    assert_eq!(report.acknowledged, summary.committed, "acknowledged as the history has it and as the writers say");
    assert_eq!(report.lost, 0);
    assert_eq!(report.integrity.as_deref(), Some("ok"));
    assert!(cluster.west().is_tombstone(database), "no tombstone in {:?}", cluster.west().traces());
    assert!(!cluster.west().is_writable(database), "the tombstone takes writes");
    assert!(cluster.east().is_writable(database), "the destination takes no writes");
}

/// The tables the application does not touch.
fn untouched(place: &Place, database: &str) -> Vec<TableHash> {
    let ledger = ["ledger", "account", "chain", "list", "scratch", "sqlite_stat1"];
    let is_ours = |hash: &TableHash| ledger.contains(&hash.table.as_str()) || hash.table.starts_with('<');
    place.content(database).into_iter().filter(|hash| !is_ours(hash)).collect()
}

#[test]
fn a_move_carries_a_database_its_writers_and_every_transaction() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 10);
    let before = untouched(&cluster.west(), "shop.db");
    let mut application = cluster.application("shop.db").start();

    let op = cluster.start_move("shop.db");
    op.until_ready();
    application.until_more_commits(200);
    op.complete();
    let moved = op.until_succeeded();
    application.until_commits_at(&cluster.east().database("shop.db"), 200);
    let summary = application.finish();

    assert_eq!(moved.attempt, 1);
    assert!(moved.freeze_ms > 0, "a move measures its freeze: {moved:?}");
    assert_frozen_briefly(&summary);
    assert_moved(&cluster, "shop.db", &summary);
    assert_eq!(before, untouched(&cluster.east(), "shop.db"));
}

#[test]
fn a_copy_ends_at_one_moment_and_leaves_the_source_alone() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 10);
    let mut application = cluster.application("shop.db").staying().start();

    let op = cluster.start_copy("shop.db");
    op.until_ready();
    let before_us = ledger::history::now_us();
    op.complete();
    let copied = op.until_succeeded();
    application.until_more_commits(300);
    let history = application.history().to_owned();
    let summary = application.finish();

    assert_eq!(copied.freeze_ms, 0, "a copy freezes nothing");
    assert_eq!(summary.fenced, 0, "a copy fences nothing");
    let (west, east) = (cluster.west().database("shop.db"), cluster.east().database("shop.db"));
    let report = assert_sound(&CheckOptions::new(&east, &history).acknowledged_before(before_us));
    assert!(report.behind > 0, "the source wrote on, so the copy is behind: {report}");
    cluster.assert_sound(&west, &history);
    assert_eq!(untouched(&cluster.west(), "shop.db"), untouched(&cluster.east(), "shop.db"));
    assert!(cluster.east().is_writable("shop.db") && cluster.west().is_writable("shop.db"));
}

#[test]
fn a_quiet_database_arrives_page_by_page() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("chinook.sqlite"));
    let (before, kept) = (cluster.west().content("chinook.sqlite"), cluster.dir().join("kept.db"));
    content::chinook(&kept);

    let op = cluster.start_move("chinook.sqlite");
    op.until_ready();
    op.complete();
    op.until_succeeded();

    assert_eq!(before, cluster.east().content("chinook.sqlite"));
    assert_eq!(cluster.east().integrity("chinook.sqlite"), "ok");
    let pages = ledger::sqlite::pages::compare(&kept, &cluster.east().database("chinook.sqlite")).expect("compare");
    assert_eq!(pages.differences, Vec::<String>::new());
    assert!(pages.pages > 200, "{pages:?}");
    assert!(cluster.west().is_tombstone("chinook.sqlite") && cluster.east().is_writable("chinook.sqlite"));
    // It came as a rollback-journal database and stays one.
    let db = Connection::open(cluster.east().database("chinook.sqlite")).expect("open");
    let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("ask for the journal mode");
    assert_eq!(mode, "delete");
}

#[test]
fn chinook_moves_under_writes_checkpoints_reopenings_and_vacuum() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("chinook.sqlite"));
    let before = untouched(&cluster.west(), "chinook.sqlite");
    let mut application = cluster.application("chinook.sqlite").new_database().restless().start();

    let op = cluster.start_move("chinook.sqlite");
    op.until_ready();
    application.until_more_commits(800);
    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.east().database("chinook.sqlite"), 400);
    let summary = application.finish();

    assert_frozen_briefly(&summary);
    assert_moved(&cluster, "chinook.sqlite", &summary);
    assert_eq!(before, untouched(&cluster.east(), "chinook.sqlite"));
}

#[test]
fn databases_of_any_page_size_move_in_one_request() {
    let cluster = Cluster::new();
    let sizes = [512, 1024, 16384, 65536];
    let names = sizes.map(|size| format!("pages-{size}.db"));
    let mut applications = Vec::new();
    for (size, name) in sizes.iter().zip(&names) {
        let path = cluster.west().database(name);
        content::filled_as(FillOptions { page_size: *size, auto_vacuum: "FULL".into(), ..FillOptions::new(path, 3) });
        // More than that, and the log of the largest pages alone is 70 MB a second: too much for a busy machine.
        applications.push(cluster.application(name).restless().with(|o| (o.rate, o.writers) = (30.0, 1)).start());
    }
    let databases: Vec<&str> = names.iter().map(String::as_str).collect();
    let started = cluster.try_start(request(Kind::Move, &databases)).expect("start");
    assert_eq!(started.operations.len(), 4);
    let batch = &started.operations[0].batch;
    assert!(started.operations.iter().all(|op| op.batch == *batch), "one batch: {started:?}");

    let ops: Vec<_> = started.operations.iter().map(|op| cluster.operation(op.id.as_str())).collect();
    ops.iter().for_each(|op| drop(op.until_ready()));
    let selected = causeway_tests::v1::OperationSelector {
        source: "west".to_owned(),
        destination: "east".to_owned(),
        databases: names.to_vec(),
        ..Default::default()
    };
    let request = causeway_tests::v1::CompleteOperationRequest {
        operations: Some(selected),
        grace_ms: GRACE_MS,
        ..Default::default()
    };
    let completing = cluster.call(cluster.coordinator().complete_operation(request)).expect("complete all");
    assert_eq!(completing.operations.len(), 4);
    ops.iter().for_each(|op| drop(op.until_succeeded()));
    for (name, mut application) in names.iter().zip(applications) {
        application.until_commits_at(&cluster.east().database(name), 30);
        assert_moved(&cluster, name, &application.finish());
    }
}

#[test]
fn a_rollback_journal_database_moves_under_writes() {
    let cluster = Cluster::new();
    let path = cluster.west().database("old.db");
    content::filled_as(FillOptions { journal_mode: "DELETE".into(), ..FillOptions::new(path, 10) });
    let mut application = cluster.application("old.db").with(|o| o.rate = 100.0).start();

    let op = cluster.start_move("old.db");
    let ready = op.until_ready();
    let codes: Vec<&str> = ready.findings.iter().map(|f| f.code.as_str()).collect();
    assert!(codes.contains(&"ROLLBACK_JOURNAL"), "the preflight warns: {codes:?}");
    application.until_more_commits(50);
    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.east().database("old.db"), 50);
    let summary = application.finish();
    assert_frozen_briefly(&summary);
    assert_moved(&cluster, "old.db", &summary);
}

#[test]
fn a_database_moves_there_and_back_again() {
    let cluster = Cluster::builder().both_ways().start();
    content::filled(&cluster.west().database("shop.db"), 3);
    let mut application = cluster.application("shop.db").start();
    let (west, east) = (cluster.west().database("shop.db"), cluster.east().database("shop.db"));

    let there = cluster.start_move("shop.db");
    there.until_ready();
    there.complete();
    there.until_succeeded();
    application.until_commits_at(&east, 100);
    assert!(cluster.west().is_tombstone("shop.db"));

    let mut request = request(Kind::Move, &["shop.db"]);
    std::mem::swap(&mut request.source, &mut request.destination);
    let back = cluster.start(request);
    back.until_ready();
    back.complete();
    assert_eq!(back.until_ended().state(), State::Succeeded);
    application.until_commits_at(&west, 100);
    let history = application.history().to_owned();
    let summary = application.finish();

    assert_eq!(summary.moves.len(), 2, "{:?}", summary.moves);
    cluster.assert_sound(&west, &history);
    assert!(cluster.east().is_tombstone("shop.db") && !cluster.west().is_tombstone("shop.db"));
    assert!(cluster.west().is_writable("shop.db"));
}

/// A move of a database of `mb` million bytes, restless writers on.
fn move_big(mb: u64) {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("big.db"), mb);
    let before = untouched(&cluster.west(), "big.db");
    // VACUUM rewrites all of it, so it is rare.
    let mut application = cluster.application("big.db").restless().with(|o| o.vacuum_every = 2500).start();

    let op = cluster.start_move("big.db");
    op.until_ready_within(std::time::Duration::from_secs(600));
    application.until_more_commits(2000);
    op.until_ready_within(std::time::Duration::from_secs(600));
    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.east().database("big.db"), 500);
    let summary = application.finish();

    assert_frozen_briefly(&summary);
    assert_moved(&cluster, "big.db", &summary);
    assert_eq!(before, untouched(&cluster.east(), "big.db"));
}

#[test]
fn a_hundred_megabytes_move_under_restless_writers() {
    move_big(100);
}

#[test]
#[ignore = "a soak: `make soak` runs it"]
fn a_gigabyte_moves_under_restless_writers() {
    move_big(1000);
}
