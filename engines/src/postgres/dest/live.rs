//! One generation of a replica that is open: its database, and how far it is.

use super::{
    super::{
        catalog,
        payload::{PartKind, Schema},
        position::Point,
        sql::Sql,
    },
    Shared, database,
    load::Loads,
    log::Log,
    memo::Memo,
    records::{self, PartRecord, Planned, Remembered},
    sessions::Sessions,
    views::Views,
};
use crate::{
    Error, Result,
    dest::Durable,
    source::{Held, HeldPart},
};
use handover::{Epoch, OperationId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Mutex as AsyncMutex, watch};

/// What every session with a replica runs first: no trigger, rule or foreign key of the user's fires for what is loaded, and
/// a database's own settings do not concern us.
const SESSION: &str = "SET session_replication_role = replica; SET default_transaction_read_only = off; SET ROLE NONE;
    SET row_security = off; SET default_tablespace = ''";

/// See the module.
pub(super) struct Live {
    pub(super) shared: Arc<Shared>,
    pub(super) operation: OperationId,
    /// The database's name now.
    pub(super) database: String,
    pub(super) epoch: Epoch,
    pub(super) planned: Planned,
    /// Where the log begins.
    pub(super) start: Point,
    /// Sessions for records and small work.
    pub(super) sessions: Sessions,
    pub(super) loads: Loads,
    pub(super) log: Log,
    pub(super) views: Views,
    /// Whether tables can be loaded.
    pub(super) ready: watch::Sender<bool>,
    /// Held by the one call that changes the schema.
    pub(super) building: AsyncMutex<()>,
    /// Set when a long call has to end soon.
    pub(super) interrupted: watch::Sender<bool>,
    /// The definitions here as they were when a fence was announced.
    pub(super) known: Mutex<Option<Arc<catalog::Known>>>,
    schema: Mutex<Option<Arc<Schema>>>,
    progress: Mutex<Progress>,
}

/// What is committed, and what of it survives a crash of the server.
#[derive(Debug, Default)]
struct Progress {
    committed: BTreeMap<u32, PartRecord>,
    durable: BTreeMap<u32, PartRecord>,
    seeded: bool,
}

impl Live {
    /// Opens the database of `memo`: ends whoever was in it, and raises its epoch.
    pub(super) async fn open(shared: &Arc<Shared>, operation: &OperationId, memo: &Memo) -> Result<Option<Arc<Self>>> {
        let Some(oid) = memo.oid else { return Ok(None) };
        let epoch = shared.store.check().await?;
        let maintenance = shared.maintenance().await?;
        let Some(database) = database::name_of(&maintenance, oid).await? else {
            return Err(Error::Corrupt("the database being made was dropped by somebody else".to_owned()));
        };
        let sessions = Sessions::new(&shared.config, &database, "dest records", SESSION.to_owned());
        database::end_sessions(&maintenance, oid, database::Sessions::All).await?;
        let sql = sessions.take().await?;
        records::raise(&sql, epoch).await?;
        let Remembered { planned, seeded, extras, armed, parts } = records::read(&sql).await?;
        sessions.give_back(sql);
        if planned.generation != memo.generation {
            return Err(Error::Corrupt("the replica and its operation's memo differ in the generation".to_owned()));
        }
        let schema_done = planned.parts.first().is_some_and(|part| parts.get(part).is_some_and(|record| record.done));
        let start = planned.start()?;
        let live = Self {
            shared: shared.clone(),
            operation: operation.clone(),
            loads: Loads::default(),
            log: Log::new(start, extras, armed),
            views: Views::default(),
            ready: watch::Sender::new(schema_done),
            building: AsyncMutex::default(),
            interrupted: watch::Sender::new(false),
            known: Mutex::default(),
            schema: Mutex::default(),
            progress: Mutex::new(Progress { committed: parts.clone(), durable: parts, seeded }),
            database,
            epoch,
            planned,
            start,
            sessions,
        };
        Ok(Some(Arc::new(live)))
    }

    /// What a part holds.
    pub(super) fn kind(&self, part: u32) -> Result<&PartKind> {
        let at = self.planned.parts.iter().position(|known| *known == part);
        at.and_then(|at| self.planned.header.parts.get(at))
            .ok_or_else(|| Error::Corrupt(format!("the plan has no part {part}")))
    }

    /// How far a part is committed.
    pub(super) fn part(&self, part: u32) -> PartRecord {
        self.progress().committed.get(&part).copied().unwrap_or_default()
    }

    /// A part is committed so far.
    pub(super) fn committed(&self, part: u32, offset: u64, done: bool) {
        self.progress().committed.insert(part, PartRecord { offset, done });
    }

    /// The first part that is not whole.
    pub(super) fn missing_part(&self) -> Option<u32> {
        let progress = self.progress();
        let missing = |part: &&u32| !progress.committed.get(part).is_some_and(|record| record.done);
        self.planned.parts.iter().find(missing).copied()
    }

    pub(super) fn seeded(&self) -> bool {
        self.progress().seeded
    }

    pub(super) fn set_seeded(&self) {
        self.progress().seeded = true;
    }

    /// The schema, read again after a restart.
    pub(super) async fn schema(&self) -> Result<Arc<Schema>> {
        if let Some(schema) = self.lock_schema().clone() {
            return Ok(schema);
        }
        let bytes = records::pieces(&self.sessions).await?;
        let schema: Arc<Schema> = Arc::new(super::super::payload::decode(&bytes)?);
        *self.lock_schema() = Some(schema.clone());
        Ok(schema)
    }

    /// What is committed of the seed now; to be answered to [`Live::survives`] once the server has written it to disk.
    pub(super) fn snapshot(&self) -> BTreeMap<u32, PartRecord> {
        self.progress().committed.clone()
    }

    /// This much survives a crash.
    pub(super) fn survives(&self, snapshot: BTreeMap<u32, PartRecord>) {
        self.progress().durable = snapshot;
    }

    /// A part survives a crash as it is.
    pub(super) fn part_survives(&self, part: u32) {
        let mut progress = self.progress();
        let record = progress.committed.get(&part).copied().unwrap_or_default();
        progress.durable.insert(part, record);
    }

    /// Writes to disk what is committed.
    pub(super) async fn flush_to_disk(&self) -> Result<()> {
        let sync = "UPDATE causeway.replica SET synced = synced + 1; SET LOCAL synchronous_commit = on";
        self.transact("sync the replica", sync).await
    }

    /// Runs statements in one transaction of their own, which fails unless the replica is ours still.
    pub(super) async fn transact(&self, what: &str, statements: &str) -> Result<()> {
        let sql = self.sessions.take().await?;
        self.transact_in(&sql, what, statements).await?;
        self.sessions.give_back(sql);
        Ok(())
    }

    /// The same in a session; after an error that session is still in the transaction.
    pub(super) async fn transact_in(&self, sql: &Sql, what: &str, statements: &str) -> Result<()> {
        let transaction = format!("BEGIN; {statements}; {}; COMMIT", records::check(self.epoch));
        self.checked(sql.run(what, &transaction).await)
    }

    /// What is held.
    pub(super) fn answer(&self) -> Durable {
        let progress = self.progress();
        let parts = self.planned.parts.iter().map(|part| {
            let record = progress.durable.get(part).copied().unwrap_or_default();
            HeldPart { part: *part, durable: record.offset, done: record.done }
        });
        let held = Held {
            generation: self.planned.generation,
            parts: parts.collect(),
            seeded: progress.seeded,
            log: Some(self.log.received().position()),
        };
        Durable { held, log: Some(self.log.survived().position()) }
    }

    /// An error that says that somebody else has the replica now is told as such.
    pub(super) fn checked<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| records::superseded(self.epoch, error))
    }

    /// A session of one's own for long work, named for its purpose; with what the schema's statements need.
    pub(super) async fn session(&self, purpose: &'static str, prepare: &str) -> Result<Sql> {
        Sessions::new(&self.shared.config, &self.database, purpose, format!("{SESSION}; {prepare}")).connect().await
    }

    /// Waits for `work`, unless a call to interrupt comes first.
    pub(super) async fn unless_interrupted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut interrupted = self.interrupted.subscribe();
        tokio::select! {
            biased;
            _ = interrupted.wait_for(|interrupted| *interrupted) => {
                Err(Error::Busy("the load is interrupted: the operation ends, or the agent does".to_owned()))
            }
            done = work => done,
        }
    }

    /// Lets go of all sessions; what is not committed is rolled back by the server.
    pub(super) async fn close(&self) {
        self.interrupted.send_replace(true);
        self.log.close().await;
        self.loads.clear();
        self.sessions.clear();
        self.views.stop();
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_schema(&self) -> MutexGuard<'_, Option<Arc<Schema>>> {
        self.schema.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
