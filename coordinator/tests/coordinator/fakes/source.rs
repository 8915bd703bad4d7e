//! The source half.

use handover::{
    Attempt, CommandVersion, DatabaseName, Incarnation, Kind, OperationId, Position, Token,
    source_role::{Action, Event, Phase, Refusal, SourceRole, step},
};
use proto::{
    convert,
    v1::{self, source_agent_server::SourceAgent},
};
use tonic::{Code, Request, Response, Status};

use super::{SOURCE, State, World, id, refusal, unknown};

pub struct FakeSource {
    world: World,
    instance: String,
}

impl FakeSource {
    pub fn new(world: World, instance: &str) -> Self {
        Self { world, instance: instance.to_owned() }
    }
}

fn status(state: &State, refused: Refusal) -> Status {
    match refused {
        Refusal::StaleVersion { known, .. } => state.stale(known.0),
        Refusal::StaleAttempt { .. } => refusal(Code::Aborted, "STALE_ATTEMPT", &refused.to_string()),
        Refusal::WrongPhase { .. } | Refusal::WrongKind { .. } => {
            refusal(Code::FailedPrecondition, "WRONG_PHASE", &refused.to_string())
        }
    }
}

/// Step, record, and act, as an agent does.
fn obey(state: &mut State, operation: &OperationId, event: &Event) -> Result<(), Status> {
    let role = state.sources.get(operation).ok_or_else(|| unknown(operation.as_str()))?;
    let done = step(role, event).map_err(|refused| status(state, refused))?;
    state.sources.insert(operation.clone(), done.next);
    for action in done.actions {
        act(state, operation, action)?;
    }
    Ok(())
}

fn act(state: &mut State, operation: &OperationId, action: Action) -> Result<(), Status> {
    let set = |state: &mut State, open: bool| {
        let database = state.sources[operation].database.to_string();
        let own = state.databases.iter_mut().find(|((instance, name), _)| *name == database && instance == "west");
        if let Some((_, writable)) = own {
            *writable = open;
        }
    };
    match action {
        Action::Close(n) => {
            set(state, false);
            obey(state, operation, &Event::FenceDurable(n, Position::parse(&format!("p{n}")).unwrap()))
        }
        Action::AnnounceFenced(n, _) | Action::TakeMark(n) => {
            state.markers.push((operation.clone(), n));
            Ok(())
        }
        Action::Reopen(n) => {
            set(state, true);
            obey(state, operation, &Event::Reopened(n))
        }
        Action::ResumeStream(_) => Ok(()),
        Action::Release(_) => {
            let role = &state.sources[operation];
            if role.kind == Kind::Move {
                let key = ("west".to_owned(), role.database.to_string());
                state.databases.remove(&key);
            }
            obey(state, operation, &Event::ReleaseDone)
        }
        Action::RemoveAll => {
            set(state, true);
            if let Some(role) = state.sources.remove(operation) {
                state.raise(SOURCE, "west", role.version.0);
            }
            Ok(())
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl SourceAgent for FakeSource {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Answer<v1::DescribeResponse> {
        let answer = v1::DescribeResponse {
            agent: SOURCE.to_owned(),
            instance: self.instance.clone(),
            engine: "memory".to_owned(),
            protocol: proto::PROTOCOL,
            ..Default::default()
        };
        self.world.obey(SOURCE, "Describe", |_| Ok(answer.clone())).await
    }

    async fn list_databases(
        &self,
        _: Request<v1::AgentListDatabasesRequest>,
    ) -> Answer<v1::AgentListDatabasesResponse> {
        let instance = self.instance.clone();
        self.world.obey(SOURCE, "ListDatabases", |state| Ok(super::dest::databases(state, &instance))).await
    }

    async fn preflight(&self, request: Request<v1::SourcePreflightRequest>) -> Answer<v1::SourcePreflightResponse> {
        let request = request.into_inner();
        assert!(!request.dest_address.is_empty() && !request.dest_instance.is_empty());
        let act = |state: &mut State| {
            let mut findings = state.source_findings.clone();
            if !state.databases.contains_key(&(self.instance.clone(), request.database.clone())) {
                let message = format!("there is no database {}", request.database);
                findings.push(handover::Finding::error(handover::Side::Source, "NO_DATABASE", message, "name another"));
            }
            Ok(v1::SourcePreflightResponse {
                findings: findings.iter().map(convert::finding_to_wire).collect(),
                requirements: b"required".to_vec().into(),
                seed_bytes: 1000,
            })
        };
        self.world.obey(SOURCE, "Preflight", act).await
    }

    async fn begin(&self, request: Request<v1::BeginRequest>) -> Answer<v1::BeginResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let act = |state: &mut State| {
            if !state.sources.contains_key(&operation) {
                state.admit(SOURCE, &self.instance, request.version)?;
                let role = SourceRole {
                    operation: operation.clone(),
                    kind: convert::kind("kind", request.kind).unwrap(),
                    database: DatabaseName::parse(&request.database).unwrap(),
                    token: Token::parse(&request.token).unwrap(),
                    dest_address: request.dest_address.clone(),
                    dest_identity: request.dest_identity.clone(),
                    log_budget_bytes: request.log_budget_bytes,
                    incarnation: Incarnation::parse("one").unwrap(),
                    version: CommandVersion(request.version),
                    floor: Attempt(0),
                    phase: Phase::Replicating,
                };
                state.sources.insert(operation.clone(), role);
            }
            Ok(v1::BeginResponse {})
        };
        self.world.obey(SOURCE, "Begin", act).await
    }

    async fn get_status(&self, request: Request<v1::SourceStatusRequest>) -> Answer<v1::SourceStatus> {
        let operation = id(&request.into_inner().operation)?;
        let act = |state: &mut State| {
            if !state.hold_seed
                && let Some(dest) = state.dests.get(&operation)
                && let Ok(step) = handover::dest_role::step(dest, &handover::dest_role::Event::SeedLoaded)
            {
                state.dests.insert(operation.clone(), step.next);
            }
            let role = state.sources.get(&operation).ok_or_else(|| unknown(operation.as_str()))?;
            let progress = v1::Progress {
                seed_bytes_total: 1000,
                seed_bytes_sent: 1000,
                lag_ms: state.lag_ms,
                lag_bytes: state.lag_bytes,
                generation: 1,
                ..Default::default()
            };
            Ok(v1::SourceStatus {
                phase: role.phase.as_str().to_owned(),
                attempt: role.in_doubt().map_or(0, |n| n.0),
                floor: role.floor.0,
                progress: Some(progress),
                connected: true,
                trouble: state.trouble.as_ref().map(|(reason, _)| reason.clone()),
                fatal: state.trouble.as_ref().is_some_and(|(_, fatal)| *fatal),
                seeded: !state.hold_seed,
            })
        };
        self.world.obey(SOURCE, "GetStatus", act).await
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Answer<v1::FenceResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let event = Event::Fence(CommandVersion(request.version), Attempt(request.attempt));
        let act = |state: &mut State| {
            obey(state, &operation, &event)?;
            Ok(v1::FenceResponse { position: format!("p{}", request.attempt), fenced_unix_us: 0 })
        };
        self.world.obey(SOURCE, "Fence", act).await
    }

    async fn mark(&self, request: Request<v1::MarkRequest>) -> Answer<v1::MarkResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let event = Event::Mark(CommandVersion(request.version), Attempt(request.attempt));
        let act = |state: &mut State| {
            obey(state, &operation, &event)?;
            Ok(v1::MarkResponse { position: format!("p{}", request.attempt) })
        };
        self.world.obey(SOURCE, "Mark", act).await
    }

    async fn unfence(&self, request: Request<v1::UnfenceRequest>) -> Answer<v1::UnfenceResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let event = Event::Unfence(CommandVersion(request.version), Attempt(request.attempt));
        let act = |state: &mut State| obey(state, &operation, &event).map(|()| v1::UnfenceResponse {});
        self.world.obey(SOURCE, "Unfence", act).await
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        assert!(request.moved_to.starts_with("east at "), "{}", request.moved_to);
        let event = Event::Release(CommandVersion(request.version), Attempt(request.attempt));
        let act = |state: &mut State| obey(state, &operation, &event).map(|()| v1::ReleaseResponse {});
        self.world.obey(SOURCE, "Release", act).await
    }

    async fn cleanup(&self, request: Request<v1::CleanupRequest>) -> Answer<v1::CleanupResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let act = |state: &mut State| {
            if state.sources.contains_key(&operation) {
                obey(state, &operation, &Event::Cleanup(CommandVersion(request.version)))?;
            } else {
                state.raise(SOURCE, &self.instance, request.version);
            }
            Ok(v1::CleanupResponse {})
        };
        self.world.obey(SOURCE, "Cleanup", act).await
    }

    async fn force_unfence(&self, request: Request<v1::ForceUnfenceCommand>) -> Answer<v1::UnfenceResponse> {
        let request = request.into_inner();
        let operation = id(&request.operation)?;
        let event = Event::ForceUnfence(CommandVersion(request.version));
        let act = |state: &mut State| obey(state, &operation, &event).map(|()| v1::UnfenceResponse {});
        self.world.obey(SOURCE, "ForceUnfence", act).await
    }
}
