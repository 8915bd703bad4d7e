//! The queue of a source: first in, first out, no more at once than allowed.

use proto::v1::{self, State};

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn eight_run_and_the_rest_wait_in_order() {
    let cluster = Cluster::start().await;
    let names: Vec<String> = (0..12).map(|n| format!("db{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let first = cluster.try_start(cluster.request(v1::Kind::Move, &names[..10])).await.unwrap();
    let second = cluster.try_start(cluster.request(v1::Kind::Copy, &names[10..])).await.unwrap();
    let all: Vec<String> = first.iter().chain(&second).map(|operation| operation.id.clone()).collect();
    for id in &all[..8] {
        cluster.ready(id).await;
    }
    for (at, id) in all[8..].iter().enumerate() {
        let queued = cluster.get(id).await;
        assert_eq!((queued.state(), queued.queue_place as usize), (State::Queued, at + 1));
        assert_eq!(queued.status, "Pending");
    }
    // One in the middle of the queue leaves it: the others move up.
    cluster.cancel(&all[9]).await;
    assert_eq!(cluster.cancelled(&all[9]).await.started, None);
    assert_eq!(cluster.get(&all[10]).await.queue_place, 2);
    // An operation that ends makes room for exactly one, the first.
    cluster.complete(&all[3]).await;
    cluster.succeeded(&all[3]).await;
    cluster.ready(&all[8]).await;
    assert_eq!(cluster.get(&all[10]).await.queue_place, 1);
    cluster.cancel(&all[0]).await;
    cluster.cancelled(&all[0]).await;
    cluster.ready(&all[10]).await;
    assert_eq!(cluster.get(&all[11]).await.queue_place, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_being_cancelled_counts_until_it_has_ended() {
    let cluster = Cluster::with(|limits| limits.running_per_source = 1).await;
    let operations = cluster.try_start(cluster.request(v1::Kind::Move, &["a", "b"])).await.unwrap();
    cluster.ready(&operations[0].id).await;
    cluster.world.block("dest", "Discard");
    cluster.cancel(&operations[0].id).await;
    cluster.until(&operations[0].id, "waiting", |now| !now.waiting_for.is_empty()).await;
    assert_eq!(cluster.get(&operations[1].id).await.state(), State::Queued);
    cluster.world.unblock("dest", "Discard");
    cluster.ready(&operations[1].id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_runs_again_when_one_leaves_the_queue() {
    let cluster = Cluster::with(|limits| limits.running_per_source = 1).await;
    let operations = cluster.try_start(cluster.request(v1::Kind::Move, &["a", "b"])).await.unwrap();
    cluster.ready(&operations[0].id).await;
    // The name is taken while the operation waits.
    cluster.world.put_database("east", "b");
    cluster.cancel(&operations[0].id).await;
    let failed = cluster.until_state(&operations[1].id, State::Failed).await;
    assert_eq!(failed.reason.unwrap().code, "PREFLIGHT_FAILED");
    assert_eq!(failed.findings[0].code, "NAME_TAKEN");
    assert_eq!(cluster.world.writable("east", "b"), Some(true), "what is there already is left alone");
    cluster.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_survives_a_crash() {
    let mut cluster = Cluster::with(|limits| limits.running_per_source = 2).await;
    let operations = cluster.try_start(cluster.request(v1::Kind::Move, &["a", "b", "c", "d", "e"])).await.unwrap();
    cluster.ready(&operations[0].id).await;
    cluster.crash_and_restart().await;
    cluster.ready(&operations[1].id).await;
    for (at, operation) in operations[2..].iter().enumerate() {
        let queued = cluster.get(&operation.id).await;
        assert_eq!((queued.state(), queued.queue_place as usize), (State::Queued, at + 1));
    }
    cluster.cancel(&operations[0].id).await;
    cluster.ready(&operations[2].id).await;
    assert_eq!(cluster.get(&operations[3].id).await.queue_place, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_restarts_while_one_leaves_the_queue_is_waited_for() {
    use handover::{Finding, Side};
    let mut cluster = Cluster::with(|limits| limits.running_per_source = 1).await;
    let operations = cluster.try_start(cluster.request(v1::Kind::Move, &["a", "b"])).await.unwrap();
    let next = &operations[1].id;
    cluster.ready(&operations[0].id).await;
    // The source's probe fails while the agent is down, and for a moment longer.
    let path = Finding::error(Side::Source, "NO_NETWORK_PATH", "the source agent cannot reach it", "mend it");
    cluster.world.lock().source_findings = vec![path];
    cluster.cancel(&operations[0].id).await;
    cluster.cancelled(&operations[0].id).await;
    let waiting = cluster.until(next, "told", |now| now.waiting_for.join("").contains("cannot reach it")).await;
    assert_eq!(waiting.state(), State::Preparing);
    cluster.dest.down().await;
    cluster.until(next, "waiting", |now| now.waiting_for.join("").contains("destination agent east")).await;
    cluster.dest.up().await;
    cluster.world.lock().source_findings.clear();
    cluster.ready(next).await;
}
