//! The destination half of the engine contract.

use crate::{
    Result,
    source::{DatabaseInfo, Held, LogBatch, Plan},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{CommandVersion, DatabaseName, Epoch, Finding, OperationId, Position, dest_role::DestRole};
use std::sync::Arc;

/// What the destination holds durably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Parts of the seed, and whether it is whole.
    pub held: Held,
    /// The position up to which the log need not be sent again after any crash, if any.
    pub log: Option<Position>,
}

/// The destination half of an engine, for one instance. The words of [`crate::source::SourceEngine`] on idempotence,
/// durability and the lock hold here too.
#[async_trait]
pub trait DestEngine: Send + Sync + 'static {
    /// The engine's name, equal at both ends.
    fn name(&self) -> &'static str;

    /// Takes the instance's destination lock; returns once it is held.
    async fn take_over(&self) -> Result<Epoch>;

    /// Gives a sign of life, and finds out whether the lock is still held.
    async fn heartbeat(&self) -> Result<()>;

    /// The databases of the instance.
    async fn databases(&self) -> Result<Vec<DatabaseInfo>>;

    /// Removes what a moved database left under its name, a tombstone. Refuses anything else with
    /// [`crate::Error::Unsupported`], and with [`crate::Error::NoDatabase`] if nothing has that name.
    async fn purge(&self, database: &DatabaseName) -> Result<()>;

    /// Judges whether a database with these requirements can be taken in under this name; changes nothing. Requirements
    /// that cannot be read are [`crate::Error::Corrupt`]; empty ones, of a source that found errors, are not judged.
    async fn preflight(
        &self,
        database: &DatabaseName,
        requirements: &Bytes,
        operation: Option<&OperationId>,
    ) -> Result<Vec<Finding>>;

    /// All role records of this half.
    async fn roles(&self) -> Result<Vec<DestRole>>;

    /// Records a role durably.
    async fn put_role(&self, role: &DestRole) -> Result<()>;

    /// Removes a role record, and raises the instance's watermark to `version`, durably.
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()>;

    /// The highest version with which any record was removed.
    async fn watermark(&self) -> Result<CommandVersion>;

    /// Records the role (it is `Seeding`) and reserves the name; fails with [`crate::Error::NameTaken`].
    async fn prepare(&self, role: &DestRole) -> Result<()>;

    /// Opens the operation's replica for writing, after `prepare` or after a restart; the one open before, if any, ends.
    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>>;

    /// **The flip**: records `role` (it is `Primary`) durably and opens the database to clients, in one transaction where
    /// the engine has one; else the record first, and the opening is an idempotent roll-forward that `promote` repeats
    /// when it is called again. Ends every foreign session before. Everything applied is durable before (`prepare_marker`).
    async fn promote(&self, role: &DestRole) -> Result<()>;

    /// After the flip: drops helpers and checkpoints, gathers statistics. The record stays.
    async fn finish(&self, role: &DestRole) -> Result<()>;

    /// Removes the half-made database and every helper. `role` is `Discarding` and recorded; the record stays.
    async fn discard(&self, role: &DestRole) -> Result<()>;
}

/// The writing half of one operation.
///
/// Log may arrive before the seed is whole: the engine keeps it, on its own disk, and applies it when the seed is.
#[async_trait]
pub trait DestReplica: Send + Sync {
    /// What is held, for the answer to Hello: received at least, durable at most what survives a crash.
    async fn durable(&self) -> Result<Durable>;

    /// Begins or continues a plan. A new generation forgets the log and the part offsets of the one before; with `verify`
    /// the data stay to be compared, else they go. The same generation changes nothing.
    async fn plan(&self, plan: &Plan) -> Result<()>;

    /// The digest of a range of a part as held now; the source compares it with its own. Opaque to all but the engines.
    async fn digest(&self, part: u32, offset: u64, len: usize) -> Result<Bytes>;

    /// Waits until chunks of a part can be taken: until what they need of other parts is there. It may never be, if the source
    /// dies meanwhile; so, unlike `chunk`, this is dropped when the stream on which the chunk came has to end, and touches
    /// nothing.
    async fn until_takes(&self, _part: u32) -> Result<()> {
        Ok(())
    }

    /// Writes one chunk; `next_offset` and `last` as the source gave them. A chunk that is held already is skipped. Parts
    /// may be written side by side, the chunks of a part come in order; one that leaves a hole is [`crate::Error::Gap`].
    async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next_offset: u64, last: bool) -> Result<()>;

    /// Makes everything received so far durable, seed and log, records how far that is, and answers it. Called every so
    /// often and before a marker.
    async fn sync(&self) -> Result<Durable>;

    /// The seed is whole at the source: makes it durable, builds what belongs on it (indexes, ...) and applies the log
    /// kept meanwhile. Fails with [`crate::Error::Gap`] if a part is missing.
    async fn seed_done(&self) -> Result<()>;

    /// Takes one piece of the log: applies it, or keeps it while the seed is not whole. One that is held already is
    /// skipped; one that leaves a hole is [`crate::Error::Gap`].
    async fn log(&self, batch: LogBatch) -> Result<()>;

    /// Everything up to the marker is received: applies it and makes it durable, so that [`DestEngine::promote`] has little
    /// left to do. Fails with [`crate::Error::Gap`] unless the replica stands exactly at `position`, and with
    /// [`crate::Error::Corrupt`] if what it has there is not a consistent database.
    async fn prepare_marker(&self, position: &Position) -> Result<()>;

    /// Called shortly before a fence: syncs what a marker would have to sync.
    async fn settle(&self) -> Result<()>;

    /// The replica is about to be discarded or closed: a call under way that may take long (a seed being loaded, indexes
    /// being built) has to fail soon with a retryable error. Engines whose calls are all short do nothing.
    async fn interrupt(&self) {}

    /// Lets go of files and connections; what is not durable may be lost. Called when the agent ends.
    async fn close(&self);
}
