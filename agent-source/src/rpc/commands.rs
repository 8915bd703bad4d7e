//! Every call of the `SourceAgent` service.

use super::{
    errors::{bad_field, status},
    preflight,
};
use crate::session::{Error, Registry};
use handover::{
    Attempt, CommandVersion, Incarnation,
    source_role::{Phase, SourceRole},
};
use proto::{
    convert,
    v1::{self, source_agent_server::SourceAgent},
};
use service::serve::peer_of;
use std::time::Duration;
use tonic::{Request, Response, Status, async_trait};

/// No transaction is given more time than this to end before a fence.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// The service.
pub struct Commands {
    registry: Registry,
}

impl Commands {
    /// The service over the operations of an agent.
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }

    /// Commands that change something are the coordinator's.
    fn commanded<T>(&self, request: Request<T>) -> Result<T, Status> {
        let allowed: Vec<&str> =
            self.registry.shared().settings.coordinator_identities.iter().map(String::as_str).collect();
        peer_of(&request).require(&allowed)?;
        Ok(request.into_inner())
    }

    async fn known(&self, operation: &str) -> Result<std::sync::Arc<crate::session::Session>, Status> {
        let operation = convert::operation_id("operation", operation).map_err(bad_field)?;
        self.registry.get(&operation).map_err(status)
    }

    fn dest_identity(dest_instance: &str, given: &str) -> String {
        match (given, dest_instance) {
            ("", "") => String::new(),
            ("", instance) => format!("spiffe://causeway/agent-dest/{instance}"),
            (given, _) => given.to_owned(),
        }
    }
}

fn attempt(n: u32) -> Result<Attempt, Status> {
    convert::attempt("attempt", n).map_err(bad_field)
}

#[async_trait]
impl SourceAgent for Commands {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let shared = self.registry.shared();
        let mut operations = Vec::new();
        for session in self.registry.all() {
            let role = session.role().await;
            operations.push(v1::KnownOperation {
                attempt: role.phase.attempt().map_or(0, |attempt| attempt.0),
                dest_address: role.dest_address.clone(),
                source_identity: String::new(),
                log_budget_bytes: role.log_budget_bytes,
                heard_ms_ago: Some(u64::try_from(session.silence().as_millis()).unwrap_or(u64::MAX)),
                operation: role.operation.to_string(),
                database: role.database.to_string(),
                kind: convert::kind_to_wire(role.kind).into(),
                phase: role.phase.as_str().to_owned(),
                version: role.version.0,
                floor: role.floor.0,
            });
        }
        Ok(Response::new(v1::DescribeResponse {
            agent: "source".to_owned(),
            instance: shared.settings.instance.to_string(),
            engine: shared.engine.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: proto::PROTOCOL,
            epoch: shared.epoch.0,
            operations,
            watermark: shared.engine.watermark().await.map_err(|e| status(e.into()))?.0,
        }))
    }

    async fn list_databases(
        &self,
        _: Request<v1::AgentListDatabasesRequest>,
    ) -> Result<Response<v1::AgentListDatabasesResponse>, Status> {
        let found = self.registry.shared().engine.databases().await.map_err(|e| status(e.into()))?;
        let mut databases = Vec::with_capacity(found.len());
        let mut taken = std::collections::HashMap::new();
        for session in self.registry.all() {
            let role = session.role().await;
            taken.insert(role.database, role.operation.to_string());
        }
        for info in found {
            databases.push(v1::Database {
                operation: taken.get(&info.name).cloned().unwrap_or_default(),
                name: info.name.to_string(),
                size_bytes: info.size_bytes,
                state: info.state,
                findings: info.findings.iter().map(convert::finding_to_wire).collect(),
            });
        }
        Ok(Response::new(v1::AgentListDatabasesResponse { databases }))
    }

    async fn preflight(
        &self,
        request: Request<v1::SourcePreflightRequest>,
    ) -> Result<Response<v1::SourcePreflightResponse>, Status> {
        // It changes nothing, but dials whatever address it is given.
        let request = self.commanded(request)?;
        let database = convert::database_name("database", &request.database).map_err(bad_field)?;
        let kind = convert::kind("kind", request.kind).map_err(bad_field)?;
        let operation = match request.operation.as_str() {
            "" => None,
            text => Some(convert::operation_id("operation", text).map_err(bad_field)?),
        };
        let dest = preflight::Dest {
            identity: Self::dest_identity(&request.dest_instance, &request.dest_identity),
            address: request.dest_address,
            instance: request.dest_instance,
        };
        let answer = preflight::examine(&self.registry, &database, kind, operation.as_ref(), &dest).await;
        Ok(Response::new(answer.map_err(|e| status(e.into()))?))
    }

    async fn begin(&self, request: Request<v1::BeginRequest>) -> Result<Response<v1::BeginResponse>, Status> {
        let request = self.commanded(request)?;
        if service::dial::split(&request.dest_address).is_none() {
            let problem = "give the destination agent's host:port".to_owned();
            return Err(bad_field(convert::BadField { field: "dest_address".to_owned(), problem }));
        }
        let role = SourceRole {
            operation: convert::operation_id("operation", &request.operation).map_err(bad_field)?,
            kind: convert::kind("kind", request.kind).map_err(bad_field)?,
            database: convert::database_name("database", &request.database).map_err(bad_field)?,
            token: convert::token("token", &request.token).map_err(bad_field)?,
            dest_identity: Self::dest_identity(&request.dest_instance, &request.dest_identity),
            dest_address: request.dest_address,
            log_budget_bytes: request.log_budget_bytes,
            // Filled in by what the preflight finds.
            incarnation: Incarnation::parse("unknown").expect("a constant that is an incarnation"),
            version: CommandVersion(request.version),
            floor: Attempt(0),
            phase: Phase::Replicating,
        };
        self.registry.begin(role).await.map_err(status)?;
        Ok(Response::new(v1::BeginResponse {}))
    }

    async fn get_status(
        &self,
        request: Request<v1::SourceStatusRequest>,
    ) -> Result<Response<v1::SourceStatus>, Status> {
        let session = self.known(&request.into_inner().operation).await?;
        Ok(Response::new(session.status().await))
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Result<Response<v1::FenceResponse>, Status> {
        let request = self.commanded(request)?;
        let session = self.known(&request.operation).await?;
        let attempt = attempt(request.attempt)?;
        let grace = Duration::from_millis(request.grace_ms).min(GRACE_MAX);
        let version = CommandVersion(request.version);
        // A caller that goes away must not leave a fence half way: the command runs to its end by itself.
        let env = self.registry.shared().env.clone();
        let fenced = env.spawn("fence", async move { session.fence(version, attempt, grace).await });
        let fenced = joined(fenced.await)?;
        Ok(Response::new(v1::FenceResponse { position: fenced.position.to_string(), fenced_unix_us: fenced.at_us }))
    }

    async fn mark(&self, request: Request<v1::MarkRequest>) -> Result<Response<v1::MarkResponse>, Status> {
        let request = self.commanded(request)?;
        let session = self.known(&request.operation).await?;
        let (version, attempt) = (CommandVersion(request.version), attempt(request.attempt)?);
        let env = self.registry.shared().env.clone();
        let marked = env.spawn("mark", async move { session.mark(version, attempt).await });
        Ok(Response::new(v1::MarkResponse { position: joined(marked.await)?.to_string() }))
    }

    async fn unfence(&self, request: Request<v1::UnfenceRequest>) -> Result<Response<v1::UnfenceResponse>, Status> {
        let request = self.commanded(request)?;
        let session = self.known(&request.operation).await?;
        let (version, attempt) = (CommandVersion(request.version), attempt(request.attempt)?);
        let env = self.registry.shared().env.clone();
        joined(env.spawn("unfence", async move { session.unfence(version, attempt).await }).await)?;
        Ok(Response::new(v1::UnfenceResponse {}))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        let request = self.commanded(request)?;
        let session = self.known(&request.operation).await?;
        let (version, attempt) = (CommandVersion(request.version), attempt(request.attempt)?);
        let env = self.registry.shared().env.clone();
        let released = env.spawn("release", async move { session.release(version, attempt, &request.moved_to).await });
        joined(released.await)?;
        Ok(Response::new(v1::ReleaseResponse {}))
    }

    async fn cleanup(&self, request: Request<v1::CleanupRequest>) -> Result<Response<v1::CleanupResponse>, Status> {
        let request = self.commanded(request)?;
        let operation = convert::operation_id("operation", &request.operation).map_err(bad_field)?;
        let registry = self.registry.clone();
        let env = registry.shared().env.clone();
        let version = CommandVersion(request.version);
        joined(env.spawn("clean up", async move { registry.cleanup(&operation, version).await }).await)?;
        Ok(Response::new(v1::CleanupResponse {}))
    }

    async fn force_unfence(
        &self,
        request: Request<v1::ForceUnfenceCommand>,
    ) -> Result<Response<v1::UnfenceResponse>, Status> {
        let request = self.commanded(request)?;
        let session = self.known(&request.operation).await?;
        let version = CommandVersion(request.version);
        let env = self.registry.shared().env.clone();
        joined(env.spawn("force-unfence", async move { session.force_unfence(version).await }).await)?;
        Ok(Response::new(v1::UnfenceResponse {}))
    }
}

fn joined<T>(outcome: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Status> {
    match outcome {
        Ok(outcome) => outcome.map_err(status),
        Err(_) => Err(Status::internal("the command's task ended unexpectedly; see the agent's log")),
    }
}
