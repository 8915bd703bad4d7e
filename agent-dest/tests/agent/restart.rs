//! An agent that ends without a word, in every phase.

use crate::{client::*, fake::World};
use proto::v1::Decision;
use tonic::Code;

#[tokio::test]
async fn seeding_goes_on_where_it_was_durable() {
    let world = World::default();
    let agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 2).await;
    let mut lane = agent.source(seed_hello(1, 1)).await;
    lane.send(chunk(0, 0, 40, false)).await;
    lane.until(|answer| {
        matches!(answer, proto::v1::dest_frame::Frame::SeedAck(ack) if ack.durable == 40).then_some(())
    })
    .await;
    let agent = agent.restart().await;
    let welcome = agent.source(hello()).await.welcome().await;
    assert_eq!((welcome.phase.as_str(), welcome.generation, welcome.parts[0].durable), ("seeding", 1, 40));
}

#[tokio::test]
async fn a_replica_goes_on_where_it_was_durable() {
    let world = World::default();
    let (agent, mut source) = Agent::replica(&world).await;
    source.durable("10").await;
    let gate = world.gate("sync");
    source.send(log(10, 11)).await;
    source.received("11").await;
    let agent = agent.restart().await;
    drop(gate);
    let mut source = agent.source(hello()).await;
    assert_eq!(source.welcome().await.log_position, "10");
    source.plan(1, 0).await;
    source.send(log(10, 12)).await;
    source.durable("12").await;
}

#[tokio::test]
async fn prepared_stays_prepared_and_can_be_promoted_or_aborted() {
    for promote in [true, false] {
        let world = World::default();
        let (agent, mut source) = Agent::replica(&world).await;
        source.marker(1, 10).await;
        let mut agent = agent.restart().await;
        assert_eq!(agent.status().await.phase, "prepared");
        if promote {
            agent.promote(1, 0).await.expect("promoted");
        } else {
            assert_eq!(agent.abort(1, false).await, Decision::Aborted);
            let mut agent = agent.restart().await;
            is(&agent.promote(1, 0).await.expect_err("closed"), Code::Aborted, "STALE_ATTEMPT");
        }
    }
}

#[tokio::test]
async fn a_primary_that_was_not_opened_is_opened_at_the_start() {
    let world = World::default();
    let (mut agent, mut source) = Agent::replica(&world).await;
    source.marker(1, 10).await;
    agent.promote(1, 0).await.expect("promoted");
    // As if the process had ended between the record and the opening.
    world.lock().online.clear();
    let mut agent = agent.restart().await;
    assert_eq!(world.lock().online, ["shop"]);
    assert_eq!(agent.promote(1, 0).await.expect("again"), 0, "when it opened is not known any more");
    assert_eq!(agent.discard(9).await.expect("answer"), Decision::Promoted);
}

#[tokio::test]
async fn a_discard_is_completed_at_the_start() {
    let world = World::default();
    let (mut agent, _source) = Agent::replica(&world).await;
    world.fail("discard", crate::fake::Fault::AfterEffect);
    agent.discard(5).await.expect_err("lost");
    assert_eq!(world.phase(OP), "discarding");
    let mut agent = agent.restart().await;
    assert_eq!((world.phase(OP), agent.status().await.phase.as_str()), ("discarded", "discarded"));
    let agent = agent.restart().await;
    assert_eq!(world.calls("discard"), 2);
    assert_eq!(agent.source(hello()).await.welcome().await.phase, "discarded");
}

#[tokio::test]
async fn one_operation_that_cannot_be_opened_does_not_keep_the_agent_from_serving() {
    let world = World::default();
    let (agent, mut source) = Agent::replica(&world).await;
    source.durable("10").await;
    world.fail("open", crate::fake::Fault::DiskFull);
    let mut agent = agent.restart().await;
    assert_eq!(agent.status().await.trouble.expect("trouble").code, "DISK_FULL");
    let mut source = agent.source(hello()).await;
    source.plan(1, 0).await;
    source.send(log(10, 11)).await;
    source.durable("11").await;
    assert!(agent.status().await.trouble.is_none());
}
