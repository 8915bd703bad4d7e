//! What an agent has to remember, in the schema `causeway` of the maintenance database: the lock and epoch of each half,
//! the role records, the watermark, and a memo an operation.
//!
//! The row of a half in `causeway.lock` holds its epoch, and that alone decides who may write: every transaction of a
//! [`Store`] first locks that row for share and looks. Whether a holder is alive is told by a session advisory lock,
//! which the server lets go of when the session ends, and by when that session was last used; so a heartbeat writes
//! nothing and an idle server stays idle.

mod takeover;
mod transaction;

pub(crate) use transaction::{Transaction, encode};

use super::{
    config::PostgresConfig,
    sql::{Sql, failed},
};
use crate::{Error, Result};
use handover::{CommandVersion, Epoch, OperationId};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use transaction::Access;

/// Which half of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// The source half.
    Source,
    /// The destination half.
    Dest,
}

impl Half {
    /// How the purposes of this half's sessions begin, and the key of its row.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Half::Source => "source",
            Half::Dest => "dest",
        }
    }
}

/// A heartbeat that takes longer is a failed one, and its session is given up.
const HEARTBEAT_TIME_MAX: Duration = Duration::from_secs(5);

/// The store of one half. Reconnects by itself; dropping it lets go of the lock.
pub(crate) struct Store {
    config: PostgresConfig,
    half: Half,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epoch: Option<Epoch>,
    /// The session that holds the advisory lock, and the server process that serves it.
    lock: Option<Arc<Sql>>,
    lock_pid: Option<i32>,
    /// A session that nobody uses now; another is made when two are needed at once.
    spare: Option<Sql>,
}

impl Store {
    /// The store of `half` in the instance of `config`. Touches nothing yet.
    pub(crate) fn new(config: PostgresConfig, half: Half) -> Self {
        Self { config, half, state: Mutex::default() }
    }

    /// Takes the lock; returns once it is held. From a dead holder it is taken at once, from a living one after that has
    /// shown no sign of life for the take-over time. Whoever holds it already gets the same epoch again.
    pub(crate) async fn take_over(&self) -> Result<Epoch> {
        takeover::take_over(self).await
    }

    /// The epoch of the lock that was taken; it may have been superseded meanwhile.
    pub(crate) fn epoch(&self) -> Result<Epoch> {
        self.state().epoch.ok_or_else(|| Error::Misuse("the lock of this half was not taken yet".to_owned()))
    }

    /// Fails with [`Error::Superseded`] if somebody took over. The last thing to do before an effect that lies outside of
    /// the maintenance database.
    pub(crate) async fn check(&self) -> Result<Epoch> {
        let tx = Transaction::begin(self, "check the epoch", Access::Read).await?;
        let epoch = tx.epoch();
        tx.commit().await?;
        Ok(epoch)
    }

    /// Gives a sign of life, and finds out whether the lock is still held. After a restart of the server it takes the lock
    /// again, if nobody else did.
    pub(crate) async fn heartbeat(&self) -> Result<()> {
        let beat = tokio::time::timeout(HEARTBEAT_TIME_MAX, takeover::beat(self)).await;
        beat.unwrap_or_else(|_| {
            self.state().lock = None;
            Err(Error::Database {
                what: "give a sign of life".to_owned(),
                message: format!("the server did not answer within {} s", HEARTBEAT_TIME_MAX.as_secs()),
                transient: true,
            })
        })
    }

    /// All records.
    pub(crate) async fn roles<R: DeserializeOwned>(&self) -> Result<Vec<R>> {
        let tx = Transaction::begin(self, "read the role records", Access::Read).await?;
        let roles = tx.roles().await?;
        tx.commit().await?;
        Ok(roles)
    }

    /// Writes the record of an operation; it is durable once this returns.
    pub(crate) async fn put_role<R: Serialize>(&self, operation: &OperationId, role: &R) -> Result<()> {
        let tx = self.transaction("record a role").await?;
        let record = encode(role)?;
        tx.commit_with(|tx| Box::pin(tx.put_record(operation, record))).await
    }

    /// Removes the record and the memo of an operation and raises the watermark to `version`, durably.
    pub(crate) async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        let tx = self.transaction("remove a role record").await?;
        tx.remove_role(operation, version).await?;
        tx.commit().await
    }

    /// The highest version with which a record was removed.
    pub(crate) async fn watermark(&self) -> Result<CommandVersion> {
        let tx = Transaction::begin(self, "read the watermark", Access::Read).await?;
        let watermark = tx.watermark();
        tx.commit().await?;
        Ok(watermark)
    }

    /// What the engine noted for itself about an operation, if it did.
    pub(crate) async fn memo<M: DeserializeOwned>(&self, operation: &OperationId) -> Result<Option<M>> {
        let tx = Transaction::begin(self, "read the memo of an operation", Access::Read).await?;
        let memo = tx.memo(operation).await?;
        tx.commit().await?;
        Ok(memo)
    }

    /// Notes something for the engine itself, durably.
    pub(crate) async fn set_memo<M: Serialize>(&self, operation: &OperationId, memo: &M) -> Result<()> {
        let tx = self.transaction("write the memo of an operation").await?;
        tx.set_memo(operation, memo).await?;
        tx.commit().await
    }

    /// Notes where a database of this instance went, for those who look for it here.
    pub(crate) async fn note_moved(&self, database: &str, moved_to: &str) -> Result<()> {
        let tx = self.transaction("note where a database went").await?;
        tx.note_moved(database, moved_to).await?;
        tx.commit().await
    }

    /// Where a database went that was moved from here, if it was.
    pub(crate) async fn moved(&self, database: &str) -> Result<Option<String>> {
        let tx = Transaction::begin(self, "look where a database went", Access::Read).await?;
        let moved = tx.moved(database).await?;
        tx.commit().await?;
        Ok(moved)
    }

    /// Databases that the destination half of this instance is making.
    pub(crate) async fn incoming(&self) -> Result<Vec<String>> {
        let tx = Transaction::begin(self, "look for databases that are being made", Access::Read).await?;
        let incoming = tx.incoming().await?;
        tx.commit().await?;
        Ok(incoming)
    }

    /// Begins a transaction that holds the epoch: nobody takes over before it ends. Dropping it rolls it back. It is a
    /// session with the maintenance database, for statements that have to be one with a record.
    pub(crate) async fn transaction<'a>(&'a self, what: &'a str) -> Result<Transaction<'a>> {
        Transaction::begin(self, what, Access::Write).await
    }

    /// A session with the maintenance database, a used one if there is one.
    async fn session(&self) -> Result<Sql> {
        let spare = self.state().spare.take();
        match spare {
            Some(sql) if !sql.is_closed() => Ok(sql),
            _ => self.connect("store").await,
        }
    }

    /// Keeps a session for the next one.
    fn give_back(&self, sql: Sql) {
        self.state().spare = Some(sql);
    }

    async fn connect(&self, purpose: &str) -> Result<Sql> {
        let purpose = format!("{} {purpose}", self.half.as_str());
        Sql::connect(&self.config, self.config.maintenance(), &purpose).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version of the tables below.
const VERSION: i32 = 1;

/// Makes what a store needs, once. The agents of both halves may do so at the same moment.
const TABLES: &str = "
    SELECT pg_advisory_xact_lock(1667331955, 3);
    CREATE SCHEMA IF NOT EXISTS causeway;
    COMMENT ON SCHEMA causeway IS 'What the agents of Causeway have to remember';
    CREATE TABLE IF NOT EXISTS causeway.version (version integer NOT NULL);
    INSERT INTO causeway.version SELECT 1 WHERE NOT EXISTS (SELECT FROM causeway.version);
    CREATE TABLE IF NOT EXISTS causeway.lock (half text PRIMARY KEY, epoch bigint NOT NULL, holder text NOT NULL,
        taken timestamptz NOT NULL, watermark bigint NOT NULL DEFAULT 0);
    CREATE TABLE IF NOT EXISTS causeway.role (half text, operation text, record text NOT NULL,
        changed timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (half, operation));
    CREATE TABLE IF NOT EXISTS causeway.memo (half text, operation text, memo text NOT NULL, PRIMARY KEY (half, operation));
    CREATE TABLE IF NOT EXISTS causeway.moved (database text PRIMARY KEY, moved_to text NOT NULL, at timestamptz NOT NULL);
    INSERT INTO causeway.lock VALUES ('source', 0, '', now()), ('dest', 0, '', now()) ON CONFLICT DO NOTHING";

/// Makes the tables unless they are there, in a version that this agent knows.
async fn ensure_tables(sql: &Sql) -> Result<()> {
    let what = "look for the schema causeway of the maintenance database";
    let there = sql.query_one("SELECT to_regclass('causeway.moved') IS NOT NULL", &[]).await;
    if !there.map_err(|error| failed(what, &error))?.get::<_, bool>(0) {
        // An agent of the other half may make it at the same moment; one of the statements together waits for it.
        sql.run("make the schema causeway in the maintenance database", TABLES).await?;
    }
    let found = sql.query_one("SELECT version FROM causeway.version", &[]).await;
    match found.map_err(|error| failed(what, &error))?.get::<_, i32>(0) {
        VERSION => Ok(()),
        other => Err(Error::Unsupported {
            code: "STORE_VERSION",
            message: format!(
                "the schema causeway of the maintenance database has version {other}, this agent knows {VERSION}"
            ),
            remedy: "run the agent that made it, or a newer one".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
