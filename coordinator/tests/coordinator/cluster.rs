//! A coordinator with a store of its own, and fake agents of two instances: west, the source, and east.

use std::time::{Duration, Instant};

use causeway_coordinator::{
    Config, Coordinator,
    auth::AuthConfig,
    config::{Limits, StoreAddress},
    store::InstanceRecord,
};
use clap::Parser as _;
use proto::v1::{self, coordinator_client::CoordinatorClient};
use service::{Env, Shutdown, dial::Dialer, serve};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::fakes::{Agent, DEST, SOURCE, World};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub world: World,
    pub source: Agent,
    pub dest: Agent,
    pub limits: Limits,
    pub instances: Vec<InstanceRecord>,
    pub auth: AuthConfig,
    pub client: Client,
    pub address: String,
    header: String,
    running: Option<(tokio::task::JoinHandle<()>, Shutdown)>,
    dir: TempDir,
}

/// A user's client; with a token where callers need one.
pub type Client = CoordinatorClient<InterceptedService<Channel, Bearer>>;

/// Puts a token on every request, if there is one.
#[derive(Clone)]
pub struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A client that shows this header; none for an empty one.
pub fn client(address: &str, header: &str) -> Client {
    let value = (!header.is_empty()).then(|| header.parse().expect("a header's value"));
    CoordinatorClient::with_interceptor(dialer().channel(address).unwrap(), Bearer(value))
}

/// The defaults, but with short times.
pub fn limits() -> Limits {
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        limits: causeway_coordinator::config::LimitArgs,
    }
    let mut limits = Limits::from(&Only::parse_from(["test"]).limits);
    limits.observe_every = Duration::from_millis(10);
    limits.timeouts.question = Duration::from_millis(500);
    limits.timeouts.command = Duration::from_millis(500);
    limits.finish_timeout = Duration::from_millis(500);
    limits
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut Limits)) -> Self {
        // Tests that look again and again are no flood.
        let auth = AuthConfig { requests_per_second: 10_000, requests_at_once: 10_000, ..AuthConfig::default() };
        Self::guarded(auth, "", adjust).await
    }

    /// With callers that are asked who they are; `header` is that of the one who registers the instances.
    pub async fn guarded(auth: AuthConfig, header: &str, adjust: impl FnOnce(&mut Limits)) -> Self {
        let world = World::default();
        let mut limits = limits();
        adjust(&mut limits);
        let source = Agent::start(&world, SOURCE, "west").await;
        let dest = Agent::start(&world, DEST, "east").await;
        let address = "127.0.0.1:1".to_owned();
        let nobody = client(&address, header);
        let dir = tempfile::tempdir().unwrap();
        let instances = Vec::new();
        let (client, header) = (nobody, header.to_owned());
        let mut cluster =
            Self { world, source, dest, limits, instances, auth, client, address, header, running: None, dir };
        cluster.up().await;
        cluster.register().await;
        cluster
    }

    /// Start a coordinator on the store.
    pub async fn up(&mut self) {
        let env = Env::real();
        let store = StoreAddress::Redb(self.dir.path().join("store.redb"));
        let config =
            Config { store, limits: self.limits.clone(), instances: self.instances.clone(), auth: self.auth.clone() };
        // The one before may still be letting go of the store.
        let begun = Instant::now();
        let coordinator = loop {
            match Coordinator::open(env.clone(), None, config.clone()).await {
                Ok(coordinator) => break coordinator,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let listener = serve::bind(&env, "127.0.0.1:0", false).await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        let shutdown = Shutdown::new();
        let run = coordinator.run(listener, shutdown.clone());
        let task = tokio::spawn(async move { run.await.unwrap() });
        self.running = Some((task, shutdown));
        self.client = client(&self.address, &self.header);
    }

    /// The coordinator is gone in the middle of whatever it does.
    pub async fn crash(&mut self) {
        let (task, _) = self.running.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub async fn crash_and_restart(&mut self) {
        self.crash().await;
        self.up().await;
    }

    /// The coordinator is asked to stop, and does.
    pub async fn stop(&mut self) {
        let (task, shutdown) = self.running.take().unwrap();
        shutdown.trigger();
        tokio::time::timeout(PATIENCE, task).await.expect("it stops").unwrap();
    }

    async fn register(&mut self) {
        let memory = "memory".to_owned();
        // Where policies are about groups, instances stand in some.
        let group = |name: &str| if self.auth.policy.is_some() { name.to_owned() } else { String::new() };
        let west = v1::Instance {
            name: "west".to_owned(),
            engine: memory.clone(),
            subscription: group("prod"),
            resource_group: group("shop"),
            source_agent: self.source.address.clone(),
            ..Default::default()
        };
        let east = v1::Instance {
            name: "east".to_owned(),
            engine: memory,
            subscription: group("prod"),
            resource_group: group("target"),
            dest_agent: self.dest.address.clone(),
            ..Default::default()
        };
        for instance in [west, east] {
            let request = v1::RegisterInstanceRequest { instance: Some(instance) };
            self.client.clone().register_instance(request).await.unwrap();
        }
    }

    pub fn request(&self, kind: v1::Kind, databases: &[&str]) -> v1::StartOperationRequest {
        for database in databases {
            self.world.put_database("west", database);
        }
        v1::StartOperationRequest {
            kind: kind.into(),
            source: "west".to_owned(),
            destination: "east".to_owned(),
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }
    }

    pub async fn try_start(&self, request: v1::StartOperationRequest) -> Result<Vec<v1::Operation>, Status> {
        Ok(self.client.clone().start_operation(request).await?.into_inner().operations)
    }

    pub async fn start_move(&self, database: &str) -> String {
        let request = self.request(v1::Kind::Move, &[database]);
        self.try_start(request).await.unwrap().remove(0).id
    }

    pub async fn start_copy(&self, database: &str) -> String {
        let request = self.request(v1::Kind::Copy, &[database]);
        self.try_start(request).await.unwrap().remove(0).id
    }

    pub async fn get(&self, id: &str) -> v1::Operation {
        let request = v1::GetOperationRequest { id: id.to_owned() };
        self.client.clone().get_operation(request).await.unwrap().into_inner().operation.unwrap()
    }

    /// Watch the operation until it is as wanted.
    pub async fn until(&self, id: &str, what: &str, wanted: impl Fn(&v1::Operation) -> bool) -> v1::Operation {
        let begun = Instant::now();
        loop {
            let now = self.get(id).await;
            if wanted(&now) {
                return now;
            }
            let ended = now.ended.is_some();
            assert!(!ended && begun.elapsed() < PATIENCE, "never {what}: {now:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_state(&self, id: &str, state: v1::State) -> v1::Operation {
        self.until(id, state.as_str_name(), |now| now.state() == state).await
    }

    /// A move of `shop` whose source is fenced and whose destination never gets the marker.
    pub async fn fenced(&self) -> String {
        let id = self.start_move("shop").await;
        self.ready(&id).await;
        self.world.lock().hold_markers = true;
        self.complete(&id).await;
        self.until_called("source.Fence").await;
        id
    }

    pub async fn ready(&self, id: &str) -> v1::Operation {
        self.until_state(id, v1::State::ReadyForCompletion).await
    }

    pub async fn succeeded(&self, id: &str) -> v1::Operation {
        self.until_state(id, v1::State::Succeeded).await
    }

    pub async fn cancelled(&self, id: &str) -> v1::Operation {
        self.until_state(id, v1::State::Cancelled).await
    }

    /// Waits until an agent was called so.
    pub async fn until_called(&self, call: &str) {
        let begun = Instant::now();
        while self.world.calls_of(call) == 0 {
            assert!(begun.elapsed() < PATIENCE, "{call} is never called");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn try_complete(&self, id: &str, max_freeze_ms: u64) -> Result<v1::Operation, Status> {
        let operations = Some(selector(id));
        let request = v1::CompleteOperationRequest { operations, max_freeze_ms, grace_ms: 0 };
        Ok(self.client.clone().complete_operation(request).await?.into_inner().operations.remove(0))
    }

    pub async fn complete(&self, id: &str) {
        self.try_complete(id, 0).await.unwrap();
    }

    pub async fn try_cancel(&self, id: &str) -> Result<v1::Operation, Status> {
        let request = v1::CancelOperationRequest { operations: Some(selector(id)) };
        Ok(self.client.clone().cancel_operation(request).await?.into_inner().operations.remove(0))
    }

    pub async fn cancel(&self, id: &str) {
        self.try_cancel(id).await.unwrap();
    }

    /// No record of any operation is left at either side, and no invariant was broken.
    pub fn assert_clean(&self) {
        let state = self.world.lock();
        assert_eq!(state.violations, Vec::<String>::new());
        assert!(state.sources.is_empty(), "{:?}", state.sources);
        assert!(state.dests.is_empty(), "{:?}", state.dests);
    }

    pub fn assert_moved(&self, database: &str) {
        assert_eq!(self.world.writable("west", database), None, "dropped at the source");
        assert_eq!(self.world.writable("east", database), Some(true), "online at the destination");
        self.assert_clean();
    }

    pub fn assert_untouched(&self, database: &str) {
        assert_eq!(self.world.writable("west", database), Some(true), "open at the source");
        assert_eq!(self.world.writable("east", database), None, "nothing at the destination");
        self.assert_clean();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.running {
            task.abort();
        }
    }
}

pub fn selector(id: &str) -> v1::OperationSelector {
    v1::OperationSelector { ids: vec![id.to_owned()], ..Default::default() }
}

fn dialer() -> Dialer {
    Dialer::new(Env::real(), None)
}

/// Check code and reason of a refusal.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str) -> Status {
    let status = result.expect_err("it is refused");
    let told = service::status::describe(&status);
    assert_eq!(status.code(), code, "{told}");
    assert_eq!(service::status::reason_of(&status).as_deref(), Some(reason), "{told}");
    status
}
