//! The durable record of an operation.

use crate::{Attempt, DatabaseName, Finding, InstanceName, Kind, OperationId, Token};
use serde::{Deserialize, Serialize};

/// One copy or move of one database, as the coordinator stores it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Equal for the operations of one start request.
    pub batch: String,
    /// Copy or move.
    pub kind: Kind,
    /// The source instance.
    pub source: InstanceName,
    /// The destination instance.
    pub destination: InstanceName,
    /// The database.
    pub database: DatabaseName,
    /// The secret of its two agents.
    pub token: Token,
    /// What the user chose at the start.
    pub options: Options,
    /// Where it stands.
    pub state: State,
    /// The highest attempt used so far; 0 before the first.
    pub attempt: Attempt,
    /// Warnings of the last preflight, or the errors that ended it.
    pub findings: Vec<Finding>,
    /// Why it failed, was cancelled or went back to ready.
    pub reason: Option<Reason>,
    /// When it reached what.
    pub times: Times,
    /// Outcome of the destination's `on_online` hook, once it ran.
    pub hook: Option<HookOutcome>,
    /// The freeze of the attempt that succeeded, in milliseconds; 0 for a copy.
    pub freeze_ms: Option<u64>,
    /// Overrides that an operator used, with the time in milliseconds since 1970.
    pub overrides: Vec<(String, i64)>,
}

/// What the user chose at the start.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Cap for log retained at the source, in bytes; 0 leaves it to the source agent.
    pub log_budget_bytes: u64,
    /// How long it stays ready before it is cancelled by itself, in milliseconds.
    pub window_ms: i64,
}

/// Wall-clock times in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// Accepted.
    pub created_ms: i64,
    /// Left the queue.
    pub started_ms: Option<i64>,
    /// First became ready; neither an aborted attempt nor passing lag changes it.
    pub ready_ms: Option<i64>,
    /// Cancelled by itself after this.
    pub deadline_ms: Option<i64>,
    /// Ended.
    pub ended_ms: Option<i64>,
}

/// Where an operation stands. Every state is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Set by Start when it is accepted.
    Queued,
    /// Set by Admitted when the source has a place free.
    Preparing,
    /// Set by Begun when both sides know the operation and the log is retained.
    Seeding,
    /// Set by Observed when the seed is loaded, and when a ready operation falls behind.
    CatchingUp,
    /// Set by Observed when the lag is below the threshold, and when an attempt was aborted.
    Ready,
    /// Set by Complete.
    Completing(Completing),
    /// Set by Cancel, by the end of the window and by a failure.
    Cancelling(Cancelling),
    /// Set when both sides have finished after a flip. Ended.
    Succeeded,
    /// Set when both sides are clean after a failure. Ended.
    Failed,
    /// Set when both sides are clean after a cancel. Ended.
    Cancelled,
}

/// A completion that was asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Completing {
    /// The present attempt.
    pub attempt: Attempt,
    /// The longest freeze the user accepts, in milliseconds.
    pub max_freeze_ms: u64,
    /// How long running transactions may go on, in milliseconds.
    pub grace_ms: u64,
    /// Further attempts that may follow without asking the user again.
    pub retries: u32,
    /// Where it stands.
    pub step: CompletionStep,
}

/// The steps of a completion.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletionStep {
    /// Fence (move) or mark (copy) at the source, promote at the destination.
    Cutover,
    /// Something went wrong before the flip was known: the destination is asked to close the attempt.
    Aborting {
        /// Why.
        reason: Reason,
        /// What follows if the attempt can be closed.
        then: Then,
    },
    /// The attempt is closed at the destination: the source is opened again.
    Unfencing {
        /// Why.
        reason: Reason,
        /// What follows.
        then: Then,
    },
    /// The destination is primary. Point of no return.
    Flipped {
        /// The source has dropped the database or stopped replicating.
        released: bool,
        /// The destination has finished.
        finished: bool,
    },
    /// Both sides are done: the records go, the source's first.
    Forgetting {
        /// The source's record is gone.
        source_clean: bool,
    },
}

/// What follows an aborted attempt.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The next attempt, because the user's Complete stands.
    Again,
    /// Back to ready, with the reason.
    Ready,
    /// The operation is cancelled.
    Cancel(Outcome),
}

/// An operation on its way to an end without a flip.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Cancelling {
    /// How it will end.
    pub outcome: Outcome,
    /// Where it stands.
    pub step: CancelStep,
}

/// How an operation without a flip ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// By the user's wish, or because its window ran out.
    Cancelled,
    /// Because it could not go on.
    Failed,
}

/// The steps of a cancel. The destination goes first: it alone can say that nothing was promoted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelStep {
    /// The destination removes its half.
    Discarding,
    /// The source removes its half, record included.
    CleaningSource,
    /// The destination's record goes.
    Forgetting,
}

/// A reason with a stable code.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, upper case with underscores.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What can be done about it; may be empty.
    pub remedy: String,
}

impl Reason {
    /// A reason from its three parts.
    pub fn new(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), remedy: remedy.into() }
    }
}

/// Outcome of the `on_online` hook; a failed one changes no outcome of the operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct HookOutcome {
    /// It exited with 0.
    pub ok: bool,
    /// Its exit code; -1 if a signal ended it or it could not be started.
    pub exit_code: i32,
    /// The last 2 KiB of its output.
    pub output: String,
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
}

impl State {
    /// Whether nothing will happen any more.
    pub fn ended(&self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }

    /// Whether it counts among the operations that the source runs at once.
    pub fn running(&self) -> bool {
        !self.ended() && *self != State::Queued
    }

    /// The state's name, stable, as in the record.
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Preparing => "preparing",
            State::Seeding => "seeding",
            State::CatchingUp => "catching_up",
            State::Ready => "ready_for_completion",
            State::Completing(_) => "completing",
            State::Cancelling(_) => "cancelling",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}
