//! Overrides: asked for twice, refused when they can be seen to be wrong, recorded.

use proto::v1::{self, State};
use tonic::Code;

use crate::cluster::{Cluster, assert_refused};

async fn unfence(cluster: &Cluster, id: &str, confirm: &str) -> Result<v1::Operation, tonic::Status> {
    let request = v1::ForceUnfenceRequest { id: id.to_owned(), confirm: confirm.to_owned() };
    Ok(cluster.client.clone().force_unfence(request).await?.into_inner().operation.unwrap())
}

async fn promote(cluster: &Cluster, id: &str) -> Result<v1::Operation, tonic::Status> {
    let request = v1::ForcePromoteRequest { id: id.to_owned(), confirm: id.to_owned() };
    Ok(cluster.client.clone().force_promote(request).await?.into_inner().operation.unwrap())
}

async fn forget(cluster: &Cluster, id: &str, side: v1::Side) -> Result<v1::Operation, tonic::Status> {
    let request = v1::ForgetOperationRequest { id: id.to_owned(), side: side.into(), confirm: id.to_owned() };
    Ok(cluster.client.clone().forget_operation(request).await?.into_inner().operation.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_reopened_when_the_destination_is_gone() {
    let mut cluster = Cluster::start().await;
    let id = cluster.fenced().await;
    cluster.dest.down().await;
    assert_refused(unfence(&cluster, &id, "").await, Code::InvalidArgument, "INVALID_FIELDS");
    assert_refused(unfence(&cluster, &id, "other").await, Code::InvalidArgument, "INVALID_FIELDS");
    unfence(&cluster, &id, &id).await.unwrap();
    assert_eq!(cluster.world.writable("west", "shop"), Some(true));
    cluster.until(&id, "waiting", |now| now.state() == State::Cancelling && !now.waiting_for.is_empty()).await;
    // Gone for ever it is, so it is forgotten; then the source is cleaned up.
    forget(&cluster, &id, v1::Side::Dest).await.unwrap();
    cluster.until(&id, "forgetting", |now| now.step.contains("removing the records")).await;
    let ended = forget(&cluster, &id, v1::Side::Dest).await.unwrap();
    assert_eq!((ended.state(), ended.reason.unwrap().code.as_str()), (State::Failed, "FORCED_UNFENCE"));
    let used: Vec<&str> = ended.overrides.iter().map(|used| used.what.as_str()).collect();
    assert_eq!(used, ["force-unfence", "forget dest", "forget dest"]);
    assert!(cluster.world.lock().sources.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_not_reopened_when_the_destination_may_be_primary() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.block("dest", "Promote");
    cluster.complete(&id).await;
    cluster.until_called("dest.Promote").await;
    cluster.until_called("source.Fence").await;
    let refused = unfence(&cluster, &id, &id).await;
    assert_refused(refused, Code::FailedPrecondition, "WOULD_MAKE_TWO_PRIMARIES");
    cluster.world.unblock("dest", "Promote");
    cluster.succeeded(&id).await;
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forced_on_an_operation_that_needs_none() {
    let cluster = Cluster::with(|limits| limits.running_per_source = 1).await;
    let request = cluster.request(v1::Kind::Move, &["a", "b"]);
    let operations = cluster.try_start(request).await.unwrap();
    let (id, queued) = (&operations[0].id, &operations[1].id);
    cluster.ready(id).await;
    assert_refused(unfence(&cluster, id, id).await, Code::FailedPrecondition, "WRONG_STATE");
    assert_refused(forget(&cluster, id, v1::Side::Dest).await, Code::FailedPrecondition, "WRONG_STATE");
    assert_refused(promote(&cluster, id).await, Code::FailedPrecondition, "WOULD_MAKE_TWO_PRIMARIES");
    assert_refused(promote(&cluster, queued).await, Code::FailedPrecondition, "NOT_READY");
    let unspecified = forget(&cluster, id, v1::Side::Unspecified).await;
    assert_refused(unspecified, Code::InvalidArgument, "INVALID_FIELDS");
    let missing = unfence(&cluster, "0-0", "0-0").await;
    assert_refused(missing, Code::NotFound, "OPERATION_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_answers_is_not_forgotten() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.block("dest", "Discard");
    cluster.cancel(&id).await;
    cluster.until_state(&id, State::Cancelling).await;
    assert_refused(forget(&cluster, &id, v1::Side::Dest).await, Code::FailedPrecondition, "SIDE_ANSWERS");
    cluster.world.unblock("dest", "Discard");
    cluster.cancelled(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destination_is_promoted_when_the_source_is_gone() {
    let mut cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.source.down().await;
    promote(&cluster, &id).await.unwrap();
    assert_eq!(cluster.world.writable("east", "shop"), Some(true));
    cluster.until(&id, "waiting", |now| now.step.contains("dropping the source")).await;
    assert_refused(promote(&cluster, &id).await, Code::FailedPrecondition, "TOO_LATE");
    // Both times: what is to be dropped, and what is to be cleaned up.
    forget(&cluster, &id, v1::Side::Source).await.unwrap();
    cluster.until(&id, "ended", |now| now.state() == State::Succeeded).await;
    assert!(cluster.world.lock().dests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_without_its_record_keeps_the_source_fenced_until_a_person_decides() {
    let cluster = Cluster::start().await;
    let id = cluster.fenced().await;
    cluster.world.lock().dests.clear();
    let waiting = cluster.until(&id, "waiting", |now| now.waiting_for.join("").contains("no record")).await;
    assert_eq!(waiting.state(), State::Completing);
    assert_eq!(cluster.world.writable("west", "shop"), Some(false), "nothing follows from that");
    forget(&cluster, &id, v1::Side::Dest).await.unwrap();
    cluster.until_state(&id, State::Failed).await;
    assert_eq!(cluster.world.writable("west", "shop"), Some(true));
    cluster.assert_clean();
}

/// A move whose destination is primary, and does not answer when it is asked before the source is dropped.
async fn flipped(cluster: &Cluster) -> String {
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.block("dest", "GetStatus");
    cluster.complete(&id).await;
    cluster.until(&id, "flipped", |now| now.step.contains("dropping the source")).await;
    id
}

/// Flip, and then the destination is lost before the source was dropped.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_kept_when_the_destination_was_lost_after_the_flip() {
    let cluster = Cluster::start().await;
    let id = flipped(&cluster).await;
    cluster.world.lock().dests.clear();
    cluster.world.unblock("dest", "GetStatus");
    cluster.until(&id, "waiting", |now| now.waiting_for.join("").contains("destination agent east")).await;
    assert_refused(forget(&cluster, &id, v1::Side::Dest).await, Code::FailedPrecondition, "LAST_COPY");
    assert_eq!(cluster.world.calls_of("source.Release"), 0, "the source holds all that is left");
    assert_eq!(cluster.world.writable("west", "shop"), Some(false), "nobody but a person may say that it is lost");

    unfence(&cluster, &id, &id).await.unwrap();
    cluster.until_state(&id, State::Failed).await;
    assert_eq!(cluster.world.writable("west", "shop"), Some(true));
    assert!(cluster.world.lock().sources.is_empty());
}

/// A destination that is something else than primary after the flip: restored from a backup that knows the operation.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_kept_while_the_destination_is_not_primary() {
    let cluster = Cluster::start().await;
    let id = flipped(&cluster).await;
    let restore = |phase: handover::dest_role::Phase| {
        for role in cluster.world.lock().dests.values_mut() {
            role.phase.clone_from(&phase);
        }
    };
    restore(handover::dest_role::Phase::Replica);
    cluster.world.unblock("dest", "GetStatus");
    cluster.until(&id, "waiting", |now| now.waiting_for.join("").contains("is replica now")).await;
    assert_eq!(cluster.world.writable("west", "shop"), Some(false));
    restore(handover::dest_role::Phase::Primary { attempt: handover::Attempt(1) });
    cluster.succeeded(&id).await;
    cluster.assert_moved("shop");
}
