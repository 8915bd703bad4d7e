//! A newer stream of a lane ends the older one, and waits until that has let go.

use crate::{client::*, fake::World};
use proto::v1::{ProbeRequest, dest_frame::Frame as Answer};
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn a_newer_stream_waits_until_the_older_has_let_go_of_the_replica() {
    let world = World::default();
    let (agent, mut older) = Agent::replica(&world).await;
    let gate = world.gate("log");
    older.send(log(10, 11)).await;
    let mut newer = agent.source(hello()).await;
    let early = tokio::time::timeout(Duration::from_millis(200), newer.welcome()).await;
    assert!(early.is_err(), "welcomed while the older stream is within the engine");
    drop(gate);
    // What the older one had begun is there.
    assert_eq!(newer.welcome().await.log_position, "11");
    is(&older.refusal().await, Code::Aborted, "SUPERSEDED_LANE");
}

#[tokio::test]
async fn a_chunk_that_waits_for_other_parts_keeps_no_newer_stream_waiting() {
    let world = World::default();
    let agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 2).await;
    // The part that it needs was never sent: the source died before.
    let _never_opened = world.gate("until_takes");
    let mut older = agent.source(seed_hello(1, 1)).await;
    older.welcome().await;
    older.send(chunk(1, 0, 50, false)).await;
    while world.waiting("until_takes") == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    agent.source(seed_hello(1, 1)).await.welcome().await;
    is(&older.refusal().await, Code::Aborted, "SUPERSEDED_LANE");
}

#[tokio::test]
async fn other_lanes_are_not_touched_by_a_newer_stream() {
    let world = World::default();
    let agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 2).await;
    let mut first = agent.source(seed_hello(1, 1)).await;
    first.welcome().await;
    let mut second = agent.source(seed_hello(2, 1)).await;
    second.welcome().await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 2).await;
    let mut again = agent.source(seed_hello(2, 1)).await;
    again.welcome().await;
    is(&second.refusal().await, Code::Aborted, "SUPERSEDED_LANE");
    first.send(chunk(0, 0, 100, true)).await;
    first.close();
    first.until(|answer| matches!(answer, Answer::SeedAck(ack) if ack.done).then_some(())).await;
    control.send(log(0, 5)).await;
    control.received("5").await;
}

#[tokio::test]
async fn a_source_that_goes_away_leaves_the_operation_as_it_is() {
    let world = World::default();
    let (mut agent, source) = Agent::replica(&world).await;
    drop(source);
    let mut next = agent.source(hello()).await;
    assert_eq!(next.welcome().await.phase, "replica");
    assert!(agent.status().await.trouble.is_none());
}

#[tokio::test]
async fn a_shutdown_ends_lanes_and_waiting_promotes_at_once() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    let mut client = agent.client.clone();
    let waiting = tokio::spawn(async move {
        let request = proto::v1::PromoteRequest { operation: OP.to_owned(), version: 5, attempt: 1, wait_ms: 60_000 };
        client.promote(request).await
    });
    // Answered after the other one began to wait, for both are on one connection.
    agent.status().await;
    agent.shutdown.trigger();
    is(&source.refusal().await, Code::Unavailable, "SHUTTING_DOWN");
    drop(source);
    let status = waiting.await.expect("no panic").expect_err("not prepared");
    assert_eq!(status.code(), Code::Unavailable);
    tokio::time::timeout(Duration::from_secs(5), agent.task)
        .await
        .expect("ends soon")
        .expect("no panic")
        .expect("ends well");
    assert_eq!(world.calls("close"), 1);
}

#[tokio::test]
async fn an_agent_that_was_taken_over_ends_without_another_answer() {
    let world = World::default();
    let (agent, source) = Agent::replica(&world).await;
    let mut newer = Agent::start(&world).await;
    let calls = world.calls("put_role");
    source.send(marker(1, 10)).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), agent.task).await.expect("ends soon").expect("no panic");
    assert!(matches!(ended, Err(causeway_agent_dest::Error::Superseded(_))), "{ended:?}");
    assert_eq!((world.phase(OP), world.calls("put_role")), ("replica", calls));
    assert_eq!(newer.status().await.phase, "replica");
}

#[tokio::test]
async fn a_probe_tells_who_listens() {
    let agent = Agent::start(&World::default()).await;
    let told = agent.transfer().probe(ProbeRequest {}).await.expect("probe").into_inner();
    assert_eq!((told.instance.as_str(), told.engine.as_str(), told.protocol), ("east", "memory", proto::PROTOCOL));
}
