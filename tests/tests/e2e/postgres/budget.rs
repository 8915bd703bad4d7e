//! The log that is retained at the source has a cap, whoever is down.

use super::{cluster, filled, reason};
use causeway_tests::{Cluster, DEST, Kind, Op, SOURCE, State, operation::request, v1};

const BUDGET: u64 = 20_000_000;

fn start(cluster: &Cluster) -> Op<'_> {
    filled(cluster, "shop", 2);
    let op = cluster.start(v1::StartOperationRequest { log_budget_bytes: BUDGET, ..request(Kind::Move, &["shop"]) });
    op.until_ready();
    op
}

/// Three times as much log as may be retained.
fn write_much(cluster: &Cluster) {
    for _ in 0..6 {
        let much =
            "INSERT INTO scratch(body) SELECT decode(repeat(md5(i::text), 60), 'hex') FROM generate_series(1, 10000) i";
        cluster.postgres("west").sql("shop", much);
    }
}

/// Writes until the operation's slot retains so much.
fn write_until_retained(cluster: &Cluster, bytes: u64) {
    let west = cluster.postgres("west");
    let retained = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots";
    while west.value("postgres", retained).parse::<u64>().expect("one slot") < bytes {
        west.sql(
            "shop",
            "INSERT INTO scratch(body) SELECT decode(repeat(md5(i::text), 60), 'hex') FROM generate_series(1, 200) i",
        );
    }
}

fn warned(operation: &v1::Operation) -> bool {
    operation.findings.iter().any(|finding| finding.code == "LOG_BUDGET_NEAR")
}

#[test]
fn a_warning_comes_before_the_end() {
    let cluster = cluster();
    let op = start(&cluster);
    cluster.kill(DEST);
    write_until_retained(&cluster, BUDGET / 2);
    let halfway = op.until_it("half of it is known", |op| figures(op).0 >= BUDGET / 2);
    assert!(!warned(&halfway), "{halfway:?}");
    write_until_retained(&cluster, BUDGET / 100 * 83);
    let near = op.until_it("the warning", warned);
    let (retained, cap) = figures(&near);
    assert!(retained > BUDGET / 100 * 80 && cap == BUDGET, "{retained} of {cap}");
    assert!(!causeway_tests::operation::ended(&near), "{near:?}");
    // The warning was in time.
    cluster.restart(DEST);
    op.complete();
    let succeeded = op.until_succeeded();
    assert!(!warned(&succeeded), "{succeeded:?}");
}

fn figures(operation: &v1::Operation) -> (u64, u64) {
    let progress = operation.progress.clone().unwrap_or_default();
    (progress.retained_bytes, progress.retained_budget_bytes)
}

#[track_caller]
fn assert_ended_by_the_budget(cluster: &Cluster, op: &Op<'_>) {
    let ended = op.until_ended();
    assert!(matches!(ended.state(), State::Failed | State::Cancelled), "{ended:?}");
    assert_eq!(reason(&ended), "LOG_BUDGET_EXCEEDED", "{ended:?}");
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
    assert_eq!(cluster.postgres("east").databases(), Vec::<String>::new());
    assert!(cluster.postgres("west").is_writable("shop"));
    // The next one works.
    let next = cluster.start_move("shop");
    next.until_ready();
    next.complete();
    next.until_succeeded();
}

#[test]
fn a_destination_that_is_away_for_too_long_ends_the_operation() {
    let cluster = cluster();
    let op = start(&cluster);
    cluster.stop(DEST);
    write_much(&cluster);
    op.until_it("the end is decided", |op| !matches!(op.state(), State::ReadyForCompletion | State::CatchingUp));
    cluster.resume(DEST);
    assert_ended_by_the_budget(&cluster, &op);
}

#[test]
fn a_source_agent_that_was_down_for_too_long_ends_the_operation_when_it_is_back() {
    let cluster = cluster();
    let op = start(&cluster);
    cluster.kill(SOURCE);
    write_much(&cluster);
    cluster.restart(SOURCE);
    assert_ended_by_the_budget(&cluster, &op);
}
