//! Requests with a field that is not what it should be name it, and change nothing.

use crate::rig::{client, memory, start};
use engines::memory::MemoryInstance;
use handover::DatabaseName;
use proto::v1::{self, source_agent_client::SourceAgentClient};
use service::{Env, status::reason_of};
use tonic::{Code, Response, Status, transport::Channel};
use tonic_types::StatusExt as _;

const OP: &str = "0190a000-0000-7000-8000-000000000001";

fn begin() -> v1::BeginRequest {
    v1::BeginRequest {
        operation: OP.to_owned(),
        version: 1,
        kind: v1::Kind::Move.into(),
        database: "shop".to_owned(),
        token: "0123456789abcdef0123456789abcdef".to_owned(),
        dest_address: "127.0.0.1:1".to_owned(),
        ..Default::default()
    }
}

#[track_caller]
fn assert_names(field: &str, refused: Result<Response<impl std::fmt::Debug>, Status>) {
    let refused = refused.expect_err(field);
    assert_eq!((refused.code(), reason_of(&refused).as_deref()), (Code::InvalidArgument, Some("BAD_FIELD")), "{field}");
    let details = refused.get_details_bad_request().expect("the field is named");
    let named: Vec<&str> = details.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(named, [field], "{refused:?}");
    assert!(!details.field_violations[0].description.is_empty());
}

async fn known(client: &mut SourceAgentClient<Channel>) -> usize {
    client.describe(v1::DescribeRequest {}).await.expect("the agent lives").into_inner().operations.len()
}

#[tokio::test]
async fn a_begin_names_the_field_that_is_wrong() {
    type Spoil = fn(&mut v1::BeginRequest);
    let wrong: [(&str, Spoil); 9] = [
        ("operation", |r| r.operation.clear()),
        ("operation", |r| r.operation = "../../etc".to_owned()),
        ("kind", |r| r.kind = 0),
        ("kind", |r| r.kind = 77),
        ("database", |r| r.database = "a/b".to_owned()),
        ("database", |r| r.database = "x".repeat(256)),
        ("token", |r| r.token = "short".to_owned()),
        ("dest_address", |r| r.dest_address.clear()),
        ("dest_address", |r| r.dest_address = "nowhere".to_owned()),
    ];
    let env = Env::real();
    let agent = start(&env, memory(&MemoryInstance::new()), None).await;
    let mut client = client(&env, &agent).await;
    for (field, spoil) in wrong {
        let mut request = begin();
        spoil(&mut request);
        assert_names(field, client.begin(request).await);
    }
    assert_eq!(known(&mut client).await, 0);
}

#[tokio::test]
async fn every_other_call_names_the_field_that_is_wrong() {
    let env = Env::real();
    let instance = MemoryInstance::new();
    instance.create(&DatabaseName::parse("shop").expect("a name"));
    let agent = start(&env, memory(&instance), None).await;
    let mut client = client(&env, &agent).await;
    let preflight =
        v1::SourcePreflightRequest { database: "shop".to_owned(), kind: v1::Kind::Copy.into(), ..Default::default() };
    let wrong = v1::SourcePreflightRequest { database: "a\u{7}b".to_owned(), ..preflight.clone() };
    assert_names("database", client.preflight(wrong).await);
    let wrong = v1::SourcePreflightRequest { kind: -1, ..preflight.clone() };
    assert_names("kind", client.preflight(wrong).await);
    let wrong = v1::SourcePreflightRequest { operation: "a b".to_owned(), ..preflight };
    assert_names("operation", client.preflight(wrong).await);

    client.begin(begin()).await.expect("it begins");
    let (operation, version) = (OP.to_owned(), 2);
    for attempt in [0, u32::MAX] {
        let fence = v1::FenceRequest { operation: operation.clone(), version, attempt, grace_ms: 0 };
        assert_names("attempt", client.fence(fence).await);
        let mark = v1::MarkRequest { operation: operation.clone(), version, attempt };
        assert_names("attempt", client.mark(mark).await);
        let unfence = v1::UnfenceRequest { operation: operation.clone(), version, attempt };
        assert_names("attempt", client.unfence(unfence).await);
        let release =
            v1::ReleaseRequest { operation: operation.clone(), version, attempt, moved_to: "east".to_owned() };
        assert_names("attempt", client.release(release).await);
    }
    let operation = || "a b".to_owned();
    assert_names("operation", client.get_status(v1::SourceStatusRequest { operation: operation() }).await);
    let fence = v1::FenceRequest { operation: operation(), version, attempt: 1, grace_ms: 0 };
    assert_names("operation", client.fence(fence).await);
    assert_names("operation", client.cleanup(v1::CleanupRequest { operation: operation(), version }).await);
    let force = v1::ForceUnfenceCommand { operation: operation(), version };
    assert_names("operation", client.force_unfence(force).await);
    assert_eq!(known(&mut client).await, 1);
}
