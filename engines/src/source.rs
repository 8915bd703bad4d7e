//! The source half of the engine contract.

use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Finding, Incarnation, Kind, OperationId, Position,
    source_role::SourceRole,
};
use std::{sync::Arc, time::Duration};

/// What an engine tells about one user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseInfo {
    /// Its name.
    pub name: DatabaseName,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// `online`, `fenced`, `tombstone`, `incoming` or an engine's own word.
    pub state: String,
    /// What stands in the way of a move, and what to know before one.
    pub findings: Vec<Finding>,
}

/// What the source's preflight found.
#[derive(Clone, Debug)]
pub struct SourceFacts {
    /// Findings about the source itself.
    pub findings: Vec<Finding>,
    /// What the database needs at its destination; opaque, judged by the destination's engine of the same name.
    pub requirements: Bytes,
    /// What the database is now.
    pub incarnation: Incarnation,
    /// About how many bytes the seed will have.
    pub seed_bytes: u64,
}

/// What the destination holds of an operation, as told in its answer to Hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The generation of the plan it works on; 0 if it has none.
    pub generation: u64,
    /// For each part of that plan, the offset up to which it is durable.
    pub parts: Vec<HeldPart>,
    /// Whether the seed of that generation is wholly loaded.
    pub seeded: bool,
    /// The position up to which it has received the log (it need not be durable), if any.
    pub log: Option<Position>,
}

/// How far one part of a seed is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldPart {
    /// The part.
    pub part: u32,
    /// Bytes from its start that need not be sent again.
    pub durable: u64,
    /// Whether the part is whole.
    pub done: bool,
}

/// How the seed and the log of an operation are sent from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Counted from 1; grows when the log was lost and the seed has to be verified again.
    pub generation: u64,
    /// The parts in the order in which they should be sent. Their order and content are fixed within a generation.
    pub parts: Vec<Part>,
    /// Whether the destination holds an earlier generation, so that digests are compared and only differences sent.
    pub verify: bool,
    /// Where the log of this generation begins: every record after it has to be applied over the seed.
    pub log_start: Position,
    /// Where the log goes on for this destination: `log_start`, or what it holds already.
    pub log_resume: Position,
    /// Opaque to all but the engines: what the destination must know before the first part.
    pub header: Bytes,
}

/// One piece of the seed that is resumed on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number within the plan.
    pub part: u32,
    /// What it is a part of, for people: a table, a file.
    pub object: String,
    /// About how many bytes it has.
    pub bytes: u64,
}

/// One piece of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Opaque to all but the engines. At most the size asked for plus a small header; empty if nothing differs.
    pub payload: Bytes,
    /// Where the next chunk of this part starts.
    pub next_offset: u64,
    /// Whether the part ends here.
    pub last: bool,
    /// Rows in it, 0 where the engine does not know.
    pub rows: u64,
}

/// One piece of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBatch {
    /// Where it starts: the end of the one before.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// Opaque to all but the engines.
    pub payload: Bytes,
    /// Transactions that end in it.
    pub transactions: u64,
    /// Wall clock when the engine saw the newest of them, in milliseconds since 1970.
    pub seen_ms: i64,
}

/// How far the log is ahead of a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Bytes of log after the position.
    pub bytes: u64,
    /// When the oldest of them was seen, in milliseconds since 1970; 0 if there are none.
    pub oldest_ms: i64,
    /// Bytes of log retained at the source for this operation, wherever they lie.
    pub retained_bytes: u64,
    /// The cap for them.
    pub budget_bytes: u64,
}

/// The source half of an engine, for one instance.
///
/// Every call is idempotent and may be repeated after a crash of the agent, of the database or of the machine. A call
/// whose future is dropped may still have its effect. `Durable` means that a power cut does not undo it. All writes
/// check, as the last thing before they take effect, that this agent still holds the instance's source lock; if not
/// they fail with [`crate::Error::Superseded`] and change nothing.
#[async_trait]
pub trait SourceEngine: Send + Sync + 'static {
    /// The engine's name, equal at both ends: `sqlite`, `postgres`, `memory`.
    fn name(&self) -> &'static str;

    /// Takes the instance's source lock; returns once it is held. Takes it at once from a holder that is dead, and from
    /// a living one when that has given no sign of life for the engine's take-over time.
    async fn take_over(&self) -> Result<Epoch>;

    /// Gives a sign of life, and finds out whether the lock is still held. Called every second or so.
    async fn heartbeat(&self) -> Result<()>;

    /// The user databases of the instance.
    async fn databases(&self) -> Result<Vec<DatabaseInfo>>;

    /// Examines a database; changes nothing. What stands in the way is a finding, not an error; an error means that
    /// the examination itself failed. `operation` is the one on whose behalf it is made, if it exists already.
    async fn preflight(
        &self,
        database: &DatabaseName,
        kind: Kind,
        operation: Option<&OperationId>,
    ) -> Result<SourceFacts>;

    /// All role records of this half.
    async fn roles(&self) -> Result<Vec<SourceRole>>;

    /// Records a role durably.
    async fn put_role(&self, role: &SourceRole) -> Result<()>;

    /// Removes a role record, and raises the instance's watermark to `version`, durably.
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()>;

    /// The highest version with which any record was removed: a command for an unknown operation that is not newer is
    /// late and must be refused, else it would bring back what was cleaned up.
    async fn watermark(&self) -> Result<CommandVersion>;

    /// Records the role (it is `Replicating`) and begins to retain the log, in the order that leaves no trace if it
    /// is interrupted and cleaned up.
    async fn begin(&self, role: &SourceRole) -> Result<()>;

    /// Opens the operation's stream, after `begin` or after a restart; the one open before, if any, ends. Log is read
    /// and retained from then on whether or not somebody asks for it.
    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>>;

    /// Closes the database to every client for the attempt of `role`, whose phase is `Fencing`. The engine fills in
    /// `saved` and records the role durably before (where it has transactions: together with) the first refusal. Running
    /// transactions have `grace` to end. Needs an open stream. On success no client can write any more, durably, and the
    /// answer is the attempt's position; the stream gives log up to it and nothing beyond. On
    /// [`crate::Error::Busy`] the database is open again as it was before.
    async fn fence(&self, role: &mut SourceRole, grace: Duration) -> Result<Position>;

    /// Takes a consistent point for a copy: the answer is its position. Needs an open stream. Clients go on.
    async fn mark(&self, role: &SourceRole, attempt: Attempt) -> Result<Position>;

    /// Opens a fenced database again and records `next`, in one transaction where the engine has one, else in the order
    /// reopen, record. Restores what `role` saved. Does not need an open stream; an open one goes on. An agent that was
    /// restarted opens one before: what an engine cannot know about its log otherwise, the standing fence may prove.
    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()>;

    /// Ends the operation at the source for good: a move drops the database, a copy ends its log retention. `role` is
    /// `Releasing` and recorded. Fails with [`crate::Error::Busy`] while a client hinders the drop; the database stays
    /// fenced. Ends an open stream. The record stays.
    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()>;

    /// Removes fence, retention and every helper; restores what `role` saved. `role` is `CleaningUp` and recorded. Ends
    /// an open stream. The record stays, and goes last by `remove_role`.
    async fn cleanup(&self, role: &SourceRole) -> Result<()>;
}

/// The reading half of one operation: the seed by parts, the log in order.
#[async_trait]
pub trait SourceStream: Send + Sync {
    /// Joins what the destination holds with what this side still has. The same `held` gives the same answer until the
    /// log is lost; then the generation grows and `verify` is set.
    async fn plan(&self, held: &Held) -> Result<Plan>;

    /// Whether one lane has to carry the parts of one object, one after the other, because the destination keeps the order in
    /// which they come. Otherwise lanes that have nothing else to do share them.
    fn in_order(&self) -> bool;

    /// Reads one chunk of a part, of about `max` bytes. With `digest` (the destination's answer for that very range) only
    /// what differs is in it. Parts may be read side by side.
    async fn chunk(&self, part: u32, offset: u64, max: usize, digest: Option<Bytes>) -> Result<Chunk>;

    /// Whether the seed read so far can be trusted: fails with [`crate::Error::LogLost`] if the log was interrupted since
    /// the plan, which makes another plan needed. Called after the last chunk.
    async fn seed_done(&self) -> Result<()>;

    /// The log after a position, of about `max` bytes and not beyond `until`. Waits until there is some; never answers an
    /// empty batch. Dropping the future loses nothing. Fails with [`crate::Error::LogLost`] if the position is not held any
    /// more, with [`crate::Error::PointLost`] if `until` is a mark that died with the server it was taken on, and with
    /// [`crate::Error::Budget`] once the retained log reached its cap.
    async fn log(&self, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch>;

    /// The destination holds everything up to this position durably: it need not be retained any longer.
    async fn confirm(&self, durable: &Position) -> Result<()>;

    /// How far the log is ahead of a position.
    async fn backlog(&self, after: &Position) -> Result<Backlog>;

    /// Whether the stream can go on. Fails with what ended it, for instance [`crate::Error::Budget`], also while nobody asks
    /// for log because the destination is away.
    async fn health(&self) -> Result<()>;

    /// Brings the source close to its own end before a fence: for instance syncs what a fence would have to sync. May do
    /// nothing.
    async fn settle(&self) -> Result<()>;

    /// Stops reading and lets go of what keeps clients waiting; the retained log may go. Called when the agent ends.
    async fn close(&self);
}
