//! The instance: databases, records and what a client and a test can do to them.

use super::wire::{Change, Point};
use crate::{
    Error, Result,
    source::{DatabaseInfo, Held, Plan},
};
use handover::{CommandVersion, DatabaseName, Epoch, OperationId, dest_role::DestRole, source_role::SourceRole};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::Notify;

/// An instance in memory. Clones are the same instance, which outlives the agents beside it.
#[derive(Clone, Default)]
pub struct MemoryInstance {
    state: Arc<Mutex<State>>,
    /// Told at every change of a log.
    pub(super) changed: Arc<Notify>,
}

#[derive(Default)]
pub(super) struct State {
    pub databases: BTreeMap<DatabaseName, Database>,
    pub source: HalfState<SourceRole>,
    pub dest: HalfState<DestRole>,
    pub seeds: BTreeMap<OperationId, Seed>,
    pub staging: BTreeMap<OperationId, Staging>,
    incarnations: u64,
    failures: VecDeque<(&'static str, Error)>,
}

/// Lock and records of one half.
pub(super) struct HalfState<R> {
    pub epoch: u64,
    pub roles: BTreeMap<OperationId, R>,
    pub watermark: CommandVersion,
}

impl<R> Default for HalfState<R> {
    fn default() -> Self {
        Self { epoch: 0, roles: BTreeMap::new(), watermark: CommandVersion(0) }
    }
}

impl<R> HalfState<R> {
    pub fn take_over(&mut self) -> Epoch {
        self.epoch += 1;
        Epoch(self.epoch)
    }

    pub fn check(&self, ours: u64) -> Result<()> {
        match self.epoch == ours {
            true => Ok(()),
            false => Err(Error::Superseded { ours, newer: self.epoch }),
        }
    }

    pub fn remove(&mut self, operation: &OperationId, version: CommandVersion) {
        self.roles.remove(operation);
        self.watermark = self.watermark.max(version);
    }
}

#[derive(Default)]
pub(super) struct Database {
    pub incarnation: u64,
    pub rows: BTreeMap<String, String>,
    /// Which unbroken log this is; grows when it is lost.
    pub log: u64,
    /// Changes before the first one that is kept.
    pub forgotten: u64,
    pub changes: VecDeque<Change>,
    pub retained: bool,
    pub fenced: bool,
    pub writer_held: bool,
    /// Where it moved, if this is what a move left.
    pub moved_to: Option<String>,
}

impl Database {
    pub fn end(&self) -> Point {
        Point { log: self.log, seq: self.forgotten + self.changes.len() as u64 }
    }

    fn record(&mut self, change: Change) {
        match self.retained {
            true => self.changes.push_back(change),
            false => self.forgotten += 1,
        }
    }

    pub fn forget_to(&mut self, seq: u64) {
        while self.forgotten < seq && self.changes.pop_front().is_some() {
            self.forgotten += 1;
        }
    }

    pub fn retained_bytes(&self) -> u64 {
        self.changes.iter().map(|c| bytes_of(c) as u64).sum()
    }
}

pub(super) fn bytes_of(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, String::len)
}

/// The snapshot from which an operation is seeded.
pub(super) struct Seed {
    pub generation: u64,
    pub start: Point,
    pub parts: Vec<Arc<Vec<(String, String)>>>,
}

/// A half-made database at the destination: what an agent sees, and what would be left if it crashed now.
#[derive(Default)]
pub(super) struct Staging {
    pub now: Replica,
    pub durable: Replica,
}

#[derive(Clone, Default)]
pub(super) struct Replica {
    pub plan: Option<Plan>,
    pub held: Held,
    pub rows: BTreeMap<String, String>,
    pub kept: Vec<Change>,
}

impl MemoryInstance {
    /// An instance without databases.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// A client makes a database.
    pub fn create(&self, name: &DatabaseName) {
        let mut state = self.lock();
        state.incarnations += 1;
        let database = Database { incarnation: state.incarnations, log: 1, ..Database::default() };
        state.databases.insert(name.clone(), database);
    }

    /// A client writes a row, or removes it. Refused while the database is fenced or gone.
    pub fn write(&self, name: &DatabaseName, key: &str, value: Option<&str>) -> Result<()> {
        let mut state = self.lock();
        let database = state.existing(name)?;
        if database.fenced || database.moved_to.is_some() {
            return Err(Error::Busy(format!("the database {name} takes no writes")));
        }
        match value {
            Some(value) => database.rows.insert(key.to_owned(), value.to_owned()),
            None => database.rows.remove(key),
        };
        database.record(Change { key: key.to_owned(), value: value.map(str::to_owned) });
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Whether a client could write to a database now.
    pub fn takes_writes(&self, name: &DatabaseName) -> bool {
        let state = self.lock();
        state.databases.get(name).is_some_and(|database| !database.fenced && database.moved_to.is_none())
    }

    /// All rows of a database, as a client reads them.
    pub fn rows(&self, name: &DatabaseName) -> Result<BTreeMap<String, String>> {
        let mut state = self.lock();
        let database = state.existing(name)?;
        match database.moved_to {
            Some(_) => Err(Error::NoDatabase(name.to_string())),
            None => Ok(database.rows.clone()),
        }
    }

    /// The log of a database is lost, as when it was reset while no agent watched.
    pub fn lose_log(&self, name: &DatabaseName) -> Result<()> {
        let mut state = self.lock();
        let database = state.existing(name)?;
        let end = database.end().seq;
        database.forget_to(end);
        database.log += 1;
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// A client holds a write transaction that nobody can end, or lets go of it.
    pub fn hold_writer(&self, name: &DatabaseName, held: bool) -> Result<()> {
        self.lock().existing(name)?.writer_held = held;
        Ok(())
    }

    /// The next call of this name fails with `error`, once.
    pub fn fail_next(&self, call: &'static str, error: Error) {
        self.lock().failures.push_back((call, error));
    }

    /// Whether nothing of any operation is left but epochs and watermarks.
    pub fn is_clean(&self) -> bool {
        let state = self.lock();
        let idle = state.databases.values().all(|d| !d.retained && !d.fenced && d.changes.is_empty());
        let records = state.source.roles.is_empty() && state.dest.roles.is_empty();
        idle && records && state.seeds.is_empty() && state.staging.is_empty()
    }

    pub(super) fn infos(&self) -> Vec<DatabaseInfo> {
        let state = self.lock();
        let mut infos: Vec<DatabaseInfo> = state.databases.iter().map(|(name, database)| database.info(name)).collect();
        let incoming = state.dest.roles.values().filter(|role| !state.databases.contains_key(&role.database));
        infos.extend(incoming.map(|role| DatabaseInfo {
            name: role.database.clone(),
            size_bytes: 0,
            state: "incoming".to_owned(),
            findings: vec![],
        }));
        infos
    }
}

impl Database {
    fn info(&self, name: &DatabaseName) -> DatabaseInfo {
        let state = match (&self.moved_to, self.fenced) {
            (Some(_), _) => "tombstone",
            (None, true) => "fenced",
            (None, false) => "online",
        };
        let size_bytes = self.rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        DatabaseInfo { name: name.clone(), size_bytes, state: state.to_owned(), findings: vec![] }
    }
}

impl State {
    pub fn existing(&mut self, name: &DatabaseName) -> Result<&mut Database> {
        self.databases.get_mut(name).ok_or_else(|| Error::NoDatabase(name.to_string()))
    }

    /// The failure that a test ordered for this call, if any.
    pub fn ordered_failure(&mut self, call: &str) -> Result<()> {
        match self.failures.iter().position(|(name, _)| *name == call) {
            Some(at) => Err(self.failures.remove(at).expect("just found").1),
            None => Ok(()),
        }
    }
}
