//! Prepare, Forget and the watermark; what is told about databases and operations.

use crate::{
    client::*,
    fake::{Fault, World},
};
use proto::v1::{
    AgentListDatabasesRequest, Decision, DescribeRequest, DestPreflightRequest, Kind, PrepareRequest, PurgeRequest,
};
use service::status::reason_of;
use tonic::Code;
use tonic_types::StatusExt as _;

const OTHER: &str = "0190a000-0000-7000-8000-000000000002";

#[tokio::test]
async fn prepare_is_idempotent_and_one_operation_has_a_name() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    agent.prepare(1).await.expect("again");
    agent.prepare(2).await.expect("newer");
    let same = || prepare(OP, 1);
    for other in [
        PrepareRequest { database: "crm".to_owned(), ..same() },
        PrepareRequest { kind: Kind::Copy.into(), ..same() },
        PrepareRequest { token: TOKEN.replace('0', "1"), ..same() },
        PrepareRequest { source_identity: "spiffe://x".to_owned(), ..same() },
        prepare(OTHER, 1),
    ] {
        is(&agent.client.prepare(other).await.expect_err("refused"), Code::FailedPrecondition, "OPERATION_EXISTS");
    }
    for bad in [
        PrepareRequest { operation: String::new(), ..same() },
        PrepareRequest { database: "../x".to_owned(), ..same() },
        PrepareRequest { token: "short".to_owned(), ..same() },
        PrepareRequest { kind: 0, ..same() },
    ] {
        assert_eq!(agent.client.prepare(bad).await.expect_err("refused").code(), Code::InvalidArgument);
    }
    let told = agent.client.describe(DescribeRequest {}).await.expect("describe").into_inner();
    assert_eq!((told.agent.as_str(), told.instance.as_str(), told.epoch), ("dest", "east", 1));
    assert_eq!(told.operations.len(), 1);
    assert_eq!(told.operations[0].phase, "seeding");
}

#[tokio::test]
async fn two_prepares_of_one_name_at_once_give_one_operation() {
    let world = World::default();
    let agent = Agent::start(&world).await;
    let attempts = [OP, OTHER].map(|operation| {
        let mut client = agent.client.clone();
        tokio::spawn(async move { client.prepare(prepare(operation, 1)).await })
    });
    let mut reasons = Vec::new();
    for attempt in attempts {
        reasons.push(attempt.await.expect("no panic").err().and_then(|status| reason_of(&status)));
    }
    reasons.sort();
    assert_eq!(reasons, [None, Some("OPERATION_EXISTS".to_owned())]);
}

#[tokio::test]
async fn what_is_forgotten_does_not_come_back() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    is(&agent.forget(2).await.expect_err("seeding"), Code::FailedPrecondition, "WRONG_PHASE");
    agent.discard(3).await.expect("discard");
    is(&agent.forget(2).await.expect_err("older"), Code::Aborted, "STALE_VERSION");
    agent.forget(7).await.expect("forget");
    assert!(world.role(OP).is_none());
    let late = agent.prepare(7).await.expect_err("late");
    is(&late, Code::Aborted, "STALE_VERSION");
    // An operation that was never heard of raises the watermark too.
    agent.forget(9).await.expect("unknown is done");
    let mut agent = agent.restart().await;
    is(&agent.prepare(9).await.expect_err("late"), Code::Aborted, "STALE_VERSION");
    agent.prepare(10).await.expect("newer");
}

#[tokio::test]
async fn a_prepare_that_comes_after_its_discard_is_refused() {
    let world = World::default();
    let mut agent = Agent::start(&world).await;
    assert_eq!(agent.discard(4).await.expect("answer"), Decision::Unknown);
    let late = agent.prepare(4).await.expect_err("late");
    is(&late, Code::Aborted, "STALE_VERSION");
    let known = late.get_details_error_info().and_then(|info| info.metadata.get("known").cloned());
    assert_eq!(known.as_deref(), Some("4"));
    is(&agent.restart().await.prepare(3).await.expect_err("late"), Code::Aborted, "STALE_VERSION");

    // A Prepare that is under way is waited for, and discarded.
    let world = World::default();
    let mut agent = Agent::start(&world).await;
    let gate = world.gate("prepare");
    let mut client = agent.client.clone();
    let preparing = tokio::spawn(async move { client.prepare(prepare(OP, 1)).await });
    while world.waiting("prepare") == 0 {
        tokio::task::yield_now().await;
    }
    let mut client = agent.client.clone();
    let discarding = tokio::spawn(async move {
        client.discard(proto::v1::DiscardRequest { operation: OP.to_owned(), version: 4 }).await
    });
    agent.client.describe(DescribeRequest {}).await.expect("describe");
    drop(gate);
    preparing.await.expect("no panic").expect("prepared");
    let decision = discarding.await.expect("no panic").expect("discarded").into_inner().decision();
    assert_eq!((decision, world.phase(OP)), (Decision::Aborted, "discarded"));
    agent.forget(5).await.expect("forgotten");
}

#[tokio::test]
async fn a_preparation_that_failed_half_way_is_found_again() {
    let world = World::default();
    let mut agent = Agent::start(&world).await;
    world.fail("prepare", Fault::DiskFull);
    is(&agent.prepare(1).await.expect_err("full"), Code::ResourceExhausted, "DISK_FULL");
    assert!(agent.client.get_status(status_request()).await.is_err());
    world.fail("prepare", Fault::AfterEffect);
    assert_eq!(agent.prepare(1).await.expect_err("lost").code(), Code::Unavailable);
    // It is there, so that a cancel finds what it has to remove.
    assert_eq!(agent.status().await.phase, "seeding");
    agent.prepare(1).await.expect("again");
    assert_eq!(world.calls("prepare"), 3);
}

#[tokio::test]
async fn a_taken_name_is_told_and_leaves_nothing() {
    let world = World::default();
    world.lock().online.push("shop".to_owned());
    let mut agent = Agent::start(&world).await;
    is(&agent.prepare(1).await.expect_err("taken"), Code::FailedPrecondition, "NAME_TAKEN");
    assert!(agent.client.get_status(status_request()).await.is_err());
    let request = AgentListDatabasesRequest {};
    let databases = agent.client.list_databases(request).await.expect("list").into_inner().databases;
    assert_eq!(databases.len(), 1);
    let purge = PurgeRequest { database: "shop".to_owned() };
    is(&agent.client.purge(purge).await.expect_err("none"), Code::NotFound, "DATABASE_NOT_FOUND");
}

#[tokio::test]
async fn preflight_finds_another_engine_and_another_operation() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    let request = |engine: &str, operation: &str, requirements: &'static [u8]| DestPreflightRequest {
        database: "shop".to_owned(),
        engine: engine.to_owned(),
        requirements: requirements.into(),
        operation: operation.to_owned(),
    };
    let mut found = async |request| {
        let findings = agent.client.preflight(request).await?.into_inner().findings;
        Ok::<_, tonic::Status>(findings.into_iter().map(|finding| finding.code).collect::<Vec<_>>())
    };
    assert_eq!(found(request("postgres", "", b"")).await.expect("answer"), ["ENGINE_DIFFERS"]);
    assert_eq!(found(request("memory", "", b"")).await.expect("answer"), ["OPERATION_EXISTS"]);
    assert!(found(request("memory", OP, b"")).await.expect("answer").is_empty());
    assert_eq!(found(request("memory", OP, b"rot")).await.expect_err("rot").code(), Code::DataLoss);
}

fn status_request() -> proto::v1::DestStatusRequest {
    proto::v1::DestStatusRequest { operation: OP.to_owned() }
}
