//! A coordinator that answers from a script. What it says depends on the names it is asked about.

use std::sync::atomic::{AtomicU32, Ordering};

use proto::v1::{self, State, coordinator_server::Coordinator, coordinator_server::CoordinatorServer};
use service::{
    Env, Shutdown,
    serve::{self, ServeOptions},
    status::problem,
};
use tonic::{Code, Request, Response, Status, service::Routes};

/// How many operations it lists, in pages of 10.
pub const LISTED: usize = 25;

/// The script.
#[derive(Default)]
pub struct Fake {
    watches: AtomicU32,
}

type Answer<T> = Result<Response<T>, Status>;
type Updates = tokio_stream::Iter<std::vec::IntoIter<Result<v1::WatchOperationsResponse, Status>>>;

impl Fake {
    /// Serves the script; the address.
    pub async fn serve() -> String {
        let env = Env::real();
        let listener = serve::bind(&env, "127.0.0.1:0", false).await.expect("a free port");
        let address = listener.local_addr().expect("a bound address").to_string();
        let routes = Routes::new(CoordinatorServer::new(Self::default()));
        tokio::spawn(async move {
            serve::serve(&env, listener, None, routes, &ServeOptions::default(), Shutdown::new()).await
        });
        address
    }
}

/// The operation of a database, as it is at a version.
fn operation(database: &str, state: State, version: u64) -> v1::Operation {
    let mut operation = v1::Operation {
        id: format!("0197-{database}"),
        source: "west".into(),
        destination: "east".into(),
        database: database.into(),
        status: state.as_str_name().trim_start_matches("STATE_").to_lowercase(),
        version,
        ..Default::default()
    };
    operation.set_kind(v1::Kind::Move);
    operation.set_state(state);
    operation
}

fn of_id(id: &str) -> &str {
    id.trim_start_matches("0197-")
}

fn selected(selector: Option<v1::OperationSelector>) -> String {
    selector.and_then(|selector| selector.ids.first().cloned()).unwrap_or_default()
}

fn findings(database: &str) -> v1::DatabaseFindings {
    let finding = |severity: v1::Severity, code: &str| v1::Finding {
        severity: severity.into(),
        side: "dest".into(),
        code: code.into(),
        message: "a database of this name exists".into(),
        remedy: "drop or rename it".into(),
    };
    let findings = match database {
        "taken" => vec![finding(v1::Severity::Error, "NAME_TAKEN"), finding(v1::Severity::Warning, "LATER")],
        _ => vec![],
    };
    v1::DatabaseFindings { database: database.into(), findings }
}

fn not_scripted<T>() -> Answer<T> {
    Err(Status::unimplemented("not in the script"))
}

#[tonic::async_trait]
impl Coordinator for Fake {
    type WatchOperationsStream = Updates;

    async fn register_instance(&self, _: Request<v1::RegisterInstanceRequest>) -> Answer<v1::RegisterInstanceResponse> {
        Err(problem(Code::InvalidArgument, "the instance is malformed")
            .field("instance.dest_agent", "not an address")
            .status())
    }

    async fn list_instances(&self, _: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        Ok(Response::new(v1::ListInstancesResponse::default()))
    }

    async fn remove_instance(&self, _: Request<v1::RemoveInstanceRequest>) -> Answer<v1::RemoveInstanceResponse> {
        Err(problem(Code::PermissionDenied, "you may not").reason("IDENTITY_NOT_ALLOWED").status())
    }

    async fn list_databases(&self, _: Request<v1::ListDatabasesRequest>) -> Answer<v1::ListDatabasesResponse> {
        Err(problem(Code::Unavailable, "no agent answers").reason("AGENT_UNREACHABLE").remedy("start it").status())
    }

    async fn purge_database(&self, _: Request<v1::PurgeDatabaseRequest>) -> Answer<v1::PurgeDatabaseResponse> {
        not_scripted()
    }

    async fn start_operation(&self, request: Request<v1::StartOperationRequest>) -> Answer<v1::StartOperationResponse> {
        let request = request.into_inner();
        let findings: Vec<_> = request.databases.iter().map(|name| findings(name)).collect();
        if request.validate_only {
            return Ok(Response::new(v1::StartOperationResponse { operations: vec![], findings }));
        }
        if findings.iter().any(|found| !found.findings.is_empty()) {
            return Err(problem(Code::FailedPrecondition, "preflight found errors")
                .reason("PREFLIGHT_FAILED")
                .status());
        }
        let operations = request.databases.iter().map(|name| operation(name, State::Preparing, 1)).collect();
        Ok(Response::new(v1::StartOperationResponse { operations, findings }))
    }

    async fn get_operation(&self, request: Request<v1::GetOperationRequest>) -> Answer<v1::GetOperationResponse> {
        let id = request.into_inner().id;
        match of_id(&id) {
            "unknown" => Err(problem(Code::NotFound, "there is no such operation")
                .reason("OPERATION_NOT_FOUND")
                .remedy("list them with `causeway operation list`")
                .status()),
            name => {
                let operation = Some(operation(name, State::Preparing, 1));
                Ok(Response::new(v1::GetOperationResponse { operation }))
            }
        }
    }

    async fn explain_operation(
        &self,
        request: Request<v1::ExplainOperationRequest>,
    ) -> Answer<v1::ExplainOperationResponse> {
        let id = request.into_inner().id;
        if of_id(&id) == "unknown" {
            return Err(problem(Code::NotFound, "there is no such operation").reason("OPERATION_NOT_FOUND").status());
        }
        let mut operation = operation(of_id(&id), State::Completing, 5);
        operation.waiting_for = vec!["destination agent east: it does not answer".into()];
        Ok(Response::new(v1::ExplainOperationResponse {
            operation: Some(operation),
            summary: "Attempt 1 is being given up.".into(),
            since: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            clients: "Nobody: west is closed, and east is not open.".into(),
            source_agent: "it is fenced".into(),
            dest_agent: "it does not answer: refused".into(),
            choices: vec![
                v1::Choice { command: String::new(), effect: "Start it again.".into(), is_override: false },
                v1::Choice {
                    command: format!("causeway operation force-unfence {id}"),
                    effect: "Only if east is gone for ever.".into(),
                    is_override: true,
                },
            ],
            waits: vec![v1::Wait {
                whom: "destination agent east: it does not answer".into(),
                since: Some(prost_types::Timestamp { seconds: 1_700_000_060, nanos: 0 }),
            }],
        }))
    }

    async fn list_operations(&self, request: Request<v1::ListOperationsRequest>) -> Answer<v1::ListOperationsResponse> {
        let from: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let to = LISTED.min(from + 10);
        let operations = (from..to).map(|n| operation(&format!("db{n}"), State::Succeeded, 9)).collect();
        let next_page_token = if to < LISTED { to.to_string() } else { String::new() };
        Ok(Response::new(v1::ListOperationsResponse { operations, next_page_token }))
    }

    async fn watch_operations(&self, request: Request<v1::WatchOperationsRequest>) -> Answer<Updates> {
        let request = request.into_inner();
        let name = request.ids.first().map_or("", |id| of_id(id)).to_owned();
        let first = self.watches.fetch_add(1, Ordering::Relaxed) == 0;
        let update = |state, version| {
            let mut operation = operation(&name, state, version);
            if name == "frozen" {
                operation.reason = Some(v1::Reason {
                    code: "FREEZE_EXCEEDED".into(),
                    message: "the freeze was longer than 20 ms".into(),
                    remedy: "give a larger --max-freeze".into(),
                });
            }
            Ok(v1::WatchOperationsResponse { operation: Some(operation) })
        };
        let updates = match name.as_str() {
            "lost" if first => vec![update(State::Seeding, 2), Err(Status::unavailable("shutting down"))],
            "lost" => vec![update(State::Seeding, 3), update(State::ReadyForCompletion, 4)],
            // A state from before the completion, which must not end the watch; then the attempt that was given up.
            "frozen" => vec![
                update(State::ReadyForCompletion, 4),
                update(State::Completing, 6),
                update(State::ReadyForCompletion, 8),
            ],
            _ => vec![update(State::Completing, 6), update(State::Succeeded, 9)],
        };
        Ok(Response::new(tokio_stream::iter(updates)))
    }

    async fn complete_operation(
        &self,
        request: Request<v1::CompleteOperationRequest>,
    ) -> Answer<v1::CompleteOperationResponse> {
        let id = selected(request.into_inner().operations);
        match of_id(&id) {
            "early" => Err(problem(Code::FailedPrecondition, "it is still being seeded")
                .reason("NOT_READY")
                .remedy("wait until it is ready for completion")
                .status()),
            name => {
                let operations = vec![operation(name, State::Completing, 5)];
                Ok(Response::new(v1::CompleteOperationResponse { operations }))
            }
        }
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Answer<v1::CancelOperationResponse> {
        let id = selected(request.into_inner().operations);
        Ok(Response::new(v1::CancelOperationResponse { operations: vec![operation(of_id(&id), State::Cancelling, 5)] }))
    }

    async fn forget_operation(
        &self,
        request: Request<v1::ForgetOperationRequest>,
    ) -> Answer<v1::ForgetOperationResponse> {
        let request = request.into_inner();
        assert_eq!(request.id, request.confirm);
        let operation = Some(operation(of_id(&request.id), State::Cancelled, 5));
        Ok(Response::new(v1::ForgetOperationResponse { operation }))
    }

    async fn force_unfence(&self, _: Request<v1::ForceUnfenceRequest>) -> Answer<v1::ForceUnfenceResponse> {
        not_scripted()
    }

    async fn force_promote(&self, request: Request<v1::ForcePromoteRequest>) -> Answer<v1::ForcePromoteResponse> {
        let request = request.into_inner();
        assert_eq!(request.id, request.confirm);
        let operation = Some(operation(of_id(&request.id), State::Succeeded, 5));
        Ok(Response::new(v1::ForcePromoteResponse { operation }))
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let user = token.and_then(|value| value.strip_prefix("Bearer secret-of-")).unwrap_or("nobody");
        let groups = vec!["team".to_owned()];
        let answer =
            v1::WhoAmIResponse { principal: format!("user:{user}"), proof: "token".into(), groups, policy: true };
        Ok(Response::new(answer))
    }

    async fn check_access(&self, request: Request<v1::CheckAccessRequest>) -> Answer<v1::CheckAccessResponse> {
        let v1::CheckAccessRequest { principal, action, resource } = request.into_inner();
        let policies = if action == "read" { vec!["readers".to_owned()] } else { Vec::new() };
        let principal = format!("user:{principal}");
        Ok(Response::new(v1::CheckAccessResponse { allowed: action == "read", policies, principal, action, resource }))
    }

    async fn adopt_operations(&self, _: Request<v1::AdoptOperationsRequest>) -> Answer<v1::AdoptOperationsResponse> {
        not_scripted()
    }
}
