//! Attempts that are given up, and the retry after them.

use crate::journeys::assert_moved;
use causeway_tests::{Application, Cluster, DEST, Op, SOURCE, State, content, v1::Operation};
use rusqlite::Connection;
use std::{thread, time::Duration};

fn reason(operation: &Operation) -> String {
    operation.reason.clone().unwrap_or_default().code
}

/// Completes, and everything is as after any move.
#[track_caller]
fn completes_after_all(cluster: &Cluster, op: &Op<'_>, mut application: Application) {
    op.complete();
    let moved = op.until_succeeded();
    assert!(moved.attempt >= 2, "an attempt was given up before: {moved:?}");
    application.until_commits_at(&cluster.east().database("shop.db"), 100);
    assert_moved(cluster, "shop.db", &application.finish());
}

#[test]
fn a_freeze_beyond_its_limit_ends_the_attempt_and_the_source_goes_on() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    application.until_more_commits(100);

    cluster.stop(DEST);
    // Above the lag with which it may be called ready: a smaller limit would refuse the attempt before any fence.
    op.complete_within(Duration::from_secs(3));
    application.until_fenced();
    op.until_it("the attempt is given up", |op| !op.step.is_empty() && !op.waiting_for.is_empty());
    // Nobody but the destination can say that the attempt is closed, so the source stays fenced until it answers.
    assert!(!cluster.west().is_writable("shop.db"), "the source opened without the destination's word");
    cluster.resume(DEST);
    let ready = op.until_ready();
    assert_eq!(reason(&ready), "FREEZE_EXCEEDED", "{ready:?}");
    application.until_more_commits(100);

    completes_after_all(&cluster, &op, application);
}

#[test]
fn an_attempt_survives_the_death_of_the_destination_in_its_middle() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();

    cluster.stop(DEST);
    op.complete_within(Duration::from_secs(2));
    application.until_fenced();
    cluster.kill_and_restart(DEST);
    let after = op.until_decided();
    if after.state() == State::ReadyForCompletion {
        application.until_more_commits(50);
        op.complete();
        op.until_succeeded();
    }
    application.until_commits_at(&cluster.east().database("shop.db"), 100);
    assert_moved(&cluster, "shop.db", &application.finish());
}

#[test]
fn a_writer_that_cannot_be_ended_ends_the_attempt() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    let db = Connection::open(cluster.west().database("shop.db")).expect("open");
    db.execute_batch("BEGIN IMMEDIATE; CREATE TABLE held(x)").expect("hold the write lock");

    op.complete_within(Duration::from_secs(2));
    let ready =
        op.until_it("readiness with a reason", |op| op.state() == State::ReadyForCompletion && op.reason.is_some());
    assert!(["BUSY", "FREEZE_EXCEEDED"].contains(&reason(&ready).as_str()), "{ready:?}");
    db.execute_batch("COMMIT").expect("the writer is not harmed");
    drop(db);

    let application = cluster.application("shop.db").start();
    completes_after_all(&cluster, &op, application);
    let db = Connection::open(cluster.east().database("shop.db")).expect("open");
    db.query_row("SELECT count(*) FROM held", [], |_| Ok(())).expect("what the writer made has moved");
}

#[test]
fn a_fenced_source_that_hears_nothing_asks_the_destination_itself() {
    let cluster = Cluster::builder().flag("source", "--fence-timeout=2").start();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();

    // The destination cannot be promoted while it is stopped, and the coordinator dies before it could.
    cluster.stop(DEST);
    op.complete();
    application.until_fenced();
    cluster.kill(causeway_tests::Party::Coordinator);
    thread::sleep(Duration::from_millis(500));
    cluster.resume(DEST);
    // Either the promotion had been asked for before, or the source's own Abort reopens it; never both, never neither.
    application.until_more_commits(50);
    cluster.restart(causeway_tests::Party::Coordinator);
    op.until_succeeded_after_all();
    application.until_commits_at(&cluster.east().database("shop.db"), 50);
    assert_moved(&cluster, "shop.db", &application.finish());
}

#[test]
fn a_source_agent_that_dies_fenced_asks_the_destination_before_it_opens() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    cluster.stop(DEST);
    op.complete();
    application.until_fenced();
    cluster.kill(SOURCE);
    assert!(!cluster.west().is_writable("shop.db"), "the fence does not survive its agent");
    cluster.resume(DEST);
    cluster.restart(SOURCE);
    op.until_succeeded_after_all();
    application.until_commits_at(&cluster.east().database("shop.db"), 50);
    assert_moved(&cluster, "shop.db", &application.finish());
}

#[test]
fn a_source_agent_that_dies_fenced_needs_no_second_seed_although_the_wal_is_gone() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    cluster.stop(DEST);
    op.complete();
    application.until_fenced();
    // Killed before it could be prepared, so that the attempt is given up.
    cluster.kill(DEST);
    cluster.kill(SOURCE);
    let history = application.history().to_owned();
    application.finish();
    let wal = cluster.west().path().join("shop.db-wal");
    let db = Connection::open(cluster.west().database("shop.db")).expect("open");
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).expect("read");
    drop(db);
    assert!(!wal.exists(), "whoever closes last takes the WAL along");

    cluster.restart(DEST);
    cluster.restart(SOURCE);
    let moved = op.until_succeeded_after_all();
    assert!(moved.attempt >= 2, "an attempt was given up before: {moved:?}");
    let generation = moved.progress.unwrap_or_default().generation;
    assert_eq!(generation, 1, "the standing fence proves that nobody wrote: nothing is to be verified");
    cluster.assert_sound(&cluster.east().database("shop.db"), &history);
    assert!(cluster.west().is_tombstone("shop.db"));
}
