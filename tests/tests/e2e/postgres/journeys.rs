//! Moves and copies under writers whose transactions overlap, with nothing going wrong.

use super::{assert_moved, cluster, filled, reason, untouched};
use causeway_tests::{
    Cluster, Kind, POSTGRES, State,
    application::assert_sound,
    operation::{request, selector},
};
use ledger::CheckOptions;

/// Of the interleaved application.
const WRITERS: u32 = 8;

#[test]
fn a_move_carries_everything_under_interleaved_writers() {
    let cluster = cluster();
    filled(&cluster, "shop", 20);
    let before = untouched(&cluster, "west", "shop");
    let mut application = cluster.application("shop").interleaved().start();

    let op = cluster.start_move("shop");
    op.until_ready();
    application.until_more_commits(1000);
    op.complete();
    let moved = op.until_succeeded();
    application.until_commits_at(&cluster.database("east", "shop"), 200);
    let summary = application.finish();

    assert_eq!(moved.attempt, 1);
    assert!(moved.freeze_ms > 0, "a move measures its freeze: {moved:?}");
    // A session that is ended between two statements may find its connection closed before it reads why.
    assert!(summary.errors <= u64::from(WRITERS), "it saw nothing but the fence: {summary:?}");
    assert_moved(&cluster, "shop", &summary);
    assert_eq!(before, untouched(&cluster, "east", "shop"));
}

#[test]
fn a_copy_ends_at_one_moment_and_leaves_the_source_alone() {
    let cluster = cluster();
    filled(&cluster, "shop", 10);
    let mut application = cluster.application("shop").interleaved().staying().start();

    let op = cluster.start_copy("shop");
    op.until_ready();
    application.until_more_commits(500);
    let before_us = ledger::history::now_us();
    op.complete();
    op.until_succeeded();
    application.until_more_commits(300);
    let history = application.history().to_owned();
    let summary = application.finish();

    assert_eq!((summary.fenced, summary.errors), (0, 0), "a copy fences nothing: {summary:?}");
    let (west, east) = (cluster.database("west", "shop"), cluster.database("east", "shop"));
    let report = assert_sound(&CheckOptions::new(&east, &history).acknowledged_before(before_us));
    assert!(report.behind > 0, "the source wrote on, so the copy is behind: {report}");
    cluster.assert_sound(&west, &history);
    assert_eq!(untouched(&cluster, "west", "shop"), untouched(&cluster, "east", "shop"));
    for instance in ["west", "east"] {
        assert!(cluster.postgres(instance).is_writable("shop"), "{instance}");
        cluster.postgres(instance).until_clean();
    }
}

/// Places in a table of several parts of a seed, copied with these flags at the source's agent, where an older row comes after a
/// newer one.
fn out_of_order_in_a_copy(flags: &[&str]) -> u32 {
    let builder = flags.iter().fold(Cluster::builder().engine(POSTGRES), |builder, flag| builder.flag("source", *flag));
    let cluster = builder.start();
    let (west, east) = (cluster.postgres("west"), cluster.postgres("east"));
    west.create("shop");
    west.sql("shop", "CREATE TABLE event(id int, body text)");
    west.sql("shop", "INSERT INTO event SELECT i, repeat('x', 960) FROM generate_series(1, 120000) i");

    let op = cluster.start_copy("shop");
    op.until_ready();
    op.complete();
    op.until_succeeded();

    assert_eq!(west.content("shop"), east.content("shop"));
    let query =
        "SELECT count(*)::text FROM (SELECT id, lag(id) OVER (ORDER BY ctid) AS before FROM event) e WHERE id < before";
    east.value("shop", query).parse().expect("a number")
}

#[test]
fn rows_lie_in_the_order_in_which_they_lay() {
    assert_eq!(out_of_order_in_a_copy(&[]), 0, "block range indexes and scans of ranges live on it");
}

#[test]
fn a_table_may_be_split_over_lanes() {
    let out_of_order = out_of_order_in_a_copy(&["--split-tables"]);
    println!("{out_of_order} places are out of order");
}

#[test]
fn a_database_moves_there_and_back_again() {
    let cluster = Cluster::builder().engine(POSTGRES).both_ways().start();
    filled(&cluster, "shop", 3);
    let mut application = cluster.application("shop").start();
    let (west, east) = (cluster.database("west", "shop"), cluster.database("east", "shop"));

    let there = cluster.start_move("shop");
    there.until_ready();
    there.complete();
    there.until_succeeded();
    application.until_commits_at(&east, 100);

    let mut request = request(Kind::Move, &["shop"]);
    std::mem::swap(&mut request.source, &mut request.destination);
    let back = cluster.start(request);
    back.until_ready();
    back.complete();
    back.until_succeeded();
    application.until_commits_at(&west, 100);
    let history = application.history().to_owned();
    let summary = application.finish();

    assert_eq!(summary.moves.len(), 2, "{:?}", summary.moves);
    cluster.assert_sound(&west, &history);
    assert_eq!(cluster.postgres("east").databases(), Vec::<String>::new());
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
}

#[test]
fn databases_move_side_by_side_in_one_request() {
    let cluster = cluster();
    let names = ["one", "two words", "Three\"quoted'"];
    let applications: Vec<_> = names
        .iter()
        .map(|name| {
            filled(&cluster, name, 2);
            cluster.application(name).with(|o| (o.rate, o.writers) = (60.0, 1)).start()
        })
        .collect();
    let started = cluster.try_start(request(Kind::Move, &names)).expect("start");
    let ops: Vec<_> = started.operations.iter().map(|op| cluster.operation(op.id.as_str())).collect();
    ops.iter().for_each(|op| drop(op.until_ready()));
    ops.iter().for_each(|op| drop(op.complete()));
    ops.iter().for_each(|op| drop(op.until_succeeded()));
    for (name, mut application) in names.iter().zip(applications) {
        application.until_commits_at(&cluster.database("east", name), 30);
        assert_moved(&cluster, name, &application.finish());
    }
}

/// Cancels an operation in a state and looks for what is left of it.
fn cancelled_in(cluster: &Cluster, state: State) {
    filled(cluster, "shop", 20);
    let mut application = cluster.application("shop").start();
    let definitions = cluster.postgres("west").definitions("shop");
    let op = cluster.start_move("shop");
    op.until(state);
    op.cancel();
    let ended = op.until(State::Cancelled);
    assert_eq!(reason(&ended), "CANCELLED_BY_USER");
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
    assert_eq!(cluster.postgres("east").databases(), Vec::<String>::new());
    assert_eq!(cluster.postgres("west").definitions("shop"), definitions);
    application.until_more_commits(100);
    let history = application.history().to_owned();
    let summary = application.finish();
    assert_eq!((summary.moves.len(), summary.errors, summary.fenced), (0, 0, 0), "{summary:?}");
    cluster.assert_sound(&cluster.database("west", "shop"), &history);
}

#[test]
fn a_cancel_while_seeding_leaves_nothing() {
    let slow = Cluster::builder().engine(POSTGRES).flag("source", "--seed-bytes-per-second=5000000").start();
    cancelled_in(&slow, State::Seeding);
}

#[test]
fn a_cancel_while_ready_leaves_nothing() {
    cancelled_in(&cluster(), State::ReadyForCompletion);
}

#[test]
fn a_cancel_leaves_nothing_even_if_an_agent_is_down() {
    let cluster = cluster();
    filled(&cluster, "shop", 5);
    let op = cluster.start_move("shop");
    op.until_ready();
    cluster.kill(causeway_tests::SOURCE);
    cluster.kill(causeway_tests::DEST);
    op.cancel();
    op.until_it("it waits for the agents", |op| op.state() == State::Cancelling && !op.waiting_for.is_empty());
    cluster.restart(causeway_tests::SOURCE);
    cluster.restart(causeway_tests::DEST);
    op.until(State::Cancelled);
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
    assert_eq!(cluster.postgres("east").databases(), Vec::<String>::new());
    assert!(cluster.postgres("west").is_writable("shop"));
}

#[test]
fn a_rewrite_of_a_table_while_it_is_seeded_harms_nothing() {
    let cluster = Cluster::builder().engine(POSTGRES).flag("source", "--seed-bytes-per-second=10000000").start();
    filled(&cluster, "shop", 30);
    let before = untouched(&cluster, "west", "shop");
    let mut application = cluster.application("shop").start();
    let op = cluster.start_move("shop");
    op.until(State::Seeding);
    // No DDL, yet every row gets another place; it waits for the seed, or the seed begins anew.
    let rewritten = cluster.postgres("west").try_sql("app", "shop", "VACUUM FULL filler");
    println!("rewritten: {rewritten:?}");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.database("east", "shop"), 50);
    assert_moved(&cluster, "shop", &application.finish());
    assert_eq!(before, untouched(&cluster, "east", "shop"));
}

#[test]
fn the_default_selector_finds_an_operation_of_a_postgres_instance() {
    let cluster = cluster();
    filled(&cluster, "shop", 1);
    let op = cluster.start_copy("shop");
    op.until_ready();
    let listed = cluster.call(
        cluster.coordinator().list_databases(causeway_tests::v1::ListDatabasesRequest { instance: "west".to_owned() }),
    );
    let listed = listed.expect("list the databases").databases;
    assert_eq!(listed.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["shop"]);
    assert!(listed[0].size_bytes > 1_000_000 && listed[0].state == "online", "{listed:?}");
    let cancelled = cluster.call(
        cluster
            .coordinator()
            .cancel_operation(causeway_tests::v1::CancelOperationRequest { operations: selector(&[&op.id]) }),
    );
    cancelled.expect("cancel");
    op.until(State::Cancelled);
}
