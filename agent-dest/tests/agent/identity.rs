//! Who may do what, with real certificates.

use crate::{client::*, fake::World};
use proto::v1::{
    AbortRequest, AgentListDatabasesRequest, Decision, DescribeRequest, DestPreflightRequest, DestStatusRequest,
    PrepareRequest, ProbeRequest, PurgeRequest, dest_agent_client::DestAgentClient, transfer_client::TransferClient,
};
use service::{Env, Tls, TlsFiles, certs, dial::Dialer};
use std::path::Path;
use tokio_stream::iter;
use tonic::{Code, Status, transport::Channel};

const SOURCE: &str = "spiffe://causeway/agent-source/west";

async fn tls(dir: &Path, stem: &str) -> Tls {
    Tls::load(&Env::real(), TlsFiles::in_dir(dir, stem)).await.expect("certificates")
}

async fn channel(dir: &Path, stem: &str, address: &str) -> Channel {
    Dialer::new(Env::real(), Some(tls(dir, stem).await)).connect(address).await.expect("connect")
}

async fn replicate(channel: Channel, token: &str) -> Result<(), Status> {
    let hello = proto::v1::Hello { token: token.to_owned(), ..hello_message() };
    let frame = proto::v1::SourceFrame { frame: Some(proto::v1::source_frame::Frame::Hello(hello)) };
    let mut answers = TransferClient::new(channel).replicate(iter([frame])).await?.into_inner();
    answers.message().await.map(|_| ())
}

#[tokio::test]
async fn commands_need_the_coordinator_and_lanes_the_named_source_agent() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let now = Env::real().now();
    let spec = |stem: &str, uri: &str| certs::Spec::new(stem, uri, now).host("localhost").host("127.0.0.1");
    let specs = [
        spec("dest", "spiffe://causeway/agent-dest/east"),
        spec("coordinator", "spiffe://causeway/coordinator"),
        spec("source", SOURCE),
        spec("mallory", "spiffe://causeway/agent-source/mallory"),
    ];
    certs::issue_dev(dir, &specs, now).expect("certificates");

    let world = World::default();
    let (server, coordinator) = (tls(dir, "dest").await, tls(dir, "coordinator").await);
    let mut agent = Agent::start_with(&world, settings(), Some(server), Some(coordinator)).await;
    agent
        .client
        .prepare(PrepareRequest { source_identity: SOURCE.to_owned(), ..prepare(OP, 1) })
        .await
        .expect("prepare");
    let source = channel(dir, "source", &agent.address).await;
    let mallory = channel(dir, "mallory", &agent.address).await;

    // To look is free to everybody with a certificate.
    let mut stranger = DestAgentClient::new(mallory.clone());
    stranger.describe(DescribeRequest {}).await.expect("describe");
    stranger.list_databases(AgentListDatabasesRequest {}).await.expect("list");
    stranger.get_status(DestStatusRequest { operation: OP.to_owned() }).await.expect("status");
    TransferClient::new(mallory.clone()).probe(ProbeRequest {}).await.expect("probe");

    // To change something is not.
    let mut not_coordinator = Vec::new();
    for channel in [&mallory, &source] {
        let mut client = DestAgentClient::new(channel.clone());
        let id = || OP.to_owned();
        let preflight =
            DestPreflightRequest { engine: "fake".to_owned(), database: "shop".to_owned(), ..Default::default() };
        not_coordinator.push(client.preflight(preflight).await.err());
        not_coordinator.push(client.prepare(prepare(OP, 9)).await.err());
        not_coordinator.push(client.purge(PurgeRequest { database: "shop".to_owned() }).await.err());
        let promote = proto::v1::PromoteRequest { operation: id(), version: 9, attempt: 1, wait_ms: 0 };
        not_coordinator.push(client.promote(promote).await.err());
        not_coordinator.push(client.discard(proto::v1::DiscardRequest { operation: id(), version: 9 }).await.err());
        not_coordinator.push(client.finish(proto::v1::FinishRequest { operation: id(), version: 9 }).await.err());
        not_coordinator.push(client.forget(proto::v1::ForgetRequest { operation: id(), version: 9 }).await.err());
        let force = proto::v1::ForcePromoteCommand { operation: id(), version: 9, attempt: 1 };
        not_coordinator.push(client.force_promote(force).await.err());
        let abort = AbortRequest { operation: id(), version: 9, attempt: 1, ..AbortRequest::default() };
        not_coordinator.push(client.abort(abort).await.err());
    }
    for refused in not_coordinator {
        is(&refused.expect("refused"), Code::PermissionDenied, "NOT_COORDINATOR");
    }

    is(
        &replicate(mallory.clone(), TOKEN).await.expect_err("not named"),
        Code::PermissionDenied,
        "IDENTITY_NOT_ALLOWED",
    );
    is(&replicate(source.clone(), "guess").await.expect_err("no token"), Code::Unauthenticated, "BAD_TOKEN");
    replicate(source.clone(), TOKEN).await.expect("welcome");

    let abort = |token: &str| AbortRequest {
        operation: OP.to_owned(),
        attempt: 1,
        token: token.to_owned(),
        ..AbortRequest::default()
    };
    is(&stranger.abort(abort(TOKEN)).await.expect_err("not named"), Code::PermissionDenied, "IDENTITY_NOT_ALLOWED");
    let mut source = DestAgentClient::new(source);
    is(&source.abort(abort("guess")).await.expect_err("no token"), Code::Unauthenticated, "BAD_TOKEN");
    assert_eq!(world.role(OP).expect("role").floor.0, 0);
    assert_eq!(source.abort(abort(TOKEN)).await.expect("abort").into_inner().decision(), Decision::Aborted);
    assert_eq!(world.role(OP).expect("role").floor.0, 1);
    assert_eq!(agent.abort(2, false).await, Decision::Aborted);
}

#[tokio::test]
async fn without_tls_a_token_given_is_still_checked() {
    let world = World::default();
    let mut agent = Agent::prepared_operation(&world).await;
    let abort =
        AbortRequest { operation: OP.to_owned(), attempt: 1, token: "guess".to_owned(), ..AbortRequest::default() };
    is(&agent.client.abort(abort).await.expect_err("wrong token"), Code::Unauthenticated, "BAD_TOKEN");
    assert_eq!(world.role(OP).expect("role").floor.0, 0);
}
