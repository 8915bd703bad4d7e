//! The source half.

use super::{
    NAME,
    instance::{MemoryInstance, Seed, State, bytes_of},
    wire::{self, Change, Digest, PARTS, Point, Rows},
};
use crate::{
    Error, Result,
    host::Host,
    source::{Backlog, Chunk, DatabaseInfo, Held, LogBatch, Part, Plan, SourceEngine, SourceFacts, SourceStream},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Finding, Incarnation, Kind, OperationId, Position, Side,
    source_role::{Phase, SourceRole},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Retained log at the most, unless the operation says otherwise.
const BUDGET_BYTES: u64 = 1 << 30;

/// The source half of an instance in memory.
pub struct MemorySource {
    instance: MemoryInstance,
    host: Arc<dyn Host>,
    epoch: Arc<AtomicU64>,
}

impl MemorySource {
    /// The source half of `instance`.
    pub fn new(instance: MemoryInstance, host: Arc<dyn Host>) -> Self {
        Self { instance, host, epoch: Arc::default() }
    }

    /// Runs a change of the instance for which this agent has to hold the lock.
    fn writing<T>(&self, call: &str, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.instance.lock();
        state.source.check(self.epoch.load(Ordering::SeqCst))?;
        state.ordered_failure(call)?;
        change(&mut state)
    }

    fn stop(state: &mut State, role: &SourceRole) {
        state.seeds.remove(&role.operation);
        if let Ok(database) = state.existing(&role.database) {
            database.retained = false;
            let end = database.end().seq;
            database.forget_to(end);
        }
    }
}

#[async_trait]
impl SourceEngine for MemorySource {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take_over(&self) -> Result<Epoch> {
        let epoch = self.instance.lock().source.take_over();
        self.epoch.store(epoch.0, Ordering::SeqCst);
        Ok(epoch)
    }

    async fn heartbeat(&self) -> Result<()> {
        self.writing("heartbeat", |_| Ok(()))
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        Ok(self.instance.infos())
    }

    async fn preflight(&self, name: &DatabaseName, _: Kind, operation: Option<&OperationId>) -> Result<SourceFacts> {
        let mut state = self.instance.lock();
        state.ordered_failure("preflight")?;
        let mut findings = Vec::new();
        let mut error = |code: &str, message: String, remedy: &str| {
            findings.push(Finding::error(Side::Source, code, message, remedy));
        };
        let taken =
            state.source.roles.values().find(|role| role.database == *name && Some(&role.operation) != operation);
        if let Some(role) = taken {
            let message = format!("{name} takes part in operation {}", role.operation);
            error("OPERATION_EXISTS", message, "wait for it to end, or cancel it");
        }
        let (incarnation, seed_bytes) = match state.databases.get(name) {
            None => {
                error("DATABASE_NOT_FOUND", format!("there is no database {name}"), "check the spelling");
                (0, 0)
            }
            Some(database) => {
                if let Some(place) = &database.moved_to {
                    error("TOMBSTONE", format!("{name} moved to {place}"), "move it from there");
                }
                (database.incarnation, database.rows.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum())
            }
        };
        Ok(SourceFacts {
            findings,
            requirements: wire::encode(&seed_bytes)?,
            incarnation: Incarnation::parse(&incarnation.to_string()).expect("digits are an incarnation"),
            seed_bytes,
        })
    }

    async fn roles(&self) -> Result<Vec<SourceRole>> {
        Ok(self.instance.lock().source.roles.values().cloned().collect())
    }

    async fn put_role(&self, role: &SourceRole) -> Result<()> {
        self.writing("put_role", |state| {
            state.source.roles.insert(role.operation.clone(), role.clone());
            Ok(())
        })
    }

    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.writing("remove_role", |state| {
            state.source.remove(operation, version);
            Ok(())
        })
    }

    async fn watermark(&self) -> Result<CommandVersion> {
        Ok(self.instance.lock().source.watermark)
    }

    async fn begin(&self, role: &SourceRole) -> Result<()> {
        self.writing("begin", |state| {
            let database = state.existing(&role.database)?;
            database.retained = true;
            state.source.roles.insert(role.operation.clone(), role.clone());
            Ok(())
        })
    }

    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>> {
        self.writing("open", |state| {
            let incarnation = state.existing(&role.database)?.incarnation;
            if incarnation.to_string() != role.incarnation.as_str() {
                return Err(Error::Incarnation(format!("{} was made anew", role.database)));
            }
            Ok(())
        })?;
        Ok(Arc::new(MemoryStream {
            instance: self.instance.clone(),
            host: self.host.clone(),
            epoch: self.epoch.load(Ordering::SeqCst),
            role: role.clone(),
        }))
    }

    async fn fence(&self, role: &mut SourceRole, _: Duration) -> Result<Position> {
        let Phase::Fencing { saved, .. } = &mut role.phase else {
            return Err(Error::Misuse("a fence needs a role that is fencing".to_owned()));
        };
        *saved = "open".to_owned();
        self.writing("fence", |state| {
            let database = state.existing(&role.database)?;
            if database.writer_held {
                return Err(Error::Busy(format!("a client holds a write transaction in {}", role.database)));
            }
            database.fenced = true;
            let end = database.end().position();
            state.source.roles.insert(role.operation.clone(), role.clone());
            Ok(end)
        })
    }

    async fn mark(&self, role: &SourceRole, _: Attempt) -> Result<Position> {
        self.writing("mark", |state| Ok(state.existing(&role.database)?.end().position()))
    }

    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()> {
        self.writing("unfence", |state| {
            state.existing(&role.database)?.fenced = false;
            state.source.roles.insert(next.operation.clone(), next.clone());
            Ok(())
        })
    }

    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()> {
        self.writing("release", |state| {
            Self::stop(state, role);
            if role.kind == Kind::Move
                && let Ok(database) = state.existing(&role.database)
            {
                database.rows.clear();
                database.fenced = false;
                database.moved_to = Some(moved_to.to_owned());
            }
            Ok(())
        })
    }

    async fn cleanup(&self, role: &SourceRole) -> Result<()> {
        self.writing("cleanup", |state| {
            Self::stop(state, role);
            if let Ok(database) = state.existing(&role.database) {
                database.fenced = false;
            }
            Ok(())
        })
    }
}

struct MemoryStream {
    instance: MemoryInstance,
    host: Arc<dyn Host>,
    epoch: u64,
    role: SourceRole,
}

impl MemoryStream {
    fn reading<T>(&self, call: &str, read: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.instance.lock();
        state.source.check(self.epoch)?;
        state.ordered_failure(call)?;
        read(&mut state)
    }

    fn seed<'a>(&self, state: &'a State) -> Result<&'a Seed> {
        state.seeds.get(&self.role.operation).ok_or_else(|| Error::Misuse("no plan was made".to_owned()))
    }

    /// Log after a point, if there is any.
    fn some_log(&self, after: Point, max: usize, until: Option<Point>) -> Result<Option<LogBatch>> {
        self.reading("log", |state| {
            let database = state.existing(&self.role.database)?;
            if after.log != database.log || after.seq < database.forgotten {
                return Err(Error::LogLost(format!("the log at {}.{} is not held", after.log, after.seq)));
            }
            let (used, budget) = (database.retained_bytes(), self.budget());
            if used >= budget {
                return Err(Error::Budget { used, budget });
            }
            let end = until.map_or(database.end().seq, |until| until.seq.min(database.end().seq));
            let from = after.seq - database.forgotten;
            let mut bytes = 0;
            let mut changes: Vec<Change> = Vec::new();
            for change in database.changes.iter().skip(from as usize).take(end.saturating_sub(after.seq) as usize) {
                bytes += bytes_of(change);
                changes.push(change.clone());
                if bytes >= max {
                    break;
                }
            }
            if changes.is_empty() {
                return Ok(None);
            }
            let to = Point { seq: after.seq + changes.len() as u64, ..after };
            Ok(Some(LogBatch {
                from: after.position(),
                to: to.position(),
                payload: wire::encode(&changes)?,
                transactions: changes.len() as u64,
                seen_ms: self.host.now_ms(),
            }))
        })
    }

    fn budget(&self) -> u64 {
        match self.role.log_budget_bytes {
            0 => BUDGET_BYTES,
            given => given,
        }
    }
}

#[async_trait]
impl SourceStream for MemoryStream {
    async fn plan(&self, held: &Held) -> Result<Plan> {
        self.reading("plan", |state| {
            let database = state.existing(&self.role.database)?;
            let (log, end, rows) = (database.log, database.end(), database.rows.clone());
            let forgotten = database.forgotten;
            let known = held.log.as_ref().map(Point::parse).transpose()?;
            let usable = state.seeds.get(&self.role.operation).is_some_and(|seed| {
                let from = match (held.generation == seed.generation, known) {
                    (true, Some(known)) => known,
                    _ => seed.start,
                };
                from.log == log && from.seq >= forgotten && (held.generation == seed.generation || held.generation == 0)
            });
            if !usable {
                let made = state.seeds.get(&self.role.operation).map_or(0, |seed| seed.generation);
                let mut parts = vec![Vec::new(); PARTS as usize];
                for row in rows {
                    parts[wire::part_of(&row.0) as usize].push(row);
                }
                let generation = made.max(held.generation) + 1;
                let seed = Seed { generation, start: end, parts: parts.into_iter().map(Arc::new).collect() };
                state.seeds.insert(self.role.operation.clone(), seed);
            }
            let seed = self.seed(state)?;
            let parts = seed.parts.iter().enumerate().map(|(number, rows)| Part {
                part: number as u32,
                object: format!("rows {number}"),
                bytes: rows.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum(),
            });
            let resumed = held.generation == seed.generation;
            let log_resume = known.filter(|_| resumed).unwrap_or(seed.start);
            Ok(Plan {
                generation: seed.generation,
                parts: parts.collect(),
                verify: seed.generation > 1,
                log_start: seed.start.position(),
                log_resume: log_resume.position(),
                header: Bytes::new(),
            })
        })
    }

    fn in_order(&self) -> bool {
        false
    }

    async fn chunk(&self, part: u32, offset: u64, max: usize, digest: Option<Bytes>) -> Result<Chunk> {
        let digest: Option<Digest> = digest.map(|bytes| wire::decode("a digest", &bytes)).transpose()?;
        self.reading("chunk", |state| {
            let seed = self.seed(state)?;
            let rows =
                seed.parts.get(part as usize).ok_or_else(|| Error::Corrupt(format!("there is no part {part}")))?;
            let mut taken = Rows::default();
            let (mut at, mut bytes) = (offset as usize, 0);
            while at < rows.len() && bytes < max {
                let (key, value) = &rows[at];
                at += 1;
                bytes += key.len() + value.len();
                let same = digest.as_ref().is_some_and(|held| held.get(key) == Some(&wire::hash(value)));
                if !same {
                    taken.set.push((key.clone(), value.clone()));
                }
            }
            let last = at >= rows.len();
            if let Some(held) = digest.filter(|_| last) {
                let here = |key: &String| rows.binary_search_by(|(k, _)| k.cmp(key)).is_ok();
                taken.remove = held.into_keys().filter(|key| !here(key)).collect();
            }
            let payload = match taken == Rows::default() {
                true => Bytes::new(),
                false => wire::encode(&taken)?,
            };
            Ok(Chunk { payload, next_offset: at as u64, last, rows: taken.set.len() as u64 })
        })
    }

    async fn seed_done(&self) -> Result<()> {
        self.reading("seed_done", |state| {
            let start = self.seed(state)?.start;
            match start.log == state.existing(&self.role.database)?.log {
                true => Ok(()),
                false => Err(Error::LogLost("the log was lost while the seed was read".to_owned())),
            }
        })
    }

    async fn log(&self, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch> {
        let (after, until) = (Point::parse(after)?, until.map(Point::parse).transpose()?);
        loop {
            let changed = self.instance.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change falls in between.
            changed.as_mut().enable();
            if let Some(batch) = self.some_log(after, max, until)? {
                return Ok(batch);
            }
            changed.await;
        }
    }

    async fn confirm(&self, durable: &Position) -> Result<()> {
        let durable = Point::parse(durable)?;
        self.reading("confirm", |state| {
            let database = state.existing(&self.role.database)?;
            if durable.log == database.log {
                database.forget_to(durable.seq);
            }
            Ok(())
        })
    }

    async fn backlog(&self, after: &Position) -> Result<Backlog> {
        let after = Point::parse(after)?;
        self.reading("backlog", |state| {
            let database = state.existing(&self.role.database)?;
            let skip = after.seq.saturating_sub(database.forgotten) as usize;
            let bytes: u64 = database.changes.iter().skip(skip).map(|c| bytes_of(c) as u64).sum();
            let oldest_ms = if bytes > 0 { self.host.now_ms() } else { 0 };
            Ok(Backlog { bytes, oldest_ms, retained_bytes: database.retained_bytes(), budget_bytes: self.budget() })
        })
    }

    async fn health(&self) -> Result<()> {
        self.reading("health", |state| {
            let (used, budget) = (state.existing(&self.role.database)?.retained_bytes(), self.budget());
            if used >= budget { Err(Error::Budget { used, budget }) } else { Ok(()) }
        })
    }

    async fn settle(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {}
}
