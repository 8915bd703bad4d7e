//! A server with a database `shop`, an engine, and a destination that only remembers.

use super::super::{Limits, PostgresSource, names::Names};
use crate::{
    Result,
    host::{Host, RealHost},
    postgres::{
        config::Setup,
        payload::{Extra, LogPayload, PlanHeader, decode},
        testing::Cluster,
    },
    source::{Held, HeldPart, LogBatch, Plan, SourceEngine as _, SourceStream},
};
use bytes::Bytes;
use handover::{
    Attempt, CommandVersion, DatabaseName, Kind, OperationId, Position, Token,
    source_role::{Event, Phase, SourceRole, step},
};
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub(super) const SHOP: &str = "shop";

pub(super) struct Rig {
    pub(super) cluster: Cluster,
    pub(super) source: PostgresSource,
    pub(super) role: Option<SourceRole>,
    pub(super) limits: Limits,
    pub(super) setup: Setup,
    pub(super) disk: Arc<Disk>,
    version: u64,
}

impl Rig {
    pub(super) async fn new(schema: &str) -> Self {
        Self::with("", schema).await
    }

    pub(super) async fn with(settings: &str, schema: &str) -> Self {
        let cluster = Cluster::start(settings);
        cluster.run("postgres", "CREATE ROLE app LOGIN").await;
        cluster.run("postgres", "CREATE DATABASE shop OWNER app").await;
        cluster.run(SHOP, schema).await;
        let limits = Limits {
            slot_wait: Duration::from_secs(2),
            holder_quiet: Duration::from_secs(2),
            end_wait: Duration::from_secs(3),
        };
        let setup = cluster.setup();
        let disk = Arc::new(Disk(Mutex::new(Some(1 << 40))));
        let source = engine(&setup, limits, &disk);
        source.take_over().await.expect("take over");
        Self { cluster, source, role: None, limits, setup, disk, version: 1 }
    }

    pub(super) fn version(&mut self) -> CommandVersion {
        self.version += 1;
        CommandVersion(self.version)
    }

    pub(super) fn role(&self) -> SourceRole {
        self.role.clone().expect("an operation has begun")
    }

    pub(super) fn names(&self) -> Names {
        Names::of(&self.role().operation)
    }

    /// A role for the database as it is; nothing is begun.
    pub(super) async fn invent(&mut self, kind: Kind) -> SourceRole {
        let name = DatabaseName::parse(SHOP).expect("a name");
        let facts = self.source.preflight(&name, kind, None).await.expect("examine");
        let version = self.version();
        let role = SourceRole {
            operation: OperationId::parse(&format!("op-{version}")).expect("an id"),
            kind,
            database: name,
            token: Token::parse("0123456789abcdef0123456789abcdef").expect("a token"),
            dest_address: "127.0.0.1:1".to_owned(),
            dest_identity: String::new(),
            log_budget_bytes: 0,
            incarnation: facts.incarnation,
            version,
            floor: Attempt(0),
            phase: Phase::Replicating,
        };
        self.role = Some(role.clone());
        role
    }

    pub(super) async fn begin(&mut self, kind: Kind) -> SourceRole {
        let role = self.invent(kind).await;
        self.source.begin(&role).await.expect("begin");
        role
    }

    /// The agent is killed and started again.
    pub(super) async fn restart(&mut self) {
        self.source = engine(&self.setup, self.limits, &self.disk);
        self.source.take_over().await.expect("take over");
    }

    pub(super) async fn open(&self) -> Arc<dyn SourceStream> {
        self.source.open(&self.role()).await.expect("open")
    }

    /// Opens a stream, reads the whole seed, and passes over it: what follows is log.
    pub(super) async fn seeded(&self) -> (Arc<dyn SourceStream>, Seed) {
        let stream = self.open().await;
        let seed = Seed::read(&*stream, &Held::default()).await;
        stream.seed_done().await.expect("the seed can be trusted");
        (stream, seed)
    }

    pub(super) async fn fence(&mut self, attempt: u32, grace: Duration) -> Result<Position> {
        let event = Event::Fence(self.version(), Attempt(attempt));
        let mut role = step(&self.role(), &event).expect("can be fenced").next;
        let fenced = self.source.fence(&mut role, grace).await;
        self.role = Some(role.clone());
        match &fenced {
            Ok(position) => {
                let durable = Event::FenceDurable(Attempt(attempt), position.clone());
                self.record(step(&role, &durable).expect("fencing").next).await;
            }
            Err(crate::Error::Busy(_)) => {
                self.record(step(&role, &Event::FenceGaveUp(Attempt(attempt))).expect("fencing").next).await;
            }
            Err(_) => {}
        }
        fenced
    }

    async fn record(&mut self, role: SourceRole) {
        self.source.put_role(&role).await.expect("record");
        self.role = Some(role);
    }

    pub(super) async fn unfence(&mut self, attempt: u32) {
        let role = self.role();
        let next = step(&role, &Event::Reopened(Attempt(attempt))).expect("fenced").next;
        self.source.unfence(&role, &next).await.expect("unfence");
        self.role = Some(next);
    }

    pub(super) async fn release(&mut self, attempt: u32) -> Result<()> {
        let role = step(&self.role(), &Event::Release(self.version(), Attempt(attempt))).expect("can be released").next;
        self.source.put_role(&role).await.expect("record");
        self.role = Some(role.clone());
        self.source.release(&role, "east").await
    }

    pub(super) async fn cleanup(&mut self) {
        let version = self.version();
        let role = step(&self.role(), &Event::Cleanup(version)).expect("can be cleaned up").next;
        self.source.put_role(&role).await.expect("record");
        self.source.cleanup(&role).await.expect("clean up");
        self.source.cleanup(&role).await.expect("clean up again");
        self.source.remove_role(&role.operation, version).await.expect("forget");
    }

    /// Everything of ours that is left in the instance.
    pub(super) async fn leftovers(&self) -> Vec<String> {
        let all = "SELECT 'slot ' || slot_name FROM pg_replication_slots
             UNION ALL SELECT 'session ' || application_name FROM pg_stat_activity WHERE application_name LIKE 'causeway snapshot%'
             UNION ALL SELECT 'record ' || operation FROM causeway.role UNION ALL SELECT 'memo ' || operation FROM causeway.memo
             UNION ALL SELECT 'closed ' || datname FROM pg_database WHERE datname = 'shop' AND (NOT datallowconn OR datconnlimit <> -1)";
        let mut left = self.cluster.column("postgres", all).await;
        let there = "SELECT datname FROM pg_database WHERE datname = 'shop' AND datallowconn";
        if !self.cluster.column("postgres", there).await.is_empty() {
            let inside = "SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE 'causeway%'
                 UNION ALL SELECT 'trigger ' || evtname FROM pg_event_trigger
                 UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'causeway'
                 UNION ALL SELECT 'identity ' || relname FROM pg_class WHERE relreplident = 'f'";
            left.extend(self.cluster.column(SHOP, inside).await);
        }
        left
    }
}

/// The real world, but for a disk that has as much room as it is told to have.
pub(super) struct Disk(Mutex<Option<u64>>);

impl Disk {
    /// From now on so many bytes are free, or nobody can see how many. What was seen before is forgotten.
    pub(super) async fn tell(&self, free: Option<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = free;
        tokio::time::sleep(super::super::budget::LOOK_EVERY).await;
    }
}

impl Host for Disk {
    fn now_ms(&self) -> i64 {
        RealHost.now_ms()
    }

    fn monotonic(&self) -> Duration {
        RealHost.monotonic()
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) {
        RealHost.blocking(job);
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let free = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))
    }
}

pub(super) fn engine(setup: &Setup, limits: Limits, disk: &Arc<Disk>) -> PostgresSource {
    let config = crate::postgres::PostgresConfig::new(setup.clone()).expect("the settings are good");
    PostgresSource::with(config, disk.clone(), limits)
}

/// A seed as it was read.
pub(super) struct Seed {
    pub(super) plan: Plan,
    pub(super) header: PlanHeader,
    pub(super) parts: Vec<Bytes>,
    pub(super) rows: u64,
}

/// Small, so that parts have several chunks.
pub(super) const CHUNK: usize = 4096;

impl Seed {
    pub(super) async fn read(stream: &dyn SourceStream, held: &Held) -> Self {
        let plan = stream.plan(held).await.expect("plan");
        let header = decode(&plan.header).expect("a header");
        let mut seed = Self { header, parts: vec![], rows: 0, plan };
        for part in seed.plan.parts.clone() {
            let (bytes, rows) = read_part(stream, part.part, 0).await;
            seed.parts.push(bytes);
            seed.rows += rows;
        }
        seed
    }

    /// What a destination holds that has all of it.
    pub(super) fn held(&self, log: Option<Position>) -> Held {
        let parts = self.plan.parts.iter();
        let parts = parts.map(|p| HeldPart { part: p.part, durable: u64::MAX, done: true }).collect();
        Held { generation: self.plan.generation, parts, seeded: true, log }
    }
}

/// A part from an offset to its end.
pub(super) async fn read_part(stream: &dyn SourceStream, part: u32, mut offset: u64) -> (Bytes, u64) {
    let (mut bytes, mut rows) = (vec![], 0);
    loop {
        let chunk = stream.chunk(part, offset, CHUNK, None).await.expect("read a chunk");
        assert_eq!(chunk.next_offset, offset + chunk.payload.len() as u64);
        bytes.extend_from_slice(&chunk.payload);
        rows += chunk.rows;
        offset = chunk.next_offset;
        if chunk.last {
            return (bytes.into(), rows);
        }
    }
}

/// Log from a position up to another.
pub(super) async fn read_log(stream: &dyn SourceStream, mut at: Position, until: &Position) -> Vec<LogBatch> {
    let mut batches = vec![];
    while at != *until {
        let batch = tokio::time::timeout(Duration::from_secs(20), stream.log(&at, 1 << 20, Some(until)));
        let batch = batch.await.expect("log arrives").expect("read log");
        assert_eq!(batch.from, at);
        at = batch.to.clone();
        batches.push(batch);
    }
    batches
}

/// The extras among batches, and how many bytes of changes there are.
pub(super) fn extras(batches: &[LogBatch]) -> (Vec<(Extra, Bytes)>, usize) {
    let (mut extras, mut changes) = (vec![], 0);
    for batch in batches {
        match LogPayload::read(batch.payload.clone()).expect("a payload") {
            LogPayload::Extra(extra, raw) => extras.push((extra, raw)),
            LogPayload::Changes(bytes) => changes += bytes.len(),
        }
    }
    (extras, changes)
}

/// Whether some bytes have a text in them.
pub(super) fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

impl Rig {
    /// The stream of an operation whose destination has the seed already, or a first one.
    pub(super) async fn seeded_or_resumed(&self) -> (Arc<dyn SourceStream>, Plan) {
        let stream = self.open().await;
        let held = Held { generation: 1, seeded: true, ..Held::default() };
        match stream.plan(&held).await {
            Ok(plan) if plan.generation == 1 => {
                stream.seed_done().await.expect("the seed can be trusted");
                (stream, plan)
            }
            other => panic!("{other:?}"),
        }
    }
}
