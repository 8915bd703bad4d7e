//! What goes well.

use std::time::Duration;

use proto::v1::{self, State};
use tokio_stream::StreamExt as _;

use crate::cluster::{Cluster, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_moves() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    let ready = cluster.ready(&id).await;
    assert_eq!(ready.status, "Ready for completion");
    let window = ready.complete_before.unwrap().seconds - ready.ready.unwrap().seconds;
    assert_eq!(window, 24 * 3600);
    let progress = ready.progress.unwrap();
    assert_eq!((progress.seed_bytes_done, progress.seed_bytes_total), (1000, 1000));
    assert!(progress.observed.is_some());
    cluster.complete(&id).await;
    let ended = cluster.succeeded(&id).await;
    assert_eq!((ended.attempt, ended.reason, ended.waiting_for.len()), (1, None, 0));
    assert_eq!(ended.max_freeze_ms, 30_000);
    assert!(ended.freeze_ms > 0 && ended.freeze_ms < 5000, "{}", ended.freeze_ms);
    assert!(ended.ended.is_some());
    assert_eq!(ended.on_online.unwrap().output, "backed up");
    assert_eq!(ended.progress.unwrap().seed_bytes_total, 1000, "the last figures are kept");
    assert_eq!(cluster.world.lock().hooks_run, 1);
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_copied() {
    let cluster = Cluster::start().await;
    let id = cluster.start_copy("shop").await;
    cluster.ready(&id).await;
    cluster.complete(&id).await;
    let ended = cluster.succeeded(&id).await;
    assert_eq!(ended.freeze_ms, 0);
    assert_eq!(cluster.world.writable("west", "shop"), Some(true));
    assert_eq!(cluster.world.writable("east", "shop"), Some(true));
    cluster.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_database_can_be_moved_again_after_a_cancel() {
    let cluster = Cluster::start().await;
    let first = cluster.start_move("shop").await;
    cluster.ready(&first).await;
    cluster.cancel(&first).await;
    cluster.cancelled(&first).await;
    // The instance's watermark is now above the version a new operation begins with, unless it raises it.
    let second = cluster.start_move("shop").await;
    cluster.ready(&second).await;
    cluster.complete(&second).await;
    cluster.succeeded(&second).await;
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_decides_on_readiness() {
    let cluster = Cluster::start().await;
    cluster.world.lock().lag_ms = 1001;
    let id = cluster.start_move("shop").await;
    let behind = cluster.until_state(&id, State::CatchingUp).await;
    assert!(behind.ready.is_none());
    cluster.world.lock().lag_ms = 1000;
    let ready = cluster.ready(&id).await;
    cluster.world.lock().lag_ms = 9_000;
    cluster.until(&id, "lagging", |now| now.progress.as_ref().unwrap().lag_ms == 9_000).await;
    assert_eq!(cluster.get(&id).await.state(), State::ReadyForCompletion, "a little lag does not matter any more");
    cluster.world.lock().lag_bytes = (256 << 20) + 1;
    cluster.until_state(&id, State::CatchingUp).await;
    cluster.world.lock().lag_ms = 0;
    cluster.world.lock().lag_bytes = 0;
    let again = cluster.ready(&id).await;
    assert_eq!(again.complete_before, ready.complete_before, "the window runs from the first time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_every_state_to_the_end_at_its_pace() {
    let cluster = Cluster::start().await;
    cluster.world.lock().hold_seed = true;
    let request = cluster.request(v1::Kind::Move, &["a", "b"]);
    let operations = cluster.try_start(request).await.unwrap();
    let batch = operations[0].batch.clone();
    let request = v1::WatchOperationsRequest { ids: Vec::new(), batch };
    let mut stream = cluster.client.clone().watch_operations(request).await.unwrap().into_inner();
    let mut seen: Vec<v1::Operation> = Vec::new();
    let begun = std::time::Instant::now();
    let mut step = 0;
    while let Some(answer) = tokio::time::timeout(PATIENCE, stream.next()).await.expect("it goes on") {
        seen.push(answer.unwrap().operation.unwrap());
        // Progress is told for ever, so that patience with the stream alone is no bound.
        if begun.elapsed() > PATIENCE {
            for op in &operations {
                let told = seen.iter().rfind(|seen| seen.id == op.id).map(|seen| (seen.state(), seen.version));
                let now = cluster.get(&op.id).await;
                println!("{}: told {told:?}, is {:?} {}, {:?}", op.database, now.state(), now.version, now.waiting_for);
            }
            panic!("no end in sight at step {step}");
        }
        let in_state = |state: State| {
            operations.iter().all(|op| seen.iter().any(|seen| seen.id == op.id && seen.state() == state))
        };
        if step == 0 && in_state(State::Seeding) {
            step = 1;
            cluster.world.release_seed();
        }
        if step == 1 && in_state(State::ReadyForCompletion) {
            step = 2;
            for operation in &operations {
                cluster.complete(&operation.id).await;
            }
        }
    }
    for operation in &operations {
        let last = seen.iter().rfind(|seen| seen.id == operation.id).unwrap();
        assert_eq!(last.state(), State::Succeeded, "the last thing seen is the end");
        let of_this: Vec<&v1::Operation> = seen.iter().filter(|seen| seen.id == operation.id).collect();
        let mut states: Vec<State> = of_this.iter().map(|seen| seen.state()).collect();
        states.dedup();
        let known = [State::Seeding, State::CatchingUp, State::ReadyForCompletion, State::Completing, State::Succeeded];
        states.retain(|state| *state >= State::Seeding && *state != State::CatchingUp);
        assert_eq!(states, known.into_iter().filter(|state| *state != State::CatchingUp).collect::<Vec<_>>());
        let mut versions: Vec<u64> = of_this.iter().map(|seen| seen.version).collect();
        assert!(versions.is_sorted());
        versions.dedup();
        let most = versions.len() as u128 + 4 * (begun.elapsed().as_millis() / 1000 + 1);
        assert!(of_this.len() as u128 <= most, "{} in {:?}", of_this.len(), begun.elapsed());
    }
    let ended = v1::WatchOperationsRequest { ids: vec![operations[0].id.clone()], batch: String::new() };
    let answers: Vec<_> = cluster.client.clone().watch_operations(ended).await.unwrap().into_inner().collect().await;
    assert_eq!(answers.len(), 1, "one that has ended is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_the_coordinator_stops() {
    let mut cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    let request = v1::WatchOperationsRequest { ids: vec![id], batch: String::new() };
    let mut stream = cluster.client.clone().watch_operations(request).await.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    let begun = std::time::Instant::now();
    cluster.stop().await;
    let last = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert_eq!(last.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for a watcher");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_down_is_named_and_waited_for() {
    let mut cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.source.down().await;
    let waiting = cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
    let text = waiting.waiting_for.join(" ");
    assert!(text.contains("source agent west at 127.0.0.1:"), "{text}");
    assert_eq!(waiting.state(), State::ReadyForCompletion);
    cluster.dest.down().await;
    cluster.until(&id, "waiting for both", |now| now.waiting_for.len() == 2).await;
    cluster.source.up().await;
    cluster.dest.up().await;
    cluster.until(&id, "going on", |now| now.waiting_for.is_empty()).await;
    cluster.complete(&id).await;
    cluster.succeeded(&id).await;
    cluster.assert_moved("shop");
}
