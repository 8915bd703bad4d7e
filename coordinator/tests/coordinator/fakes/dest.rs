//! The destination half.

use std::time::{Duration, Instant};

use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, OperationId, Token,
    dest_role::{Action, Answer as Told, DestRole, Event, Phase, Refusal, step},
    source_role::DestAnswer,
};
use proto::{
    convert,
    v1::{self, dest_agent_server::DestAgent},
};
use tonic::{Code, Request, Response, Status};

use super::{DEST, State, World, id, refusal, unknown};

pub struct FakeDest {
    world: World,
    instance: String,
}

impl FakeDest {
    pub fn new(world: World, instance: &str) -> Self {
        Self { world, instance: instance.to_owned() }
    }
}

pub fn databases(state: &State, instance: &str) -> v1::AgentListDatabasesResponse {
    let mut databases: Vec<v1::Database> = state
        .databases
        .iter()
        .filter(|((at, _), _)| at == instance)
        .map(|((_, name), open)| v1::Database {
            name: name.clone(),
            state: if *open { "online" } else { "fenced" }.to_owned(),
            ..Default::default()
        })
        .collect();
    databases.sort_by(|a, b| a.name.cmp(&b.name));
    v1::AgentListDatabasesResponse { databases }
}

fn status(state: &State, refused: Refusal) -> Status {
    match refused {
        Refusal::StaleVersion { known, .. } => state.stale(known.0),
        Refusal::StaleAttempt { .. } => refusal(Code::Aborted, "STALE_ATTEMPT", &refused.to_string()),
        Refusal::NotPrepared { .. } => refusal(Code::FailedPrecondition, "NOT_PREPARED", &refused.to_string()),
        Refusal::WrongPhase { .. } => refusal(Code::FailedPrecondition, "WRONG_PHASE", &refused.to_string()),
    }
}

fn obey(state: &mut State, operation: &OperationId, event: &Event) -> Result<Told, Status> {
    let role = state.dests.get(operation).ok_or_else(|| unknown(operation.as_str()))?;
    let done = step(role, event).map_err(|refused| status(state, refused))?;
    state.dests.insert(operation.clone(), done.next);
    for action in done.actions {
        let key = ("east".to_owned(), state.dests[operation].database.to_string());
        match action {
            Action::Open => drop(state.databases.insert(key, true)),
            Action::RemoveAll => {
                state.databases.remove(&key);
                obey(state, operation, &Event::DiscardDone)?;
            }
            Action::Finish => {
                let role = state.dests.get_mut(operation).unwrap();
                if role.hook.is_none() {
                    let output = "backed up".to_owned();
                    role.hook = Some(handover::operation::HookOutcome { ok: true, exit_code: 0, output, took_ms: 3 });
                    state.hooks_run += 1;
                }
            }
            Action::RemoveRecord => {
                if let Some(role) = state.dests.remove(operation) {
                    state.raise(DEST, "east", role.version.0);
                }
            }
        }
    }
    Ok(done.answer)
}

fn decision(told: Told) -> i32 {
    let decision = match told {
        Told::Decided(DestAnswer::Aborted) => v1::Decision::Aborted,
        Told::Decided(DestAnswer::Promoted) => v1::Decision::Promoted,
        Told::Decided(DestAnswer::Prepared) => v1::Decision::Prepared,
        Told::Decided(DestAnswer::Unknown) | Told::Done | Told::Skipped => v1::Decision::Unknown,
    };
    decision.into()
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DestAgent for FakeDest {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Answer<v1::DescribeResponse> {
        let answer = v1::DescribeResponse {
            agent: DEST.to_owned(),
            instance: self.instance.clone(),
            engine: "memory".to_owned(),
            protocol: proto::PROTOCOL,
            ..Default::default()
        };
        self.world.obey(DEST, "Describe", |_| Ok(answer.clone())).await
    }

    async fn list_databases(
        &self,
        _: Request<v1::AgentListDatabasesRequest>,
    ) -> Answer<v1::AgentListDatabasesResponse> {
        self.world.obey(DEST, "ListDatabases", |state| Ok(databases(state, &self.instance))).await
    }

    async fn purge(&self, _: Request<v1::PurgeRequest>) -> Answer<v1::PurgeResponse> {
        self.world.obey(DEST, "Purge", |_| Ok(v1::PurgeResponse {})).await
    }

    async fn preflight(&self, request: Request<v1::DestPreflightRequest>) -> Answer<v1::DestPreflightResponse> {
        let request = request.into_inner();
        assert_eq!(request.requirements.as_ref(), b"required");
        let act = |state: &mut State| {
            let mut findings = state.dest_findings.clone();
            if state.databases.contains_key(&(self.instance.clone(), request.database.clone())) {
                let side = handover::Side::Dest;
                findings.push(handover::Finding::error(side, "NAME_TAKEN", "the name is taken", "choose another"));
            }
            Ok(v1::DestPreflightResponse { findings: findings.iter().map(convert::finding_to_wire).collect() })
        };
        self.world.obey(DEST, "Preflight", act).await
    }

    async fn prepare(&self, request: Request<v1::PrepareRequest>) -> Answer<v1::PrepareResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let act = |state: &mut State| {
            if !state.dests.contains_key(&operation) {
                state.admit(DEST, &self.instance, request.version)?;
                let role = DestRole {
                    operation: operation.clone(),
                    kind: convert::kind("kind", request.kind).unwrap(),
                    database: DatabaseName::parse(&request.database).unwrap(),
                    token: Token::parse(&request.token).unwrap(),
                    source_identity: request.source_identity.clone(),
                    incarnation: None,
                    source_epoch: Epoch(0),
                    version: CommandVersion(request.version),
                    floor: Attempt(0),
                    hook: None,
                    phase: Phase::Seeding,
                };
                state.dests.insert(operation.clone(), role);
            }
            Ok(v1::PrepareResponse {})
        };
        self.world.obey(DEST, "Prepare", act).await
    }

    async fn get_status(&self, request: Request<v1::DestStatusRequest>) -> Answer<v1::DestStatus> {
        let operation = id(&request.into_inner().operation)?;
        let act = |state: &mut State| {
            let role = state.dests.get(&operation).ok_or_else(|| unknown(operation.as_str()))?;
            let done = if role.phase == Phase::Seeding { 400 } else { 1000 };
            Ok(v1::DestStatus {
                phase: role.phase.as_str().to_owned(),
                floor: role.floor.0,
                progress: Some(v1::Progress { seed_bytes_done: done, ..Default::default() }),
                ..Default::default()
            })
        };
        self.world.obey(DEST, "GetStatus", act).await
    }

    async fn promote(&self, request: Request<v1::PromoteRequest>) -> Answer<v1::PromoteResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let event = Event::Promote(CommandVersion(request.version), Attempt(request.attempt));
        let until = Instant::now() + Duration::from_millis(request.wait_ms);
        let waits = || {
            let state = self.world.lock();
            let role = state.dests.get(&operation);
            role.is_some_and(|role| {
                Attempt(request.attempt) > role.floor && matches!(role.phase, Phase::Seeding | Phase::Replica)
            })
        };
        while waits() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let act =
            |state: &mut State| obey(state, &operation, &event).map(|_| v1::PromoteResponse { online_unix_us: 0 });
        self.world.obey(DEST, "Promote", act).await
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Answer<v1::AbortResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let event = Event::Abort(Some(CommandVersion(request.version)), Attempt(request.attempt));
        let act = |state: &mut State| {
            let told = match obey(state, &operation, &event) {
                Err(status) if status.code() == Code::NotFound => Told::Done,
                other => other?,
            };
            Ok(v1::AbortResponse { decision: decision(told) })
        };
        self.world.obey(DEST, "Abort", act).await
    }

    async fn discard(&self, request: Request<v1::DiscardRequest>) -> Answer<v1::DiscardResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let act = |state: &mut State| {
            let told = match obey(state, &operation, &Event::Discard(CommandVersion(request.version))) {
                Err(status) if status.code() == Code::NotFound => {
                    state.raise(DEST, &self.instance, request.version);
                    Told::Done
                }
                other => other?,
            };
            Ok(v1::DiscardResponse { decision: decision(told) })
        };
        self.world.obey(DEST, "Discard", act).await
    }

    async fn finish(&self, request: Request<v1::FinishRequest>) -> Answer<v1::FinishResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let act = |state: &mut State| {
            obey(state, &operation, &Event::Finish(CommandVersion(request.version)))?;
            let hook = state.dests[&operation].hook.clone().map(|hook| v1::Hook {
                ok: hook.ok,
                exit_code: hook.exit_code,
                output: hook.output,
                took_ms: hook.took_ms,
            });
            Ok(v1::FinishResponse { on_online: hook })
        };
        self.world.obey(DEST, "Finish", act).await
    }

    async fn forget(&self, request: Request<v1::ForgetRequest>) -> Answer<v1::ForgetResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let act = |state: &mut State| {
            match obey(state, &operation, &Event::Forget(CommandVersion(request.version))) {
                Err(status) if status.code() == Code::NotFound => state.raise(DEST, &self.instance, request.version),
                other => assert_eq!(other?, Told::Done),
            }
            Ok(v1::ForgetResponse {})
        };
        self.world.obey(DEST, "Forget", act).await
    }

    async fn force_promote(&self, request: Request<v1::ForcePromoteCommand>) -> Answer<v1::PromoteResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let event = Event::ForcePromote(CommandVersion(request.version), Attempt(request.attempt));
        let act =
            |state: &mut State| obey(state, &operation, &event).map(|_| v1::PromoteResponse { online_unix_us: 0 });
        self.world.obey(DEST, "ForcePromote", act).await
    }
}
