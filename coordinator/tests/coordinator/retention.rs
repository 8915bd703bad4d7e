//! Ended operations are kept for a while, and of each database the newest for ever.

use std::time::{Duration, Instant};

use proto::v1;
use tonic::Code;

use crate::cluster::{Cluster, PATIENCE, assert_refused};

async fn list(cluster: &Cluster) -> Vec<String> {
    let answer = cluster.client.clone().list_operations(v1::ListOperationsRequest::default()).await.unwrap();
    answer.into_inner().operations.into_iter().map(|operation| operation.id).collect()
}

/// Starts both databases in one request and ends them at once.
async fn ended(cluster: &Cluster, request_id: &str, databases: &[&str]) -> Vec<v1::Operation> {
    let mut request = cluster.request(v1::Kind::Move, databases);
    request.request_id = request_id.to_owned();
    let operations = cluster.try_start(request).await.unwrap();
    for operation in &operations {
        cluster.cancel(&operation.id).await;
        cluster.cancelled(&operation.id).await;
    }
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_is_forgotten_but_for_the_newest_of_each_database() {
    let mut cluster = Cluster::start().await;
    let first = ended(&cluster, "first", &["a", "b"]).await;
    let second = ended(&cluster, "second", &["a"]).await;
    let third = ended(&cluster, "", &["a"]).await;
    let active = cluster.start_move("c").await;
    cluster.crash_and_restart().await;
    assert_eq!(list(&cluster).await.len(), 5, "thirty days are not over");

    cluster.limits.keep_ended = Duration::ZERO;
    cluster.crash_and_restart().await;
    let kept = vec![active.clone(), third[0].id.clone(), first[1].id.clone()];
    let begun = Instant::now();
    while list(&cluster).await != kept {
        assert!(begun.elapsed() < PATIENCE, "{:?} are kept, not {kept:?}", list(&cluster).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let gone = v1::GetOperationRequest { id: second[0].id.clone() };
    let gone = cluster.client.clone().get_operation(gone).await;
    assert_refused(gone, Code::NotFound, "OPERATION_NOT_FOUND");
    let watch = |batch: String| v1::WatchOperationsRequest { ids: Vec::new(), batch };
    // Half of this batch is left.
    let mut half = cluster.client.clone().watch_operations(watch(first[0].batch.clone())).await.unwrap().into_inner();
    assert_eq!(half.message().await.unwrap().unwrap().operation.unwrap().id, first[1].id);
    assert!(half.message().await.unwrap().is_none());
    let answer = cluster.client.clone().watch_operations(watch(second[0].batch.clone())).await;
    assert_refused(answer, Code::NotFound, "BATCH_NOT_FOUND");
    // The id of a forgotten request is free again; that of a kept one is not.
    let again = ended(&cluster, "second", &["a"]).await;
    assert_ne!(again[0].id, second[0].id);
    let mut kept = cluster.request(v1::Kind::Move, &["z"]);
    kept.request_id = "first".to_owned();
    assert_refused(cluster.try_start(kept).await, Code::AlreadyExists, "REQUEST_ID_REUSED");

    cluster.ready(&active).await;
    cluster.complete(&active).await;
    cluster.succeeded(&active).await;
}
