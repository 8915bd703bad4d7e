//! The coordinator crashes in every state, and goes on as if nothing had happened.

use std::time::Duration;

use proto::v1::State;

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn before_completing() {
    let mut cluster = Cluster::start().await;
    for (state, blocked) in [
        (State::Preparing, Some(("dest", "Prepare"))),
        (State::Preparing, Some(("source", "Begin"))),
        (State::Seeding, None),
        (State::CatchingUp, None),
        (State::ReadyForCompletion, None),
    ] {
        let database = format!("{state:?}-{}", blocked.map_or("", |(_, method)| method)).to_lowercase();
        cluster.world.lock().hold_seed = state == State::Seeding;
        cluster.world.lock().lag_ms = if state == State::CatchingUp { 5000 } else { 0 };
        if let Some((half, method)) = blocked {
            cluster.world.block(half, method);
        }
        let id = cluster.start_move(&database).await;
        cluster.until_state(&id, state).await;
        if let Some((half, method)) = blocked {
            cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
            cluster.crash().await;
            cluster.world.unblock(half, method);
        } else {
            cluster.crash().await;
        }
        cluster.up().await;
        cluster.world.release_seed();
        cluster.world.lock().lag_ms = 0;
        cluster.ready(&id).await;
        cluster.complete(&id).await;
        cluster.succeeded(&id).await;
        cluster.assert_moved(&database);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_completing() {
    let mut cluster = Cluster::start().await;
    for (half, method) in [
        ("source", "Fence"),
        ("dest", "Promote"),
        ("source", "Release"),
        ("dest", "Finish"),
        ("source", "Cleanup"),
        ("dest", "Forget"),
    ] {
        let database = method.to_lowercase();
        let id = cluster.start_move(&database).await;
        cluster.ready(&id).await;
        cluster.world.block(half, method);
        cluster.complete(&id).await;
        cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
        cluster.crash().await;
        cluster.world.unblock(half, method);
        cluster.up().await;
        let ended = cluster.succeeded(&id).await;
        assert_eq!(ended.attempt, 1, "{method}");
        cluster.assert_moved(&database);
    }
    assert_eq!(cluster.world.lock().hooks_run, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_destination_waits_for_the_marker() {
    let mut cluster = Cluster::start().await;
    let id = cluster.fenced().await;
    cluster.crash().await;
    cluster.world.release_markers();
    cluster.up().await;
    assert_eq!(cluster.succeeded(&id).await.attempt, 1);
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn for_longer_than_the_freeze_may_last() {
    let mut cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.world.lock().hold_markers = true;
    cluster.try_complete(&id, 300).await.unwrap();
    cluster.until_called("source.Fence").await;
    cluster.crash().await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    cluster.up().await;
    let back = cluster.until(&id, "back", |now| now.state() == State::ReadyForCompletion && now.reason.is_some()).await;
    assert_eq!(back.reason.unwrap().code, "FREEZE_EXCEEDED");
    assert_eq!(cluster.world.writable("west", "shop"), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_going_back_and_cancelling() {
    let mut cluster = Cluster::start().await;
    for (half, method) in
        [("dest", "Abort"), ("source", "Unfence"), ("dest", "Discard"), ("source", "Cleanup"), ("dest", "Forget")]
    {
        let database = method.to_lowercase();
        let id = cluster.start_move(&database).await;
        cluster.ready(&id).await;
        cluster.world.lock().hold_markers = true;
        cluster.complete(&id).await;
        cluster.world.block(half, method);
        cluster.cancel(&id).await;
        cluster.until(&id, "waiting", |now| now.waiting_for.join("").contains(method)).await;
        cluster.crash().await;
        cluster.world.unblock(half, method);
        cluster.up().await;
        cluster.cancelled(&id).await;
        cluster.world.release_markers();
        cluster.assert_untouched(&database);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn again_and_again_at_random_moments() {
    let mut cluster = Cluster::start().await;
    let names: Vec<String> = (0..6).map(|n| format!("db{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let operations = cluster.try_start(cluster.request(proto::v1::Kind::Move, &names)).await.unwrap();
    for (n, operation) in operations.iter().enumerate() {
        cluster.ready(&operation.id).await;
        cluster.complete(&operation.id).await;
        // Later each time, through the whole of the flip.
        tokio::time::sleep(Duration::from_millis(3 * n as u64)).await;
        cluster.crash_and_restart().await;
        cluster.succeeded(&operation.id).await;
    }
    for name in names {
        cluster.assert_moved(name);
    }
}
