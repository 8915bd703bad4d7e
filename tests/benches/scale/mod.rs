//! Ten thousand operations of a thousand instances on one coordinator: started, watched, listed and completed. Its agents are
//! those of `agents.rs`, in a process of their own; they and the load share the machine's processors with it.

pub mod agents;
mod figures;
mod watchers;

use crate::{Args, peak::MIB, table::Row};
use causeway_tests::{
    binaries,
    server::{Launch, Server},
};
use figures::Times;
use futures::{StreamExt as _, stream};
use proto::v1::{self, State, coordinator_client::CoordinatorClient};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use watchers::Seen;

type Client = CoordinatorClient<Channel>;

const WATCHERS: usize = 200;
/// As many as a start may name, and more than a source runs at once: the rest waits in the queue.
const DATABASES: usize = 10;
const RUNNING_PER_SOURCE: usize = 8;
/// Requests under way at once while operations are started and completed.
const AT_ONCE: usize = 16;
pub const SEEDING: Duration = Duration::from_secs(5);
/// How long a step of the whole may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Runs everything once.
pub fn measure(args: &Args) -> Vec<Row> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(args))
}

/// The coordinator, its agents, and what is asked of it.
struct Bench {
    coordinator: Server,
    _agents: Agents,
    instances: usize,
    store: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

/// A process that ends when this is dropped.
struct Agents(Child);

impl Drop for Agents {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each instance is two connections of the coordinator and as many of its agents: more files than a shell allows as a rule.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("open as many files as the system lets");
}

async fn run(args: &Args) -> Vec<Row> {
    allow_many_files();
    let (bench, addresses) = Bench::start(args);
    let client = bench.client().await;
    bench.register(&client, addresses).await;
    let operations = bench.instances * DATABASES;
    let running = bench.instances * RUNNING_PER_SOURCE;

    let begun = Instant::now();
    let (ids, starts) = bench.start_all(&client).await;
    let starting = begun.elapsed();
    eprintln!("  {operations} operations started in {starting:.1?}");

    let seen = Seen::default();
    let mut watchers = Vec::new();
    for ids in ids.chunks(ids.len().div_ceil(WATCHERS)) {
        let (seen, client, ids) = (seen.clone(), bench.client().await, ids.to_vec());
        watchers.push(tokio::spawn(async move { seen.watch(client, ids).await }));
    }
    let prober = Prober::start(&client, &ids);
    seen.until(running, &[State::ReadyForCompletion], PATIENCE).await;
    let becoming_ready = begun.elapsed();
    eprintln!("  {running} are ready after {becoming_ready:.1?}");
    let busy = prober.take();

    let (before, messages) = (bench.coordinator.processor_seconds(), seen.messages());
    let pause = Duration::from_secs(args.scale_seconds);
    tokio::time::sleep(pause).await;
    let cores = (bench.coordinator.processor_seconds() - before) / pause.as_secs_f64();
    let told = (seen.messages() - messages) as f64 / pause.as_secs_f64();
    let calm = prober.take();

    let begun = Instant::now();
    let completions = complete_all(&client, &seen, operations).await;
    let completing = begun.elapsed();
    let ending = prober.stop().await;
    for watcher in watchers {
        watcher.await.expect("a watcher sees all operations end");
    }
    eprintln!("  all have succeeded after {completing:.1?}");

    let per_second = |took: Duration| format!("{:.0} operations/s", operations as f64 / took.as_secs_f64());
    let size = std::fs::metadata(&bench.store).expect("the store").len() as f64 / MIB;
    let mut rows = vec![
        Row::of(format!("start of {operations} operations, {DATABASES} a request"), per_second(starting)),
        Row::of("the start request, median and p99", starts.words()),
        Row::of(
            format!("until {running} of them are ready, a seed taking {SEEDING:?}"),
            format!("{becoming_ready:.1?}"),
        ),
        Row::of("completion of all, the queue among them", per_second(completing)),
        Row::of("the completion request, median and p99", completions.words()),
        Row::of(format!("from there to the news at one of {WATCHERS} watchers"), seen.news().words()),
    ];
    for (when, probes) in [("while seeding", busy), ("while all are ready", calm), ("while completing", ending)] {
        rows.push(Row::of(format!("get, median and p99, {when}"), probes.get.words()));
        rows.push(Row::of(format!("list of 100, median and p99, {when}"), probes.list.words()));
        rows.push(Row::of(format!("list of one source, median and p99, {when}"), probes.filtered.words()));
    }
    rows.extend([
        Row::of(format!("processors taken while {running} are ready and watched"), format!("{cores:.2}")),
        Row::of("news to watchers meanwhile", format!("{told:.0}/s")),
        Row::of("peak RSS of the coordinator", format!("{:.0} MiB", bench.coordinator.peak_rss_bytes() as f64 / MIB)),
        Row::of(format!("store of {operations} ended operations"), format!("{size:.0} MiB")),
    ]);
    rows
}

impl Bench {
    fn start(args: &Args) -> (Self, Vec<String>) {
        let instances = usize::from(args.scale_instances);
        let mut child = Command::new(std::env::current_exe().expect("know the running program"))
            .arg(format!("--serve-agents={instances}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the agents");
        let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let addresses: Vec<String> = out.lines().take(instances).map(|line| line.expect("an address")).collect();
        let dir = match &args.dir {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        };
        let dir = dir.expect("a directory for the store");
        let store = dir.path().join("coordinator.redb");
        let flags = ["--insecure", "--active-max=100000", "--requests-per-second=100000", "--requests-at-once=100000"];
        let mut arguments: Vec<String> = flags.map(str::to_owned).to_vec();
        arguments.push(format!("--running-per-source={RUNNING_PER_SOURCE}"));
        arguments.push(format!("--store=redb:{}", store.display()));
        let coordinator = Server::start(Launch {
            program: binaries::path("causeway-coordinator"),
            args: arguments,
            wrapper: Vec::new(),
            host: "127.0.0.1".to_owned(),
            log: dir.path().join("coordinator.log"),
            env: Vec::new(),
        });
        (Self { coordinator, _agents: Agents(child), instances, store, _dir: dir }, addresses)
    }

    async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.coordinator.address())).expect("an address");
        CoordinatorClient::new(endpoint.connect().await.expect("connect"))
    }

    async fn register(&self, client: &Client, addresses: Vec<String>) {
        let registered = addresses.into_iter().enumerate().map(|(n, address)| {
            let mut client = client.clone();
            let instance = v1::Instance {
                name: agents::name(n),
                engine: agents::ENGINE.to_owned(),
                source_agent: address.clone(),
                dest_agent: address,
                ..Default::default()
            };
            async move {
                let request = v1::RegisterInstanceRequest { instance: Some(instance) };
                client.register_instance(request).await.expect("register");
            }
        });
        stream::iter(registered).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    /// Every instance is the source of some operations and the destination of as many.
    async fn start_all(&self, client: &Client) -> (Vec<String>, Times) {
        let databases: Vec<String> = (0..DATABASES).map(|n| format!("database-{n}")).collect();
        let requests = (0..self.instances).map(|n| v1::StartOperationRequest {
            kind: v1::Kind::Move.into(),
            source: agents::name(n),
            destination: agents::name((n + 1) % self.instances),
            databases: databases.iter().map(|name| format!("{name}-of-{n}")).collect(),
            ..Default::default()
        });
        let started = requests.map(|request| {
            let mut client = client.clone();
            async move {
                let begun = Instant::now();
                let started = client.start_operation(request).await.expect("start").into_inner();
                (begun.elapsed(), started.operations)
            }
        });
        let started: Vec<_> = stream::iter(started).buffer_unordered(AT_ONCE).collect().await;
        let mut times = Times::default();
        let mut ids = Vec::new();
        for (took, operations) in started {
            times.add(took);
            ids.extend(operations.into_iter().map(|operation| operation.id));
        }
        (ids, times)
    }
}

/// Completes whatever is ready, until all have succeeded.
async fn complete_all(client: &Client, seen: &Seen, operations: usize) -> Times {
    let workers = (0..AT_ONCE).map(|_| {
        let (mut client, seen) = (client.clone(), seen.clone());
        tokio::spawn(async move {
            let mut times = Times::default();
            while seen.count(&[State::Succeeded]) < operations {
                let Some(id) = seen.next_ready() else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let selector = v1::OperationSelector { ids: vec![id], ..Default::default() };
                let request =
                    v1::CompleteOperationRequest { operations: Some(selector), max_freeze_ms: 0, grace_ms: 0 };
                let begun = Instant::now();
                client.complete_operation(request).await.expect("complete");
                times.add(begun.elapsed());
            }
            times
        })
    });
    let workers: Vec<_> = workers.collect();
    seen.until(operations, &[State::Succeeded], PATIENCE).await;
    let mut all = Times::default();
    for worker in workers {
        all.merge(worker.await.expect("a worker completes what is ready"));
    }
    all
}

/// Asks all the time, not much.
struct Prober {
    probes: Arc<Mutex<Probes>>,
    stopped: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Probes {
    get: Times,
    list: Times,
    filtered: Times,
}

impl Prober {
    fn start(client: &Client, ids: &[String]) -> Self {
        let (probes, stopped) = (Arc::<Mutex<Probes>>::default(), Arc::<AtomicBool>::default());
        let (mut client, ids) = (client.clone(), ids.to_vec());
        let (told, over) = (probes.clone(), stopped.clone());
        let task = tokio::spawn(async move {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                // Far from one another, as it comes.
                n = (n + 6_151) % ids.len();
                let begun = Instant::now();
                client.get_operation(v1::GetOperationRequest { id: ids[n].clone() }).await.expect("get");
                let got = begun.elapsed();
                let begun = Instant::now();
                client.list_operations(v1::ListOperationsRequest::default()).await.expect("list");
                let listed = begun.elapsed();
                let begun = Instant::now();
                let source = agents::name(n / DATABASES);
                let request = v1::ListOperationsRequest { source, ..Default::default() };
                client.list_operations(request).await.expect("list");
                let filtered = begun.elapsed();
                {
                    let mut probes = told.lock().expect("no holder of this lock panics");
                    probes.get.add(got);
                    probes.list.add(listed);
                    probes.filtered.add(filtered);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { probes, stopped, task }
    }

    /// What was measured since it was last taken.
    fn take(&self) -> Probes {
        std::mem::take(&mut *self.probes.lock().expect("no holder of this lock panics"))
    }

    async fn stop(mut self) -> Probes {
        self.stopped.store(true, Ordering::Relaxed);
        (&mut self.task).await.expect("its requests are answered");
        self.take()
    }
}
