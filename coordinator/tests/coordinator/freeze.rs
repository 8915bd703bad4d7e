//! The freeze: its limit, and attempts that are aborted and repeated.

use std::time::Duration;

use proto::v1::State;
use tonic::Code;

use crate::{
    cluster::{Cluster, assert_refused},
    fakes::Fault,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_too_long_is_aborted_and_a_later_one_succeeds() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.lock().hold_markers = true;
    cluster.try_complete(&id, 200).await.unwrap();
    let back = cluster.until(&id, "back", |now| now.reason.is_some() && now.state() != State::Completing).await;
    assert_eq!(back.state(), State::ReadyForCompletion);
    let reason = back.reason.unwrap();
    assert_eq!(reason.code, "FREEZE_EXCEEDED");
    assert!(reason.message.contains("200 ms"), "{}", reason.message);
    assert_eq!((back.attempt, back.max_freeze_ms), (1, 200));
    assert_eq!(cluster.world.writable("west", "shop"), Some(true), "clients may write again");
    // The marker of the closed attempt arrives after all: it must not count.
    cluster.world.release_markers();
    cluster.try_complete(&id, 10_000).await.unwrap();
    let ended = cluster.succeeded(&id).await;
    assert_eq!((ended.attempt, ended.reason), (2, None));
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_away_during_the_freeze_is_tried_until_the_limit() {
    let mut cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.lock().hold_markers = true;
    cluster.try_complete(&id, 10_000).await.unwrap();
    cluster.until_called("source.Fence").await;
    cluster.dest.down().await;
    cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
    cluster.world.release_markers();
    cluster.dest.up().await;
    let ended = cluster.succeeded(&id).await;
    assert_eq!(ended.attempt, 1);
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lag_longer_than_the_freeze_touches_nothing() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.lock().lag_ms = 5_000;
    cluster.try_complete(&id, 2_000).await.unwrap();
    let back = cluster.until(&id, "back", |now| now.reason.is_some() && now.state() != State::Completing).await;
    assert_eq!(back.reason.unwrap().code, "FREEZE_WOULD_EXCEED");
    assert_eq!(cluster.world.calls_of("source.Fence"), 0);
    cluster.try_complete(&id, 6_000).await.unwrap();
    cluster.succeeded(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_refreshed_while_the_completion_waits() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.lock().hold_markers = true;
    cluster.complete(&id).await;
    cluster.until_called("source.Fence").await;
    let observed = |now: &proto::v1::Operation| {
        let at = now.progress.as_ref().and_then(|progress| progress.observed);
        at.map(|at| (at.seconds, at.nanos))
    };
    let mut last = cluster.until(&id, "completing", |now| now.state() == State::Completing).await;
    for _ in 0..3 {
        last = cluster.until(&id, "observed again", |now| observed(now) > observed(&last)).await;
        assert_eq!(last.state(), State::Completing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_source_ends_the_attempt() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.fault("source", "Fence", Fault::Refuses("BUSY"));
    cluster.complete(&id).await;
    let back = cluster.until(&id, "back", |now| now.reason.is_some() && now.state() != State::Completing).await;
    assert_eq!((back.state(), back.reason.unwrap().code.as_str()), (State::ReadyForCompletion, "BUSY"));
    assert_eq!(cluster.world.calls_of("source.Fence"), 1);
    cluster.complete(&id).await;
    cluster.succeeded(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_a_side_closed_by_itself_is_followed_by_the_next() {
    for (half, method) in [("source", "Fence"), ("dest", "Promote")] {
        let cluster = Cluster::start().await;
        let id = cluster.start_move("shop").await;
        cluster.ready(&id).await;
        cluster.world.fault(half, method, Fault::Aborts("STALE_ATTEMPT"));
        cluster.complete(&id).await;
        let ended = cluster.succeeded(&id).await;
        assert_eq!(ended.attempt, 2, "without the user");
        cluster.assert_moved("shop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_such_attempts_are_enough() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    for _ in 0..6 {
        cluster.world.fault("source", "Fence", Fault::Aborts("STALE_ATTEMPT"));
    }
    cluster.complete(&id).await;
    let back = cluster.until(&id, "back", |now| now.state() == State::ReadyForCompletion && now.reason.is_some()).await;
    assert_eq!((back.attempt, back.reason.unwrap().code.as_str()), (6, "STALE_ATTEMPT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_too_early_is_refused() {
    let cluster = Cluster::start().await;
    cluster.world.lock().hold_seed = true;
    let id = cluster.start_move("shop").await;
    cluster.until_state(&id, State::Seeding).await;
    let refused = assert_refused(cluster.try_complete(&id, 0).await, Code::FailedPrecondition, "NOT_READY");
    assert!(service::status::describe(&refused).contains("seeding"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_primary_already_wins_over_an_abort() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    // Promoted, but no answer gets through until the limit: the abort finds out.
    for _ in 0..20 {
        cluster.world.fault("dest", "Promote", Fault::Stalls);
    }
    cluster.try_complete(&id, 200).await.unwrap();
    let ended = cluster.succeeded(&id).await;
    assert_eq!(ended.attempt, 1);
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_attempt_past_the_window_ends_the_operation() {
    let cluster = Cluster::with(|limits| limits.window = Duration::from_millis(400)).await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.lock().hold_markers = true;
    cluster.try_complete(&id, 600).await.unwrap();
    let ended = cluster.cancelled(&id).await;
    assert_eq!(ended.reason.unwrap().code, "WINDOW_EXPIRED");
    cluster.assert_untouched("shop");
}
