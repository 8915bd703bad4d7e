//! `causeway.v1.DestAgent`: the coordinator's commands.

use super::{errors, status};
use crate::session::{Asker, Error, Registry, Result as Outcome};
use handover::{
    CommandVersion, Epoch, Finding, OperationId, Side,
    dest_role::{DestRole, Phase},
    source_role::DestAnswer,
};
use proto::{
    convert,
    v1::{
        AbortRequest, AbortResponse, AgentListDatabasesRequest, AgentListDatabasesResponse, Decision, DescribeRequest,
        DescribeResponse, DestPreflightRequest, DestPreflightResponse, DestStatus, DestStatusRequest, DiscardRequest,
        DiscardResponse, FinishRequest, FinishResponse, ForcePromoteCommand, ForgetRequest, ForgetResponse,
        PrepareRequest, PrepareResponse, PromoteRequest, PromoteResponse, PurgeRequest, PurgeResponse,
        dest_agent_server::DestAgent,
    },
};
use service::serve::{Peer, peer_of};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// The command service.
pub(crate) struct Commands {
    registry: Registry,
    tls: bool,
}

impl Commands {
    pub(crate) fn new(registry: Registry, tls: bool) -> Self {
        Self { registry, tls }
    }

    fn is_coordinator(&self, caller: &Peer) -> bool {
        // Without TLS nobody has an identity; loopback is the protection the operator chose.
        !self.tls || self.registry.coordinator_identities().iter().any(|name| caller.is(name))
    }

    fn coordinator_only<T>(&self, request: &Request<T>) -> Outcome<()> {
        let caller = peer_of(request);
        if self.is_coordinator(&caller) {
            return Ok(());
        }
        Err(Error::NotCoordinator {
            caller: caller.to_string(),
            allowed: self.registry.coordinator_identities().join(", "),
        })
    }

    async fn list(&self) -> Outcome<AgentListDatabasesResponse> {
        let databases = self.registry.engine().databases().await?;
        let databases = databases.into_iter().map(|info| status::database(&self.registry, info)).collect();
        Ok(AgentListDatabasesResponse { databases })
    }

    async fn purge_one(&self, request: Request<PurgeRequest>) -> Outcome<PurgeResponse> {
        self.coordinator_only(&request)?;
        let database = convert::database_name("database", &request.get_ref().database)?;
        let engine = self.registry.engine().clone();
        self.registry.task("purge", async move { Ok(engine.purge(&database).await?) }).await?;
        Ok(PurgeResponse {})
    }

    async fn judge(&self, request: DestPreflightRequest) -> Outcome<DestPreflightResponse> {
        let database = convert::database_name("database", &request.database)?;
        let operation = optional_operation(&request.operation)?;
        let engine = self.registry.engine();
        if request.engine != engine.name() {
            let finding = Finding::error(
                Side::Dest,
                "ENGINE_DIFFERS",
                format!("the source is of engine {:?}, the destination of {:?}", request.engine, engine.name()),
                "choose a destination instance of the source's engine",
            );
            return Ok(DestPreflightResponse { findings: vec![convert::finding_to_wire(&finding)] });
        }
        let mut findings = engine.preflight(&database, &request.requirements, operation.as_ref()).await?;
        let told = findings.iter().any(|finding| finding.code == "OPERATION_EXISTS");
        if let Some(by) = self.registry.holder(&database, operation.as_ref()).filter(|_| !told) {
            findings.push(Finding::error(
                Side::Dest,
                "OPERATION_EXISTS",
                format!("operation {by} already holds the database {database:?} at the destination"),
                "wait for that operation to end, or cancel it",
            ));
        }
        Ok(DestPreflightResponse { findings: findings.iter().map(convert::finding_to_wire).collect() })
    }

    async fn record(&self, request: Request<PrepareRequest>) -> Outcome<PrepareResponse> {
        self.coordinator_only(&request)?;
        let request = request.into_inner();
        let role = DestRole {
            operation: operation(&request.operation)?,
            kind: convert::kind("kind", request.kind)?,
            database: convert::database_name("database", &request.database)?,
            token: convert::token("token", &request.token)?,
            source_identity: request.source_identity,
            incarnation: None,
            source_epoch: Epoch(0),
            version: CommandVersion(request.version),
            floor: handover::Attempt(0),
            hook: None,
            phase: Phase::Seeding,
        };
        self.registry.prepare(role).await?;
        Ok(PrepareResponse {})
    }

    async fn flip(&self, request: Request<PromoteRequest>) -> Outcome<PromoteResponse> {
        self.coordinator_only(&request)?;
        let request = request.into_inner();
        let attempt = convert::attempt("attempt", request.attempt)?;
        let session = self.registry.find(&operation(&request.operation)?).await?;
        let (version, wait) = (CommandVersion(request.version), Duration::from_millis(request.wait_ms));
        let online_unix_us = session.promote(&self.registry, version, attempt, wait).await?;
        Ok(PromoteResponse { online_unix_us })
    }

    async fn close(&self, request: Request<AbortRequest>) -> Outcome<DestAnswer> {
        let caller = peer_of(&request);
        let request = request.into_inner();
        // With a token it is a source agent that asks, except with the coordinator's own certificate.
        let coordinator = self.is_coordinator(&caller) && (self.tls || request.token.is_empty());
        if !coordinator && request.token.is_empty() {
            return Err(Error::NotCoordinator {
                caller: caller.to_string(),
                allowed: format!(
                    "{}, or the operation's source agent with its token",
                    self.registry.coordinator_identities().join(", ")
                ),
            });
        }
        let attempt = convert::attempt("attempt", request.attempt)?;
        let session = match self.registry.find(&operation(&request.operation)?).await {
            Err(Error::Unknown(_)) => return Ok(DestAnswer::Unknown),
            found => found?,
        };
        let asker = match coordinator {
            true => Asker::Coordinator(CommandVersion(request.version)),
            false => Asker::Source { token: request.token, caller },
        };
        match session.abort(&self.registry, asker, attempt, request.ask_only).await {
            // Forgotten, as was found out only now.
            Err(Error::Unknown(_)) => Ok(DestAnswer::Unknown),
            answer => answer,
        }
    }

    async fn remove(&self, request: Request<DiscardRequest>) -> Outcome<DestAnswer> {
        self.coordinator_only(&request)?;
        let request = request.get_ref();
        self.registry.discard(operation(&request.operation)?, CommandVersion(request.version)).await
    }

    async fn end(&self, request: Request<FinishRequest>) -> Outcome<FinishResponse> {
        self.coordinator_only(&request)?;
        let request = request.get_ref();
        let session = self.registry.find(&operation(&request.operation)?).await?;
        let outcome = session.finish(&self.registry, CommandVersion(request.version)).await?;
        Ok(FinishResponse { on_online: outcome.as_ref().map(status::hook) })
    }

    async fn drop_record(&self, request: Request<ForgetRequest>) -> Outcome<ForgetResponse> {
        self.coordinator_only(&request)?;
        let request = request.get_ref();
        self.registry.forget(operation(&request.operation)?, CommandVersion(request.version)).await?;
        Ok(ForgetResponse {})
    }

    async fn force(&self, request: Request<ForcePromoteCommand>) -> Outcome<PromoteResponse> {
        self.coordinator_only(&request)?;
        let request = request.get_ref();
        let attempt = convert::attempt("attempt", request.attempt)?;
        let session = self.registry.find(&operation(&request.operation)?).await?;
        let online_unix_us = session.force_promote(&self.registry, CommandVersion(request.version), attempt).await?;
        Ok(PromoteResponse { online_unix_us })
    }
}

fn operation(text: &str) -> Outcome<OperationId> {
    Ok(convert::operation_id("operation", text)?)
}

fn optional_operation(text: &str) -> Outcome<Option<OperationId>> {
    if text.is_empty() { Ok(None) } else { operation(text).map(Some) }
}

fn decision(answer: DestAnswer) -> i32 {
    match answer {
        DestAnswer::Aborted => Decision::Aborted,
        DestAnswer::Promoted => Decision::Promoted,
        DestAnswer::Prepared => Decision::Prepared,
        DestAnswer::Unknown => Decision::Unknown,
    }
    .into()
}

fn reply<T>(outcome: Outcome<T>) -> Result<Response<T>, Status> {
    if let Err(error @ (Error::NotCoordinator { .. } | Error::OtherIdentity { .. } | Error::BadToken)) = &outcome {
        tracing::warn!(%error, "refuse a command");
    }
    outcome.map(Response::new).map_err(errors::status)
}

#[tonic::async_trait]
impl DestAgent for Commands {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        reply(status::describe(&self.registry).await)
    }

    async fn list_databases(
        &self,
        _: Request<AgentListDatabasesRequest>,
    ) -> Result<Response<AgentListDatabasesResponse>, Status> {
        reply(self.list().await)
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        reply(self.purge_one(request).await)
    }

    async fn preflight(
        &self,
        request: Request<DestPreflightRequest>,
    ) -> Result<Response<DestPreflightResponse>, Status> {
        // Requirements are parsed by the engine: not for everybody to try.
        reply(match self.coordinator_only(&request) {
            Ok(()) => self.judge(request.into_inner()).await,
            Err(error) => Err(error),
        })
    }

    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        reply(self.record(request).await)
    }

    async fn get_status(&self, request: Request<DestStatusRequest>) -> Result<Response<DestStatus>, Status> {
        let look = async {
            let session = self.registry.find(&operation(&request.get_ref().operation)?).await?;
            Ok(status::status(&session, self.registry.env().now()))
        };
        reply(look.await)
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Result<Response<PromoteResponse>, Status> {
        reply(self.flip(request).await)
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<AbortResponse>, Status> {
        reply(self.close(request).await.map(|answer| AbortResponse { decision: decision(answer) }))
    }

    async fn discard(&self, request: Request<DiscardRequest>) -> Result<Response<DiscardResponse>, Status> {
        reply(self.remove(request).await.map(|answer| DiscardResponse { decision: decision(answer) }))
    }

    async fn finish(&self, request: Request<FinishRequest>) -> Result<Response<FinishResponse>, Status> {
        reply(self.end(request).await)
    }

    async fn forget(&self, request: Request<ForgetRequest>) -> Result<Response<ForgetResponse>, Status> {
        reply(self.drop_record(request).await)
    }

    async fn force_promote(&self, request: Request<ForcePromoteCommand>) -> Result<Response<PromoteResponse>, Status> {
        reply(self.force(request).await)
    }
}
