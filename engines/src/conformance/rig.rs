//! What the cases are made of: two instances, a client, an operation, and a transfer without a network.

use crate::{
    Error, Result,
    dest::{DestEngine, DestReplica},
    source::{Plan, SourceEngine, SourceStream},
};
use async_trait::async_trait;
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position, Token,
    dest_role::{self, DestRole},
    source_role::{self, SourceRole},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What an engine has to give to be tried.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A source engine as a newly started agent has it; any earlier one is gone as after `kill -9`, unless the case keeps it.
    fn source(&mut self) -> Arc<dyn SourceEngine>;
    /// A destination engine, likewise.
    fn dest(&mut self) -> Arc<dyn DestEngine>;
    /// The database that a client has made at the source.
    fn database(&self) -> DatabaseName;
    /// A client writes a row at the source (`None` removes it); false if it is refused.
    async fn write(&self, key: &str, value: Option<&str>) -> bool;
    /// A client writes a row at the destination; false if it is refused.
    async fn write_at_dest(&self, key: &str, value: &str) -> bool;
    /// All rows that a client reads at the source.
    async fn rows(&self) -> BTreeMap<String, String>;
    /// All rows that a client reads at the destination.
    async fn rows_at_dest(&self) -> BTreeMap<String, String>;
    /// While no agent runs: makes it impossible to continue the log. False if nothing can, because there is no log to lose.
    async fn lose_log(&self) -> bool;
    /// Files or records of any operation that are left, at either side.
    fn leftovers(&self) -> Vec<String>;
    /// Exchanges the roles of the two instances; what each holds stays.
    fn swap(&mut self);
}

/// A harness with an operation.
pub struct Rig {
    /// The harness.
    pub harness: Box<dyn Harness>,
    /// The source engine, with its lock taken.
    pub source: Arc<dyn SourceEngine>,
    /// The destination engine, with its lock taken.
    pub dest: Arc<dyn DestEngine>,
    /// The source's stream, which lives as long as its agent.
    stream: Option<Arc<dyn SourceStream>>,
    /// The source's role.
    pub source_role: Option<SourceRole>,
    /// The destination's role.
    pub dest_role: Option<DestRole>,
    version: u64,
}

/// The two open ends of a transfer.
pub struct Pipe {
    /// The reading end.
    pub stream: Arc<dyn SourceStream>,
    /// The writing end.
    pub replica: Arc<dyn DestReplica>,
    /// The plan in force.
    pub plan: Plan,
    /// How many chunk bytes went through.
    pub sent: u64,
}

/// Chunks are small here, so that there are several.
const CHUNK: usize = 4096;

/// A case that waits this long for log has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Log that a client has just committed is there within this.
const A_LITTLE: Duration = Duration::from_millis(500);

impl Rig {
    /// Takes both locks and writes some rows.
    pub async fn new(harness: impl Harness + 'static) -> Rig {
        let mut harness: Box<dyn Harness> = Box::new(harness);
        for number in 0..200 {
            assert!(harness.write(&format!("k{number}"), Some(&"v".repeat(number))).await);
        }
        let (source, dest) = (harness.source(), harness.dest());
        source.take_over().await.expect("take the source lock");
        dest.take_over().await.expect("take the destination lock");
        Rig { harness, source, dest, stream: None, source_role: None, dest_role: None, version: 1 }
    }

    /// The next command version.
    pub fn version(&mut self) -> CommandVersion {
        self.version += 1;
        CommandVersion(self.version)
    }

    /// The operation's source role.
    pub fn role(&self) -> SourceRole {
        self.source_role.clone().expect("the operation has begun")
    }

    /// The operation's destination role.
    pub fn dest_role(&self) -> DestRole {
        self.dest_role.clone().expect("the operation has begun")
    }

    /// Begins an operation at both sides.
    pub async fn begin(&mut self, kind: Kind) {
        let database = self.harness.database();
        let version = self.version();
        let operation = OperationId::parse(&format!("op-{version}")).expect("an id");
        let facts = self.source.preflight(&database, kind, Some(&operation)).await.expect("examine the source");
        assert_eq!(facts.findings.iter().find(|f| f.severity == handover::Severity::Error), None);
        let judged = self.dest.preflight(&database, &facts.requirements, Some(&operation)).await.expect("judge it");
        assert_eq!(judged.iter().find(|f| f.severity == handover::Severity::Error), None);
        let token = Token::parse("0123456789abcdef0123456789abcdef").expect("a token");
        let dest_role = DestRole {
            operation: operation.clone(),
            kind,
            database: database.clone(),
            token: token.clone(),
            source_identity: String::new(),
            incarnation: Some(facts.incarnation.clone()),
            source_epoch: Epoch(1),
            version,
            floor: Attempt(0),
            hook: None,
            phase: dest_role::Phase::Seeding,
        };
        let source_role = SourceRole {
            operation,
            kind,
            database,
            token,
            dest_address: "127.0.0.1:1".to_owned(),
            dest_identity: String::new(),
            log_budget_bytes: 0,
            incarnation: facts.incarnation,
            version,
            floor: Attempt(0),
            phase: source_role::Phase::Replicating,
        };
        self.stream = None;
        self.dest.prepare(&dest_role).await.expect("prepare");
        self.source.begin(&source_role).await.expect("begin");
        (self.source_role, self.dest_role) = (Some(source_role), Some(dest_role));
    }

    /// Opens both ends and agrees on a plan.
    pub async fn connect(&mut self) -> Pipe {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.source.open(&self.role()).await.expect("open the stream"),
        };
        self.stream = Some(stream.clone());
        let replica = self.dest.open(&self.dest_role()).await.expect("open the replica");
        let held = replica.durable().await.expect("say what is held").held;
        let plan = stream.plan(&held).await.expect("plan");
        replica.plan(&plan).await.expect("take the plan");
        Pipe { stream, replica, plan, sent: 0 }
    }

    /// The source agent is killed and started again.
    pub async fn restart_source(&mut self) {
        self.stream = None;
        self.source = self.harness.source();
        self.source.take_over().await.expect("take the source lock");
    }

    /// The destination agent is killed and started again.
    pub async fn restart_dest(&mut self) {
        self.dest = self.harness.dest();
        self.dest.take_over().await.expect("take the destination lock");
    }

    /// Begins, seeds and catches up.
    pub async fn replicate(&mut self, kind: Kind) -> Pipe {
        self.begin(kind).await;
        let mut pipe = self.connect().await;
        pipe.seed().await;
        pipe.catch_up().await;
        pipe
    }

    /// Fences for an attempt and records it; answers the position.
    pub async fn fence(&mut self, attempt: u32) -> Position {
        let version = self.version();
        let step = source_role::step(&self.role(), &source_role::Event::Fence(version, Attempt(attempt)));
        let mut role = step.expect("the source can be fenced").next;
        let position = self.source.fence(&mut role, Duration::from_secs(2)).await.expect("fence");
        let durable = source_role::Event::FenceDurable(Attempt(attempt), position.clone());
        let role = source_role::step(&role, &durable).expect("fencing").next;
        self.source.put_role(&role).await.expect("record the fence");
        self.source_role = Some(role);
        position
    }

    /// Reopens after an attempt.
    pub async fn unfence(&mut self, attempt: u32) {
        let role = self.role();
        let next = source_role::step(&role, &source_role::Event::Reopened(Attempt(attempt))).expect("fenced").next;
        self.source.unfence(&role, &next).await.expect("unfence");
        self.source_role = Some(next);
    }

    /// Prepares the destination at a marker and promotes it.
    pub async fn promote(&mut self, pipe: &Pipe, attempt: u32, marker: &Position) {
        pipe.replica.prepare_marker(marker).await.expect("prepare the marker");
        let phase = dest_role::Phase::Prepared { attempt: Attempt(attempt), position: marker.clone() };
        let prepared = DestRole { phase, ..self.dest_role() };
        self.dest.put_role(&prepared).await.expect("record that it is prepared");
        let version = self.version();
        let step = dest_role::step(&prepared, &dest_role::Event::Promote(version, Attempt(attempt))).expect("prepared");
        self.dest.promote(&step.next).await.expect("promote");
        self.dest_role = Some(step.next);
    }

    /// A whole flip of a move, after which clients read at the destination what they read at the fenced source.
    pub async fn flip_and_compare(&mut self, pipe: &Pipe, attempt: u32) {
        let end = self.fence(attempt).await;
        pipe.catch_up_to(&end).await;
        let expected = self.harness.rows().await;
        self.promote(pipe, attempt, &end).await;
        assert_eq!(self.harness.rows_at_dest().await, expected);
    }

    /// Releases the source and removes both records.
    pub async fn finish(&mut self, attempt: u32) {
        let version = self.version();
        let step = source_role::step(&self.role(), &source_role::Event::Release(version, Attempt(attempt)));
        let role = step.expect("the source can be released").next;
        self.source.put_role(&role).await.expect("record the release");
        self.source.release(&role, "east").await.expect("release");
        self.dest.finish(&self.dest_role()).await.expect("finish");
        self.source.remove_role(&role.operation, version).await.expect("forget at the source");
        self.dest.remove_role(&role.operation, version).await.expect("forget at the destination");
    }
}

impl Pipe {
    /// Sends one chunk; answers where the next one starts, or nothing at the end of the part.
    pub async fn send_chunk(&mut self, part: u32, offset: u64) -> Result<Option<u64>> {
        let digest = match self.plan.verify {
            true => Some(self.replica.digest(part, offset, CHUNK).await?),
            false => None,
        };
        let chunk = self.stream.chunk(part, offset, CHUNK, digest).await?;
        self.sent += chunk.payload.len() as u64;
        self.replica.chunk(part, offset, chunk.payload, chunk.next_offset, chunk.last).await?;
        Ok((!chunk.last).then_some(chunk.next_offset))
    }

    /// Sends every part from where the destination has it.
    pub async fn seed(&mut self) {
        let held = self.replica.durable().await.expect("say what is held").held;
        if held.seeded && held.generation == self.plan.generation {
            return;
        }
        for part in self.plan.parts.clone() {
            let known = held.parts.iter().find(|h| h.part == part.part && held.generation == self.plan.generation);
            if known.is_some_and(|known| known.done) {
                continue;
            }
            let mut offset = known.map_or(0, |known| known.durable);
            while let Some(next) = self.send_chunk(part.part, offset).await.expect("send a chunk") {
                offset = next;
            }
        }
        self.stream.seed_done().await.expect("the seed can be trusted");
        self.replica.sync().await.expect("sync");
        self.replica.seed_done().await.expect("the seed is whole");
    }

    /// Where the destination stands in the log.
    pub async fn at(&self) -> Position {
        let held = self.replica.durable().await.expect("say what is held").held;
        held.log.unwrap_or_else(|| self.plan.log_resume.clone())
    }

    /// Sends one log batch; false if there is none for now.
    pub async fn send_log(&self, until: Option<&Position>) -> bool {
        let at = self.at().await;
        if until == Some(&at) {
            return false;
        }
        if until.is_none() {
            // A backlog may be an estimate, and what was just committed may not have been seen yet: wait a little.
            let Ok(batch) = tokio::time::timeout(A_LITTLE, self.stream.log(&at, CHUNK, None)).await else {
                return false;
            };
            self.replica.log(batch.expect("read log")).await.expect("take log");
            return true;
        }
        let read = tokio::time::timeout(PATIENCE, self.stream.log(&at, CHUNK, until)).await;
        let batch = read.expect("log arrives").expect("read log");
        self.replica.log(batch).await.expect("take log");
        true
    }

    /// Sends log until there is none.
    pub async fn catch_up(&self) {
        while self.send_log(None).await {}
    }

    /// Sends log up to a position.
    pub async fn catch_up_to(&self, position: &Position) {
        while self.send_log(Some(position)).await {}
        assert_eq!(self.at().await, *position, "the log ends exactly at the marker");
    }
}

/// Whether an engine refused because another agent took over.
pub fn superseded<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Superseded { .. }))
}
