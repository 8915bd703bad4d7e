//! For each command: it fails, its reply is lost, it comes twice, it is never answered.

use proto::v1::State;

use crate::{
    cluster::Cluster,
    fakes::{DEST, Fault, SOURCE},
};

const FAULTS: [Fault; 4] = [Fault::Fails, Fault::LosesReply, Fault::ComesTwice, Fault::Stalls];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_a_move_may_go_wrong() {
    let commands = [
        (DEST, "Prepare"),
        (SOURCE, "Begin"),
        (SOURCE, "GetStatus"),
        (DEST, "GetStatus"),
        (SOURCE, "Fence"),
        (DEST, "Promote"),
        (SOURCE, "Release"),
        (DEST, "Finish"),
        (SOURCE, "Cleanup"),
        (DEST, "Forget"),
    ];
    let cluster = Cluster::start().await;
    for (half, method) in commands {
        for fault in FAULTS {
            let database = format!("{half}-{method}-{fault:?}").to_lowercase();
            cluster.world.fault(half, method, fault);
            let id = cluster.start_move(&database).await;
            cluster.ready(&id).await;
            cluster.complete(&id).await;
            let ended = cluster.succeeded(&id).await;
            assert_eq!(ended.attempt, 1, "{database}");
            assert_eq!(cluster.world.unused_faults(), 0, "{database}");
            cluster.assert_moved(&database);
        }
    }
    assert_eq!(cluster.world.lock().hooks_run as usize, commands.len() * FAULTS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_way_back_may_go_wrong() {
    let commands = [(DEST, "Abort"), (SOURCE, "Unfence"), (DEST, "Discard"), (SOURCE, "Cleanup"), (DEST, "Forget")];
    let cluster = Cluster::start().await;
    for (half, method) in commands {
        for fault in FAULTS {
            let database = format!("{half}-{method}-{fault:?}").to_lowercase();
            let id = cluster.start_move(&database).await;
            cluster.ready(&id).await;
            cluster.world.lock().hold_markers = true;
            cluster.complete(&id).await;
            cluster.until(&id, "completing", |now| now.state() == State::Completing).await;
            cluster.world.fault(half, method, fault);
            cluster.cancel(&id).await;
            cluster.cancelled(&id).await;
            assert_eq!(cluster.world.unused_faults(), 0, "{database}");
            cluster.world.release_markers();
            cluster.assert_untouched(&database);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copys_mark_may_go_wrong() {
    let cluster = Cluster::start().await;
    for fault in FAULTS {
        let database = format!("{fault:?}").to_lowercase();
        cluster.world.fault(SOURCE, "Mark", fault);
        let id = cluster.start_copy(&database).await;
        cluster.ready(&id).await;
        cluster.complete(&id).await;
        cluster.succeeded(&id).await;
        cluster.assert_clean();
    }
}

/// Found by the simulation: a source agent that is restarted forgets the mark of a copy, and nobody told it again for ten
/// minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_copys_mark_that_is_forgotten_is_taken_again() {
    let cluster = Cluster::start().await;
    let id = cluster.start_copy("shop").await;
    cluster.ready(&id).await;
    cluster.world.lock().hold_markers = true;
    cluster.complete(&id).await;
    cluster.until_called("source.Mark").await;
    cluster.world.lose_markers();
    let ended = cluster.succeeded(&id).await;
    assert_eq!((ended.attempt, cluster.world.calls_of("source.Mark")), (1, 2));
    cluster.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_ending_is_shown_and_repeated() {
    let cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    for _ in 0..3 {
        cluster.world.fault(SOURCE, "Release", Fault::Refuses("BUSY"));
    }
    cluster.complete(&id).await;
    let waiting = cluster.until(&id, "waiting", |now| !now.waiting_for.is_empty()).await;
    assert!(waiting.waiting_for[0].contains("drop pending"), "{:?}", waiting.waiting_for);
    cluster.succeeded(&id).await;
    cluster.assert_moved("shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_obeyed_an_earlier_store_is_caught_up_with() {
    for tells_known in [true, false] {
        let cluster = Cluster::start().await;
        {
            let mut state = cluster.world.lock();
            state.tells_known = tells_known;
            state.watermarks.insert((SOURCE, "west".to_owned()), 5_000_000_000);
            state.watermarks.insert((DEST, "east".to_owned()), 7_000_000);
        }
        let id = cluster.start_move("shop").await;
        let ready = cluster.ready(&id).await;
        assert!(ready.version > 5_000_000_000);
        cluster.complete(&id).await;
        cluster.succeeded(&id).await;
        let tries = cluster.world.calls_of("source.Begin");
        assert!(tries <= if tells_known { 2 } else { 12 }, "{tries}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_operations_at_once_leave_nothing_behind() {
    let cluster = Cluster::start().await;
    let names: Vec<String> = (0..30).map(|n| format!("db{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let operations = cluster.try_start(cluster.request(proto::v1::Kind::Move, &names)).await.unwrap();
    for (n, operation) in operations.iter().enumerate() {
        cluster.ready(&operation.id).await;
        if n % 3 == 0 {
            cluster.cancel(&operation.id).await;
            cluster.cancelled(&operation.id).await;
        } else {
            cluster.complete(&operation.id).await;
            cluster.succeeded(&operation.id).await;
        }
    }
    cluster.assert_clean();
    assert_eq!(cluster.world.lock().hooks_run, 20);
}
