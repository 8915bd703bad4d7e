//! How operations end without a flip: by the user in every state, by the clock, and by failures.

use std::time::Duration;

use proto::v1::{self, State};
use tonic::Code;

use crate::cluster::{Cluster, assert_refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_preparing_leaves_nothing() {
    for call in [("dest", "Preflight"), ("dest", "Prepare"), ("source", "Begin")] {
        let cluster = Cluster::start().await;
        let request = cluster.request(v1::Kind::Move, &["shop"]);
        if call.1 != "Preflight" {
            cluster.world.block(call.0, call.1);
        }
        let id = cluster.try_start(request).await.unwrap().remove(0).id;
        if call.1 == "Preflight" {
            cluster.world.block(call.0, call.1);
        }
        let waiting =
            cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty() || now.state() > State::Preparing);
        waiting.await;
        cluster.cancel(&id).await;
        let ended = cluster.cancelled(&id).await;
        assert_eq!(ended.reason.unwrap().code, "CANCELLED_BY_USER");
        cluster.assert_untouched("shop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_seeding_catching_up_and_ready_leaves_nothing() {
    for state in [State::Seeding, State::CatchingUp, State::ReadyForCompletion] {
        let cluster = Cluster::start().await;
        cluster.world.lock().hold_seed = state == State::Seeding;
        cluster.world.lock().lag_ms = if state == State::CatchingUp { 5000 } else { 0 };
        let id = cluster.start_move("shop").await;
        cluster.until_state(&id, state).await;
        cluster.cancel(&id).await;
        // Again, while it is being cancelled; it may have ended by then.
        if let Err(late) = cluster.try_cancel(&id).await {
            assert_refused::<()>(Err(late), Code::FailedPrecondition, "ENDED");
        }
        cluster.cancelled(&id).await;
        cluster.assert_untouched("shop");
        assert_refused(cluster.try_cancel(&id).await, Code::FailedPrecondition, "ENDED");
        assert_refused(cluster.try_complete(&id, 0).await, Code::FailedPrecondition, "ENDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_completing_goes_back_and_leaves_nothing() {
    let hold = |cluster: &Cluster| cluster.world.lock().hold_markers = true;
    for blocked in [None, Some(("dest", "Abort")), Some(("source", "Unfence"))] {
        let cluster = Cluster::start().await;
        let id = cluster.start_move("shop").await;
        cluster.ready(&id).await;
        hold(&cluster);
        cluster.complete(&id).await;
        cluster.until_called("source.Fence").await;
        if let Some((half, method)) = blocked {
            cluster.world.block(half, method);
        }
        cluster.cancel(&id).await;
        if let Some((half, method)) = blocked {
            cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
            cluster.cancel(&id).await;
            cluster.world.unblock(half, method);
        }
        cluster.cancelled(&id).await;
        cluster.assert_untouched("shop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_after_the_flip_is_too_late() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.block("source", "Release");
    cluster.complete(&id).await;
    let waiting = cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
    assert_eq!(waiting.state(), State::Completing);
    assert_refused(cluster.try_cancel(&id).await, Code::FailedPrecondition, "TOO_LATE");
    cluster.complete(&id).await;
    cluster.world.unblock("source", "Release");
    cluster.succeeded(&id).await;
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_waits_for_an_agent_that_is_down() {
    let mut cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.source.down().await;
    cluster.cancel(&id).await;
    let waiting =
        cluster.until(&id, "cleaning up", |now| now.state() == State::Cancelling && !now.waiting_for.is_empty()).await;
    assert!(waiting.waiting_for[0].contains("source agent west"), "{:?}", waiting.waiting_for);
    cluster.source.up().await;
    cluster.cancelled(&id).await;
    cluster.assert_untouched("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_not_completed_in_its_window_is_cancelled() {
    let cluster = Cluster::with(|limits| limits.window = Duration::from_millis(300)).await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    let ended = cluster.cancelled(&id).await;
    assert_eq!(ended.reason.unwrap().code, "WINDOW_EXPIRED");
    cluster.assert_untouched("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_is_not_missed_while_the_coordinator_or_an_agent_is_down() {
    let mut cluster = Cluster::with(|limits| limits.window = Duration::from_millis(600)).await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.dest.down().await;
    cluster.crash().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.up().await;
    cluster.until_state(&id, State::Cancelling).await;
    cluster.dest.up().await;
    let ended = cluster.cancelled(&id).await;
    assert_eq!(ended.reason.unwrap().code, "WINDOW_EXPIRED");
    cluster.assert_untouched("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_trouble_of_an_agent_fails_the_operation() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    let code = "LOG_BUDGET_EXCEEDED".to_owned();
    let reason = v1::Reason { code, message: "too much log".to_owned(), remedy: "more".to_owned() };
    cluster.world.lock().trouble = Some((reason.clone(), false));
    let waiting = cluster.until(&id, "troubled", |now| !now.waiting_for.is_empty()).await;
    assert!(waiting.waiting_for[0].contains("too much log"));
    assert_eq!(waiting.state(), State::ReadyForCompletion);
    cluster.world.lock().trouble = Some((reason.clone(), true));
    let failed = cluster.until_state(&id, State::Failed).await;
    assert_eq!(failed.reason, Some(reason));
    cluster.assert_untouched("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_lost_its_record_fails_the_operation() {
    for (state, half) in [(State::Seeding, "source"), (State::Seeding, "dest"), (State::ReadyForCompletion, "source")] {
        let cluster = Cluster::start().await;
        cluster.world.lock().hold_seed = state == State::Seeding;
        let id = cluster.start_move("shop").await;
        cluster.until_state(&id, state).await;
        match half {
            "source" => cluster.world.lock().sources.clear(),
            _ => cluster.world.lock().dests.clear(),
        }
        let failed = cluster.until_state(&id, State::Failed).await;
        let code = if half == "source" { "SOURCE_LOST_OPERATION" } else { "DEST_LOST_OPERATION" };
        assert_eq!(failed.reason.unwrap().code, code);
        cluster.assert_untouched("shop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_begin_fails_the_operation_with_its_reason() {
    use crate::fakes::Fault;
    let cluster = Cluster::start().await;
    cluster.world.fault("source", "Begin", Fault::Refuses("NO_SLOTS"));
    let id = cluster.start_move("shop").await;
    let failed = cluster.until_state(&id, State::Failed).await;
    assert_eq!(failed.reason.unwrap().code, "NO_SLOTS");
    cluster.assert_untouched("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_right_after_the_start_leaves_nothing() {
    let cluster = Cluster::start().await;
    for n in 0..30 {
        let database = format!("db{n}");
        let id = cluster.start_move(&database).await;
        tokio::time::sleep(Duration::from_micros(300 * n)).await;
        cluster.cancel(&id).await;
        cluster.cancelled(&id).await;
        cluster.assert_untouched(&database);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_comes_after_the_discard_is_discarded_too() {
    let cluster = Cluster::start().await;
    // It is obeyed, but not before the operation is cancelled and everything cleaned up but the record.
    cluster.world.block("dest", "Prepare");
    cluster.world.block("dest", "Forget");
    let id = cluster.start_move("shop").await;
    cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
    cluster.cancel(&id).await;
    cluster.until_called("dest.Forget").await;
    cluster.world.late_prepare(&id, "shop");
    cluster.world.unblock("dest", "Forget");
    cluster.cancelled(&id).await;
    cluster.assert_untouched("shop");
}
