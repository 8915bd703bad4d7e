//! Markers, Promote and Abort: an attempt has one outcome.

use crate::{
    client::*,
    fake::{Fault, World},
};
use proto::v1::{Decision, Settle, dest_frame::Frame as Answer, source_frame::Frame};
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn promote_waits_for_the_marker_and_opens_the_database() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    let mut client = agent.client.clone();
    let waiting = tokio::spawn(async move {
        let request = proto::v1::PromoteRequest { operation: OP.to_owned(), version: 5, attempt: 1, wait_ms: 30_000 };
        client.promote(request).await
    });
    agent.status().await;
    source.send(Frame::Settle(Settle {})).await;
    source.until(|answer| matches!(answer, Answer::Settled(_)).then_some(())).await;
    assert!(!source.marker(1, 10).await);
    let online = waiting.await.expect("no panic").expect("promoted").into_inner().online_unix_us;
    assert!(online > 1_700_000_000_000_000);
    assert_eq!((world.phase(OP), world.lock().online.clone()), ("primary", vec!["shop".to_owned()]));
    assert_eq!((agent.status().await.phase.as_str(), agent.status().await.attempt), ("primary", 1));
    source.orderly_end().await;

    // Everything repeated answers the same.
    assert_eq!(agent.promote(1, 0).await.expect("again"), online);
    assert_eq!(agent.abort(1, false).await, Decision::Promoted);
    assert_eq!(agent.abort(2, true).await, Decision::Promoted);
    let mut late = agent.source(hello()).await;
    let welcome = late.welcome().await;
    assert_eq!((welcome.phase.as_str(), welcome.attempt), ("primary", 1));
    late.orderly_end().await;
}

#[tokio::test]
async fn an_opened_database_is_let_alone() {
    for _ in 0..20 {
        let world = World::default();
        let (mut agent, mut source) = Agent::replica(&world).await;
        source.marker(1, 10).await;
        agent.promote(1, 0).await.expect("promoted");
        // A source that ends its side wants its last acknowledgement; the replica is not to be touched for it.
        source.close();
        source.orderly_end().await;
        while world.calls("close") == 0 {
            tokio::task::yield_now().await;
        }
        let state = world.lock();
        let after = state.calls.iter().skip_while(|call| *call != "promote").skip(1);
        assert!(after.clone().all(|call| call == "close" || call == "heartbeat"), "{:?}", state.calls);
    }
}

#[tokio::test]
async fn promote_without_a_marker_is_refused_when_its_time_is_over() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    is(&agent.promote(1, 50).await.expect_err("no marker"), Code::FailedPrecondition, "NOT_PREPARED");
    assert!(!source.marker(2, 10).await);
    is(&agent.promote(1, 0).await.expect_err("another attempt"), Code::FailedPrecondition, "NOT_PREPARED");
    assert_eq!(world.calls("promote"), 0);
    is(&agent.promote(0, 0).await.expect_err("not an attempt"), Code::InvalidArgument, "BAD_FIELD");
}

#[tokio::test]
async fn a_closed_attempt_can_never_be_promoted() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    assert!(!source.marker(1, 10).await);
    assert_eq!(agent.abort(1, true).await, Decision::Prepared);
    assert_eq!(agent.abort(2, true).await, Decision::Unknown);
    assert_eq!(agent.abort(1, false).await, Decision::Aborted);
    assert_eq!(agent.abort(1, true).await, Decision::Aborted);
    // At once: nobody waits for what cannot happen.
    let refused = tokio::time::timeout(Duration::from_secs(5), agent.promote(1, 60_000)).await.expect("at once");
    is(&refused.expect_err("closed"), Code::Aborted, "STALE_ATTEMPT");
    // The same stream goes on, the same marker is skipped, the next attempt succeeds.
    source.send(log(10, 12)).await;
    assert!(source.marker(1, 12).await);
    assert!(!source.marker(2, 12).await);
    agent.promote(2, 0).await.expect("promoted");
}

#[tokio::test]
async fn an_abort_ends_a_waiting_promote_and_counts_for_attempts_never_heard_of() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    let mut client = agent.client.clone();
    let waiting = tokio::spawn(async move {
        let request = proto::v1::PromoteRequest { operation: OP.to_owned(), version: 5, attempt: 3, wait_ms: 60_000 };
        client.promote(request).await
    });
    agent.status().await;
    assert_eq!(agent.abort(3, false).await, Decision::Aborted);
    is(&waiting.await.expect("no panic").expect_err("closed"), Code::Aborted, "STALE_ATTEMPT");
    let prepared = world.calls("prepare_marker");
    assert!(source.marker(2, 10).await, "below the floor");
    assert!(source.marker(3, 99).await, "at the floor, wherever it is");
    assert_eq!(world.calls("prepare_marker"), prepared, "the replica does not move for a closed attempt");
    assert_eq!((agent.status().await.floor, world.phase(OP)), (3, "replica"));
}

#[tokio::test]
async fn a_prepared_destination_takes_no_log_until_the_attempt_is_closed() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    assert!(!source.marker(1, 10).await);
    source.send(log(10, 11)).await;
    is(&source.refusal().await, Code::FailedPrecondition, "NOT_REPLICATING");
    let mut source = agent.source(hello()).await;
    let welcome = source.welcome().await;
    assert_eq!((welcome.phase.as_str(), welcome.attempt, welcome.log_position.as_str()), ("prepared", 1, "10"));
    source.plan(1, 0).await;
    assert!(source.marker(1, 10).await, "it has its marker already");
    source.send(plan(2, 0)).await;
    is(&source.refusal().await, Code::FailedPrecondition, "NOT_REPLICATING");
    let mut source = agent.source(hello()).await;
    source.plan(1, 0).await;
    agent.abort(1, false).await;
    source.send(log(10, 11)).await;
    source.received("11").await;
    assert!(agent.status().await.trouble.is_none(), "the usual course of things is no trouble");
}

#[tokio::test]
async fn a_marker_elsewhere_than_where_the_replica_stands_is_a_gap() {
    let world = World::default();
    let (_agent, mut source) = Agent::replica(&world).await;
    source.send(marker(1, 12)).await;
    is(&source.refusal().await, Code::OutOfRange, "LOG_GAP");
    assert_eq!(world.phase(OP), "replica");
}

#[tokio::test]
async fn an_abort_during_the_marker_wins() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    let gate = world.gate("prepare_marker");
    source.send(marker(1, 10)).await;
    assert_eq!(agent.abort(1, false).await, Decision::Aborted);
    drop(gate);
    let skipped = source.until(|answer| match answer {
        Answer::MarkerTaken(taken) => Some(taken.skipped),
        _ => None,
    });
    assert!(skipped.await);
    assert_eq!(world.phase(OP), "replica");
}

#[tokio::test]
async fn stale_commands_change_nothing() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    agent.abort(1, false).await;
    source.marker(2, 10).await;
    let before = world.role(OP);
    let promote = proto::v1::PromoteRequest { operation: OP.to_owned(), version: 4, attempt: 2, wait_ms: 1000 };
    let refused = agent.client.promote(promote).await.expect_err("stale");
    is(&refused, Code::Aborted, "STALE_VERSION");
    is(&agent.discard(4).await.expect_err("stale"), Code::Aborted, "STALE_VERSION");
    is(&agent.prepare(0).await.expect_err("stale"), Code::Aborted, "STALE_VERSION");
    assert_eq!(world.role(OP), before);
}

#[tokio::test]
async fn a_promotion_that_failed_without_effect_can_still_be_aborted() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    source.marker(1, 10).await;
    world.fail("promote", Fault::DiskFull);
    is(&agent.promote(1, 0).await.expect_err("full"), Code::ResourceExhausted, "DISK_FULL");
    assert_eq!(agent.abort(1, false).await, Decision::Aborted);
    assert_eq!(world.phase(OP), "replica");
}

#[tokio::test]
async fn a_promotion_whose_answer_got_lost_cannot_be_aborted() {
    for ask_only in [false, true] {
        let world = World::default();
        let (mut agent, mut source) = Agent::replica(&world).await;
        source.marker(1, 10).await;
        world.fail("promote", Fault::AfterEffect);
        assert_eq!(agent.promote(1, 0).await.expect_err("lost").code(), Code::Unavailable);
        assert_eq!(agent.abort(1, ask_only).await, Decision::Promoted);
        assert_eq!(agent.discard(9).await.expect("answer"), Decision::Promoted);
        assert_eq!(world.phase(OP), "primary");
        agent.promote(1, 0).await.expect("again");
    }
}

#[tokio::test]
async fn a_marker_that_cannot_be_recorded_is_not_taken() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    world.fail("put_role", Fault::DiskFull);
    source.send(marker(1, 10)).await;
    is(&source.refusal().await, Code::ResourceExhausted, "DISK_FULL");
    is(&agent.promote(1, 0).await.expect_err("not prepared"), Code::FailedPrecondition, "NOT_PREPARED");
    let mut source = agent.source(hello()).await;
    source.plan(1, 0).await;
    assert!(!source.marker(1, 10).await);

    // Recorded, but the answer got lost: it is prepared, and the repeated marker is skipped.
    agent.abort(1, false).await;
    world.fail("put_role", Fault::AfterEffect);
    source.send(marker(2, 10)).await;
    assert_eq!(source.refusal().await.code(), Code::Unavailable);
    let mut source = agent.source(hello()).await;
    assert_eq!(source.welcome().await.phase, "prepared");
    agent.promote(2, 0).await.expect("promoted");
}

#[tokio::test]
async fn force_promote_opens_a_whole_database_and_nothing_less() {
    let force = |version| proto::v1::ForcePromoteCommand { operation: OP.to_owned(), version, attempt: 1 };
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    is(&agent.client.force_promote(force(5)).await.expect_err("seeding"), Code::FailedPrecondition, "WRONG_PHASE");

    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    world.fail("prepare_marker", Fault::Corrupt);
    assert_eq!(agent.client.force_promote(force(5)).await.expect_err("torn").code(), Code::DataLoss);
    is(&source.refusal().await, Code::Aborted, "SUPERSEDED_LANE");
    // The source may go on, and the next try opens.
    let mut source = agent.source(hello()).await;
    source.plan(1, 0).await;
    source.send(log(10, 11)).await;
    source.received("11").await;
    agent.client.force_promote(force(6)).await.expect("forced");
    assert_eq!(world.phase(OP), "primary");
    agent.client.force_promote(force(6)).await.expect("again");
}
