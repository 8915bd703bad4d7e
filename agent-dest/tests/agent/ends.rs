//! Discard, Finish and Forget.

use crate::{
    client::*,
    fake::{Fault, World},
};
use proto::v1::{AbortRequest, Decision, FinishRequest, SeedEnd, source_frame::Frame};
use tonic::Code;

#[tokio::test]
async fn discard_ends_the_lanes_first_and_removes_everything_but_the_record() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    let gate = world.gate("log");
    source.send(log(10, 11)).await;
    let mut client = agent.client.clone();
    let discarding = tokio::spawn(async move {
        client.discard(proto::v1::DiscardRequest { operation: OP.to_owned(), version: 5 }).await
    });
    while world.phase(OP) == "replica" {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.calls("discard"), 0, "a stream is still within the engine");
    // Decided, whoever asks.
    assert_eq!(agent.abort(1, false).await, Decision::Aborted);
    drop(gate);
    let decision = discarding.await.expect("no panic").expect("discarded").into_inner().decision();
    assert_eq!((decision, world.phase(OP)), (Decision::Aborted, "discarded"));
    source.orderly_end().await;
    assert_eq!(agent.discard(5).await.expect("again"), Decision::Aborted);
    assert_eq!(world.calls("discard"), 1);

    let mut late = agent.source(hello()).await;
    assert_eq!(late.welcome().await.phase, "discarded");
    late.orderly_end().await;
    is(&agent.promote(1, 60_000).await.expect_err("closed"), Code::Aborted, "STALE_ATTEMPT");
    is(&agent.prepare(9).await.expect_err("over"), Code::FailedPrecondition, "WRONG_PHASE");
    is(&agent.finish().await.expect_err("over"), Code::FailedPrecondition, "WRONG_PHASE");
}

#[tokio::test]
async fn discard_interrupts_a_load_that_takes_long() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    let mut source = agent.source(hello()).await;
    source.plan(1, 0).await;
    let _never_opened = world.gate("seed_done");
    source.send(Frame::SeedEnd(SeedEnd { generation: 1 })).await;
    while world.waiting("seed_done") == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.discard(5).await.expect("discarded"), Decision::Aborted);
    assert_eq!(world.phase(OP), "discarded");
}

#[tokio::test]
async fn discard_never_touches_a_primary() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    source.marker(1, 10).await;
    agent.promote(1, 0).await.expect("promoted");
    for version in [1, 5, 100] {
        assert_eq!(agent.discard(version).await.expect("answer"), Decision::Promoted);
    }
    assert_eq!((world.calls("discard"), world.phase(OP)), (0, "primary"));
}

#[tokio::test]
async fn a_discard_that_failed_is_repeated() {
    let world = World::default();
    let (mut agent, _source) = Agent::replica(&world).await;
    world.fail("discard", Fault::AfterEffect);
    assert_eq!(agent.discard(5).await.expect_err("lost").code(), Code::Unavailable);
    assert_eq!(agent.status().await.phase, "discarding");
    is(&agent.forget(6).await.expect_err("not yet"), Code::FailedPrecondition, "WRONG_PHASE");
    assert_eq!(agent.discard(5).await.expect("again"), Decision::Aborted);
    agent.forget(6).await.expect("forgotten");
}

#[tokio::test]
async fn an_operation_that_is_not_known_is_answered_so() {
    let mut agent = Agent::start(&World::default()).await;
    assert_eq!(agent.abort(1, false).await, Decision::Unknown);
    assert_eq!(agent.abort(1, true).await, Decision::Unknown);
    let from_source =
        AbortRequest { operation: OP.to_owned(), attempt: 1, token: TOKEN.to_owned(), ..AbortRequest::default() };
    assert_eq!(agent.client.abort(from_source).await.expect("answer").into_inner().decision(), Decision::Unknown);
    assert_eq!(agent.discard(1).await.expect("answer"), Decision::Unknown);
    is(&agent.promote(1, 0).await.expect_err("unknown"), Code::NotFound, "OPERATION_UNKNOWN");
    is(&agent.finish().await.expect_err("unknown"), Code::NotFound, "OPERATION_UNKNOWN");
}

#[tokio::test]
async fn finish_needs_a_primary_and_is_idempotent() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    is(&agent.finish().await.expect_err("too early"), Code::FailedPrecondition, "WRONG_PHASE");
    source.marker(1, 10).await;
    agent.promote(1, 0).await.expect("promoted");
    world.fail("finish", Fault::DiskFull);
    assert_eq!(agent.finish().await.expect_err("full").code(), Code::ResourceExhausted);
    for _ in 0..2 {
        assert!(agent.finish().await.expect("finished").on_online.is_none(), "no hook is configured");
    }
    let stale = FinishRequest { operation: OP.to_owned(), version: 1 };
    is(&agent.client.finish(stale).await.expect_err("stale"), Code::Aborted, "STALE_VERSION");
    agent.forget(7).await.expect("forgotten");
    agent.forget(7).await.expect("again");
    is(&agent.promote(1, 0).await.expect_err("gone"), Code::NotFound, "OPERATION_UNKNOWN");
    assert_eq!(world.lock().online, ["shop"]);
}

#[tokio::test]
async fn a_forgotten_operation_ends_its_waiters() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    source.marker(1, 10).await;
    agent.promote(1, 0).await.expect("promoted");
    world.fail("remove_role", Fault::AfterEffect);
    assert_eq!(agent.forget(7).await.expect_err("lost").code(), Code::Unavailable);
    // The record is gone, and that is found out.
    assert_eq!(agent.abort(1, false).await, Decision::Unknown);
    agent.forget(7).await.expect("again");
    is(&agent.prepare(7).await.expect_err("late"), Code::Aborted, "STALE_VERSION");
}
