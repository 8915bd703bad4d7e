//! The seed: acknowledged once durable, resumed where it stands, begun anew with a new generation.

use crate::{
    client::*,
    fake::{Fault, World},
};
use proto::v1::{SeedEnd, dest_frame::Frame as Answer, source_frame::Frame};
use tonic::Code;

async fn acked(lane: &mut Source, part: u32) -> u64 {
    lane.until(|answer| match answer {
        Answer::SeedAck(ack) if ack.part == part && ack.done => Some(ack.durable),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn parts_are_acknowledged_when_durable_and_seeded_ends_the_seed() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 2).await;
    let mut lanes = [agent.source(seed_hello(1, 1)).await, agent.source(seed_hello(2, 1)).await];
    for (part, lane) in (0..).zip(&mut lanes) {
        lane.welcome().await;
        lane.send(chunk(part, 0, 50, false)).await;
        lane.send(chunk(part, 50, 100, true)).await;
        assert_eq!(acked(lane, part).await, 100);
        // Sent again by a source that did not hear the answer: acknowledged again.
        lane.send(chunk(part, 50, 100, true)).await;
        acked(lane, part).await;
    }
    let progress = agent.status().await.progress.expect("progress");
    assert_eq!((progress.seed_bytes_done, progress.seed_bytes_total), (200, 200));
    assert_eq!((progress.seed_objects_done, progress.seed_objects_total), (2, 2));

    control.send(Frame::SeedEnd(SeedEnd { generation: 1 })).await;
    control.until(|answer| matches!(answer, Answer::Seeded(_)).then_some(())).await;
    assert_eq!(world.phase(OP), "replica");
    // Repeated: answered again, loaded once.
    control.send(Frame::SeedEnd(SeedEnd { generation: 1 })).await;
    control.until(|answer| matches!(answer, Answer::Seeded(_)).then_some(())).await;
    assert_eq!(world.calls("seed_done"), 1);
    lanes[0].send(chunk(0, 0, 50, false)).await;
    is(&lanes[0].refusal().await, Code::FailedPrecondition, "NOT_REPLICATING");
}

#[tokio::test]
async fn a_seed_with_a_missing_part_is_not_loaded() {
    let world = World::default();
    let agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 1).await;
    control.send(Frame::SeedEnd(SeedEnd { generation: 1 })).await;
    is(&control.refusal().await, Code::OutOfRange, "LOG_GAP");
    assert_eq!(world.phase(OP), "seeding");
}

#[tokio::test]
async fn a_source_that_closes_its_half_hears_the_last_acknowledgement() {
    let world = World::default();
    let agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 1).await;
    let mut lane = agent.source(seed_hello(1, 1)).await;
    lane.send(chunk(0, 0, 100, true)).await;
    lane.close();
    acked(&mut lane, 0).await;
    lane.orderly_end().await;
}

#[tokio::test]
async fn a_new_generation_records_seeding_first_and_ends_the_lanes_of_the_old_one() {
    let world = World::default();
    let (mut agent, mut control) = Agent::replica(&world).await;
    let old = agent.source(seed_hello(1, 1)).await;
    let mut old = old;
    old.welcome().await;
    control.plan(2, 1).await;
    assert_eq!(world.phase(OP), "seeding");
    {
        let state = world.lock();
        let last = |name: &str| state.calls.iter().rposition(|call| call == name).expect("called");
        assert!(last("put_role") < last("plan"), "{:?}", state.calls);
    }
    is(&old.refusal().await, Code::Aborted, "SUPERSEDED_LANE");
    is(&agent.refusal(seed_hello(1, 1)).await, Code::FailedPrecondition, "WRONG_GENERATION");
    agent.source(seed_hello(1, 2)).await.welcome().await;
    // The older plan comes late.
    let mut late = agent.source(hello()).await;
    late.send(plan(1, 0)).await;
    is(&late.refusal().await, Code::FailedPrecondition, "WRONG_GENERATION");
    assert_eq!(agent.status().await.progress.expect("progress").generation, 2);
    // No marker while it is being verified.
    let mut source = agent.source(hello()).await;
    source.plan(2, 1).await;
    source.send(marker(1, 0)).await;
    is(&source.refusal().await, Code::FailedPrecondition, "NOT_REPLICATING");
}

#[tokio::test]
async fn a_seed_whose_loading_was_not_recorded_is_a_replica_at_the_next_hello() {
    let world = World::default();
    let agent = Agent::prepared_operation(&world).await;
    let mut control = agent.source(hello()).await;
    control.plan(1, 0).await;
    world.fail("put_role", Fault::DiskFull);
    control.send(Frame::SeedEnd(SeedEnd { generation: 1 })).await;
    is(&control.refusal().await, Code::ResourceExhausted, "DISK_FULL");
    assert_eq!(world.phase(OP), "seeding");
    let agent = agent.restart().await;
    let welcome = agent.source(hello()).await.welcome().await;
    assert_eq!((welcome.phase.as_str(), welcome.seeded), ("replica", true));
    assert_eq!(world.phase(OP), "replica");
}
