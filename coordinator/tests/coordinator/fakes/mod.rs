//! Agents that run the real roles over memory instead of over an engine, and fail on demand.

mod dest;
mod source;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use handover::{
    Attempt, Finding, Kind, OperationId, Position, dest_role,
    dest_role::DestRole,
    source_role::{self, SourceRole},
};
use proto::v1::{self, dest_agent_server::DestAgentServer, source_agent_server::SourceAgentServer};
use service::{Env, Shutdown, serve, status::problem};
use tonic::{Code, Response, Status, service::Routes};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not obeyed.
    Fails,
    /// It is obeyed, and the answer lost.
    LosesReply,
    /// It is obeyed twice.
    ComesTwice,
    /// It is obeyed, and never answered.
    Stalls,
    /// It is refused with this reason as a failed precondition.
    Refuses(&'static str),
    /// It is refused with this reason as aborted.
    Aborts(&'static str),
}

pub const SOURCE: &str = "source";
pub const DEST: &str = "dest";

/// Everything both agents of every instance know; one lock, so that a test sees one moment.
#[derive(Default)]
pub struct State {
    pub sources: HashMap<OperationId, SourceRole>,
    pub dests: HashMap<OperationId, DestRole>,
    /// Databases by instance and name, and whether clients may write there.
    pub databases: HashMap<(String, String), bool>,
    pub watermarks: HashMap<(&'static str, String), u64>,
    /// Whether a refusal tells which version is known.
    pub tells_known: bool,
    faults: HashMap<(&'static str, &'static str), VecDeque<Fault>>,
    blocked: HashSet<(&'static str, &'static str)>,
    pub calls: Vec<String>,
    pub hold_seed: bool,
    pub hold_markers: bool,
    pub lag_ms: u64,
    pub lag_bytes: u64,
    pub trouble: Option<(v1::Reason, bool)>,
    pub source_findings: Vec<Finding>,
    pub dest_findings: Vec<Finding>,
    pub hooks_run: u32,
    markers: Vec<(OperationId, Attempt)>,
    pub violations: Vec<String>,
}

#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

impl World {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The next call of this method goes wrong like this.
    pub fn fault(&self, half: &'static str, method: &'static str, fault: Fault) {
        self.lock().faults.entry((half, method)).or_default().push_back(fault);
    }

    /// All calls of this method fail until it is unblocked.
    pub fn block(&self, half: &'static str, method: &'static str) {
        self.lock().blocked.insert((half, method));
    }

    pub fn unblock(&self, half: &'static str, method: &'static str) {
        self.lock().blocked.remove(&(half, method));
    }

    pub fn unused_faults(&self) -> usize {
        self.lock().faults.values().map(VecDeque::len).sum()
    }

    /// A Prepare lands although the operation was discarded, as at an agent that keeps no watermark.
    pub fn late_prepare(&self, id: &str, database: &str) {
        let operation = OperationId::parse(id).unwrap();
        let role = DestRole {
            operation: operation.clone(),
            kind: Kind::Move,
            database: handover::DatabaseName::parse(database).unwrap(),
            token: handover::Token::parse(&"t".repeat(32)).unwrap(),
            source_identity: String::new(),
            incarnation: None,
            source_epoch: handover::Epoch(0),
            version: handover::CommandVersion(0),
            floor: Attempt(0),
            hook: None,
            phase: dest_role::Phase::Seeding,
        };
        self.lock().dests.insert(operation, role);
    }

    pub fn release_seed(&self) {
        self.lock().hold_seed = false;
    }

    pub fn release_markers(&self) {
        let mut state = self.lock();
        state.hold_markers = false;
        state.deliver();
    }

    /// The source agent is restarted before the marker is on its way.
    pub fn lose_markers(&self) {
        let mut state = self.lock();
        state.hold_markers = false;
        state.markers.clear();
    }

    pub fn put_database(&self, instance: &str, database: &str) {
        self.lock().databases.insert((instance.to_owned(), database.to_owned()), true);
    }

    /// Whether clients may write; nothing if there is no such database.
    pub fn writable(&self, instance: &str, database: &str) -> Option<bool> {
        self.lock().databases.get(&(instance.to_owned(), database.to_owned())).copied()
    }

    pub fn calls_of(&self, call: &str) -> usize {
        self.lock().calls.iter().filter(|other| *other == call).count()
    }

    /// Do what a command says, unless something goes wrong.
    async fn obey<T>(
        &self,
        half: &'static str,
        method: &'static str,
        act: impl Fn(&mut State) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let fault = {
            let mut state = self.lock();
            state.calls.push(format!("{half}.{method}"));
            if state.blocked.contains(&(half, method)) {
                return Err(Status::unavailable(format!("{method} is blocked")));
            }
            state.faults.get_mut(&(half, method)).and_then(VecDeque::pop_front)
        };
        let act = || {
            let mut state = self.lock();
            let done = act(&mut state);
            state.deliver();
            state.check();
            done
        };
        match fault {
            None => act().map(Response::new),
            Some(Fault::Fails) => Err(Status::unavailable("it fails")),
            Some(Fault::LosesReply) => {
                let _ = act();
                Err(Status::unavailable("the reply is lost"))
            }
            Some(Fault::ComesTwice) => {
                let _ = act();
                act().map(Response::new)
            }
            Some(Fault::Stalls) => {
                let _ = act();
                std::future::pending().await
            }
            Some(Fault::Refuses(reason)) => Err(refusal(Code::FailedPrecondition, reason, "refused on demand")),
            Some(Fault::Aborts(reason)) => Err(refusal(Code::Aborted, reason, "aborted on demand")),
        }
    }
}

impl State {
    /// A command for an operation without a record must be newer than all that was obeyed for operations now gone.
    fn admit(&self, half: &'static str, instance: &str, version: u64) -> Result<(), Status> {
        let known = self.watermarks.get(&(half, instance.to_owned())).copied().unwrap_or(0);
        if version > known { Ok(()) } else { Err(self.stale(known)) }
    }

    fn raise(&mut self, half: &'static str, instance: &str, version: u64) {
        let mark = self.watermarks.entry((half, instance.to_owned())).or_default();
        *mark = version.max(*mark);
    }

    fn stale(&self, known: u64) -> Status {
        let problem = problem(Code::Aborted, "the command is too old").reason("STALE_VERSION");
        if self.tells_known { problem.meta("known", known.to_string()).status() } else { problem.status() }
    }

    /// The in-band stream: markers reach the destination unless they are held.
    fn deliver(&mut self) {
        if self.hold_markers {
            return;
        }
        for (id, attempt) in std::mem::take(&mut self.markers) {
            let Some(role) = self.dests.get(&id) else { continue };
            let position = Position::parse(&format!("p{attempt}")).unwrap();
            if let Ok(step) = dest_role::step(role, &dest_role::Event::Marker(attempt, position)) {
                self.dests.insert(id, step.next);
            }
        }
    }

    /// Never do both sides of a move accept writes.
    fn check(&mut self) {
        for (id, dest) in &self.dests {
            let primary = matches!(dest.phase, dest_role::Phase::Primary { .. });
            let source = self.sources.get(id);
            let open = source.is_some_and(|source| source.phase == source_role::Phase::Replicating);
            if dest.kind == Kind::Move && primary && open {
                self.violations.push(format!("{id}: two primaries"));
            }
        }
    }
}

fn refusal(code: Code, reason: &str, message: &str) -> Status {
    problem(code, message).reason(reason).remedy("see the test").status()
}

fn unknown(id: &str) -> Status {
    refusal(Code::NotFound, "OPERATION_UNKNOWN", &format!("there is no record of operation {id}"))
}

fn id(text: &str) -> Result<OperationId, Status> {
    OperationId::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A server that runs one half of an instance, and can be taken down.
pub struct Agent {
    pub address: String,
    task: Option<tokio::task::JoinHandle<()>>,
    routes: Routes,
}

impl Agent {
    pub async fn start(world: &World, half: &'static str, instance: &str) -> Self {
        let routes = match half {
            SOURCE => Routes::new(SourceAgentServer::new(source::FakeSource::new(world.clone(), instance))),
            _ => Routes::new(DestAgentServer::new(dest::FakeDest::new(world.clone(), instance))),
        };
        let mut agent = Self { address: "127.0.0.1:0".to_owned(), task: None, routes };
        agent.up().await;
        agent
    }

    /// Listen, at the same address as before.
    pub async fn up(&mut self) {
        let env = Env::real();
        let listener = serve::bind(&env, &self.address, false).await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        let (routes, options) = (self.routes.clone(), serve::ServeOptions::default());
        self.task = Some(tokio::spawn(async move {
            serve::serve(&env, listener, None, routes, &options, Shutdown::new()).await.unwrap();
        }));
    }

    /// Gone, with all its connections.
    pub async fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
