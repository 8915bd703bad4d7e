//! Agents of a thousand instances in one process: they answer as agents do whose databases all take the same time to seed, and
//! touch nothing. What is measured is the coordinator.

use proto::v1::{
    self,
    dest_agent_server::{DestAgent, DestAgentServer},
    source_agent_server::{SourceAgent, SourceAgentServer},
};
use service::{Env, Shutdown, serve, status::problem};
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tonic::{Code, Request, Response, Status, service::Routes};

/// Of each database.
const SEED_BYTES: u64 = 64 << 20;
/// What the agents stand for.
pub const ENGINE: &str = "memory";

/// Serves `count` instances, says at which addresses, one a line, and goes on until nobody holds its standard input any more.
pub fn run(count: usize, seeding: Duration) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let world = Arc::new(World { seeding, operations: Mutex::default() });
        let mut out = String::new();
        for n in 0..count {
            let instance = Instance { name: name(n), world: world.clone() };
            let routes =
                Routes::new(SourceAgentServer::new(instance.clone())).add_service(DestAgentServer::new(instance));
            let env = Env::real();
            let listener = serve::bind(&env, "127.0.0.1:0", false).await.expect("bind");
            out.push_str(&format!("{}\n", listener.local_addr().expect("a bound address")));
            tokio::spawn(async move {
                let options = serve::ServeOptions::default();
                serve::serve(&env, listener, None, routes, &options, Shutdown::new()).await.expect("serve");
            });
        }
        std::io::stdout().write_all(out.as_bytes()).expect("tell the addresses");
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        let _ = ended.await;
    });
    runtime.shutdown_background();
}

/// The name of an instance.
pub fn name(n: usize) -> String {
    format!("instance-{n:04}")
}

struct World {
    seeding: Duration,
    operations: Mutex<HashMap<String, Operation>>,
}

/// Both roles of an operation; each half forgets its own.
#[derive(Default)]
struct Operation {
    begun: Option<Instant>,
    prepared: bool,
    fenced: u32,
    primary: u32,
    changed: Arc<Notify>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Operation>> {
        self.operations.lock().expect("no holder of this lock panics")
    }

    /// Looks at an operation that is known, or changes it.
    fn of<T>(&self, id: &str, act: impl FnOnce(&mut Operation) -> T) -> Result<T, Status> {
        let unknown =
            || problem(Code::NotFound, format!("there is no operation {id}")).reason("OPERATION_UNKNOWN").status();
        self.lock().get_mut(id).map(act).ok_or_else(unknown)
    }

    /// Closes the source for an attempt, or opens it: attempt 0.
    fn fence(&self, id: &str, attempt: u32) -> Result<(), Status> {
        self.of(id, |operation| {
            operation.fenced = attempt;
            operation.changed.notify_waiters();
        })
    }

    /// How much of the seed is there.
    fn seeded(&self, operation: &Operation) -> u64 {
        let Some(begun) = operation.begun else { return 0 };
        let share = begun.elapsed().as_secs_f64() / self.seeding.as_secs_f64().max(0.001);
        (share.min(1.0) * SEED_BYTES as f64) as u64
    }
}

#[derive(Clone)]
struct Instance {
    name: String,
    world: Arc<World>,
}

impl Instance {
    fn describe(&self, agent: &str) -> Answer<v1::DescribeResponse> {
        Ok(Response::new(v1::DescribeResponse {
            agent: agent.to_owned(),
            instance: self.name.clone(),
            engine: ENGINE.to_owned(),
            protocol: proto::PROTOCOL,
            ..Default::default()
        }))
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("the bench does without"))
}

#[tonic::async_trait]
impl SourceAgent for Instance {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Answer<v1::DescribeResponse> {
        self.describe("source")
    }

    async fn list_databases(
        &self,
        _: Request<v1::AgentListDatabasesRequest>,
    ) -> Answer<v1::AgentListDatabasesResponse> {
        unused()
    }

    async fn preflight(&self, _: Request<v1::SourcePreflightRequest>) -> Answer<v1::SourcePreflightResponse> {
        let seed_bytes = SEED_BYTES;
        Ok(Response::new(v1::SourcePreflightResponse { seed_bytes, ..Default::default() }))
    }

    async fn begin(&self, request: Request<v1::BeginRequest>) -> Answer<v1::BeginResponse> {
        let id = request.into_inner().operation;
        self.world.lock().entry(id).or_default().begun.get_or_insert_with(Instant::now);
        Ok(Response::new(v1::BeginResponse {}))
    }

    async fn get_status(&self, request: Request<v1::SourceStatusRequest>) -> Answer<v1::SourceStatus> {
        let status = self.world.of(&request.into_inner().operation, |operation| {
            let sent = self.world.seeded(operation);
            let progress = v1::Progress {
                seed_bytes_total: SEED_BYTES,
                seed_bytes_sent: sent,
                generation: 1,
                ..Default::default()
            };
            v1::SourceStatus {
                phase: if operation.fenced > 0 { "fenced" } else { "replicating" }.to_owned(),
                attempt: operation.fenced,
                progress: Some(progress),
                connected: true,
                seeded: sent == SEED_BYTES,
                ..Default::default()
            }
        })?;
        Ok(Response::new(status))
    }

    async fn fence(&self, request: Request<v1::FenceRequest>) -> Answer<v1::FenceResponse> {
        let request = request.into_inner();
        self.world.fence(&request.operation, request.attempt)?;
        Ok(Response::new(v1::FenceResponse { position: "fence".to_owned(), fenced_unix_us: 0 }))
    }

    async fn mark(&self, request: Request<v1::MarkRequest>) -> Answer<v1::MarkResponse> {
        let request = request.into_inner();
        self.world.fence(&request.operation, request.attempt)?;
        Ok(Response::new(v1::MarkResponse { position: "mark".to_owned() }))
    }

    async fn unfence(&self, request: Request<v1::UnfenceRequest>) -> Answer<v1::UnfenceResponse> {
        self.world.fence(&request.into_inner().operation, 0)?;
        Ok(Response::new(v1::UnfenceResponse {}))
    }

    async fn release(&self, _: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseResponse> {
        Ok(Response::new(v1::ReleaseResponse {}))
    }

    async fn cleanup(&self, request: Request<v1::CleanupRequest>) -> Answer<v1::CleanupResponse> {
        let id = request.into_inner().operation;
        let mut operations = self.world.lock();
        if operations.get_mut(&id).is_some_and(|operation| operation.begun.take().is_some() && !operation.prepared) {
            operations.remove(&id);
        }
        Ok(Response::new(v1::CleanupResponse {}))
    }

    async fn force_unfence(&self, _: Request<v1::ForceUnfenceCommand>) -> Answer<v1::UnfenceResponse> {
        unused()
    }
}

#[tonic::async_trait]
impl DestAgent for Instance {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Answer<v1::DescribeResponse> {
        self.describe("dest")
    }

    async fn list_databases(
        &self,
        _: Request<v1::AgentListDatabasesRequest>,
    ) -> Answer<v1::AgentListDatabasesResponse> {
        unused()
    }

    async fn purge(&self, _: Request<v1::PurgeRequest>) -> Answer<v1::PurgeResponse> {
        unused()
    }

    async fn preflight(&self, _: Request<v1::DestPreflightRequest>) -> Answer<v1::DestPreflightResponse> {
        Ok(Response::new(v1::DestPreflightResponse { findings: Vec::new() }))
    }

    async fn prepare(&self, request: Request<v1::PrepareRequest>) -> Answer<v1::PrepareResponse> {
        self.world.lock().entry(request.into_inner().operation).or_default().prepared = true;
        Ok(Response::new(v1::PrepareResponse {}))
    }

    async fn get_status(&self, request: Request<v1::DestStatusRequest>) -> Answer<v1::DestStatus> {
        let status = self.world.of(&request.into_inner().operation, |operation| {
            let done = self.world.seeded(operation);
            let phase = match operation.primary {
                0 if done < SEED_BYTES => "seeding",
                0 => "replica",
                _ => "primary",
            };
            let progress = v1::Progress { seed_bytes_done: done, generation: 1, ..Default::default() };
            v1::DestStatus {
                phase: phase.to_owned(),
                attempt: operation.primary,
                progress: Some(progress),
                ..Default::default()
            }
        })?;
        Ok(Response::new(status))
    }

    async fn promote(&self, request: Request<v1::PromoteRequest>) -> Answer<v1::PromoteResponse> {
        let request = request.into_inner();
        let until = tokio::time::Instant::now() + Duration::from_millis(request.wait_ms);
        let changed = self.world.of(&request.operation, |operation| operation.changed.clone())?;
        loop {
            let news = changed.notified();
            tokio::pin!(news);
            // From here on no change is missed.
            news.as_mut().enable();
            let promoted = self.world.of(&request.operation, |operation| {
                let fenced = operation.fenced == request.attempt;
                if fenced {
                    operation.primary = request.attempt;
                }
                fenced
            })?;
            if promoted {
                return Ok(Response::new(v1::PromoteResponse { online_unix_us: 0 }));
            }
            if tokio::time::timeout_at(until, news).await.is_err() {
                return Err(problem(Code::FailedPrecondition, "not yet").reason("NOT_PREPARED").status());
            }
        }
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Answer<v1::AbortResponse> {
        let primary = self.world.of(&request.into_inner().operation, |operation| operation.primary > 0)?;
        let decision = if primary { v1::Decision::Promoted } else { v1::Decision::Aborted };
        Ok(Response::new(v1::AbortResponse { decision: decision.into() }))
    }

    async fn discard(&self, _: Request<v1::DiscardRequest>) -> Answer<v1::DiscardResponse> {
        Ok(Response::new(v1::DiscardResponse { decision: v1::Decision::Aborted.into() }))
    }

    async fn finish(&self, _: Request<v1::FinishRequest>) -> Answer<v1::FinishResponse> {
        Ok(Response::new(v1::FinishResponse { on_online: None }))
    }

    async fn forget(&self, request: Request<v1::ForgetRequest>) -> Answer<v1::ForgetResponse> {
        let id = request.into_inner().operation;
        let mut operations = self.world.lock();
        if operations.get_mut(&id).is_some_and(|operation| {
            operation.prepared = false;
            operation.begun.is_none()
        }) {
            operations.remove(&id);
        }
        Ok(Response::new(v1::ForgetResponse {}))
    }

    async fn force_promote(&self, _: Request<v1::ForcePromoteCommand>) -> Answer<v1::PromoteResponse> {
        unused()
    }
}
