//! Every refusal of a Hello, and what its answer tells.

use crate::{client::*, fake::World};
use proto::v1::{Hello, source_frame::Frame};
use tonic::Code;

#[tokio::test]
async fn every_wrong_hello_is_refused_with_its_reason() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    let mut source = agent.source(hello()).await;
    let welcome = source.welcome().await;
    assert_eq!((welcome.phase.as_str(), welcome.generation, welcome.seeded), ("seeding", 0, false));

    let ok = hello_message;
    let wrong = [
        (Hello { protocol: 2, ..ok() }, Code::FailedPrecondition, "WRONG_PROTOCOL"),
        (Hello { operation: "none".to_owned(), ..ok() }, Code::NotFound, "OPERATION_UNKNOWN"),
        (Hello { operation: "a b".to_owned(), ..ok() }, Code::InvalidArgument, "BAD_FIELD"),
        (Hello { token: String::new(), ..ok() }, Code::Unauthenticated, "BAD_TOKEN"),
        (Hello { token: TOKEN.replace('0', "1"), ..ok() }, Code::Unauthenticated, "BAD_TOKEN"),
        (Hello { engine: "postgres".to_owned(), ..ok() }, Code::FailedPrecondition, "WRONG_ENGINE"),
        (Hello { database: "crm".to_owned(), ..ok() }, Code::FailedPrecondition, "SOURCE_CHANGED"),
        (Hello { incarnation: "inode 8".to_owned(), ..ok() }, Code::FailedPrecondition, "SOURCE_CHANGED"),
        (Hello { incarnation: String::new(), ..ok() }, Code::InvalidArgument, "BAD_FIELD"),
        (Hello { epoch: 0, ..ok() }, Code::Aborted, "STALE_EPOCH"),
        (Hello { lane: 65, ..ok() }, Code::InvalidArgument, "BAD_FRAME"),
        (Hello { lane: 1, generation: 1, ..ok() }, Code::FailedPrecondition, "WRONG_GENERATION"),
    ];
    for (hello, code, reason) in wrong {
        is(&agent.refusal(Frame::Hello(hello)).await, code, reason);
    }
    is(&agent.refusal(plan(1, 0)).await, Code::InvalidArgument, "BAD_FRAME");
    let mut silent = agent.source(hello()).await;
    silent.close();
    silent.welcome().await;
    silent.orderly_end().await;

    // Wrong in several ways: the first check speaks.
    let all = Hello { token: "x".to_owned(), engine: "x".to_owned(), database: "x".to_owned(), epoch: 0, ..ok() };
    is(&agent.refusal(Frame::Hello(all)).await, Code::Unauthenticated, "BAD_TOKEN");
    assert_eq!(agent.status().await.phase, "seeding");
}

#[tokio::test]
async fn a_changed_source_is_fatal_trouble_until_the_right_one_speaks() {
    let world = World::default();
    let (mut agent, _source) = Agent::replica(&world).await;
    let changed = Hello { incarnation: "inode 8".to_owned(), ..hello_message() };
    is(&agent.refusal(Frame::Hello(changed.clone())).await, Code::FailedPrecondition, "SOURCE_CHANGED");
    let status = agent.status().await;
    assert!(status.fatal);
    assert_eq!(status.trouble.expect("trouble").code, "SOURCE_CHANGED");

    agent.source(hello()).await.welcome().await;
    assert!(agent.status().await.trouble.is_none());
    // What an agent believes that was replaced long ago is nobody's trouble.
    is(&agent.refusal(Frame::Hello(Hello { epoch: 0, ..changed })).await, Code::FailedPrecondition, "SOURCE_CHANGED");
    assert!(agent.status().await.trouble.is_none());
}

#[tokio::test]
async fn a_newer_source_agent_is_recorded_before_its_welcome_and_ends_the_lanes_of_the_older() {
    let world = World::default();
    let (agent, mut older) = Agent::replica(&world).await;
    let mut newer = agent.source(Frame::Hello(Hello { epoch: 2, ..hello_message() })).await;
    newer.welcome().await;
    assert_eq!(world.role(OP).expect("role").source_epoch.0, 2);
    is(&older.refusal().await, Code::Aborted, "STALE_EPOCH");
    is(&agent.refusal(hello()).await, Code::Aborted, "STALE_EPOCH");
    let agent = agent.restart().await;
    is(&agent.refusal(hello()).await, Code::Aborted, "STALE_EPOCH");
}

#[tokio::test]
async fn a_hello_that_cannot_be_recorded_is_not_welcome() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    world.fail("put_role", crate::fake::Fault::DiskFull);
    is(&agent.refusal(hello()).await, Code::ResourceExhausted, "DISK_FULL");
    let status = agent.status().await;
    assert_eq!(status.trouble.expect("trouble").code, "DISK_FULL");
    assert!(!status.fatal);
    assert!(world.role(OP).expect("role").incarnation.is_none());
    agent.source(hello()).await.welcome().await;
}

#[tokio::test]
async fn a_welcome_tells_what_is_held() {
    let world = World::default();
    let (agent, mut source) = Agent::replica(&world).await;
    source.durable("10").await;
    drop(source);
    let mut source = agent.source(hello()).await;
    let welcome = source.welcome().await;
    assert_eq!((welcome.generation, welcome.seeded, welcome.log_position.as_str()), (1, true, "10"));
    assert_eq!(welcome.phase, "replica");
    // A quiet source learns what it need not keep, too.
    source.plan(1, 0).await;
    source.durable("10").await;
}
