//! What may happen to an operation, and what the driver does about its state.

use super::{HookOutcome, Outcome, Reason};
use crate::{Attempt, Finding, source_role::DestAnswer};

/// What may happen to an operation. Times are wall clock in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The source has a place free.
    Admitted {
        /// Now.
        now_ms: i64,
    },
    /// The second preflight found errors.
    PreflightFailed {
        /// All findings.
        findings: Vec<Finding>,
    },
    /// Both sides know the operation, and the log is retained.
    Begun {
        /// Warnings of the preflight.
        findings: Vec<Finding>,
    },
    /// Both agents were asked how far they are.
    Observed {
        /// What they said.
        observation: Observation,
        /// Now.
        now_ms: i64,
    },
    /// Time passed.
    Tick {
        /// Now.
        now_ms: i64,
    },
    /// The user asks for completion.
    Complete {
        /// The longest freeze accepted, in milliseconds.
        max_freeze_ms: u64,
        /// How long running transactions may go on, in milliseconds.
        grace_ms: u64,
    },
    /// The user asks for the end.
    Cancel {
        /// Now.
        now_ms: i64,
    },
    /// The operation cannot go on.
    Fail {
        /// Why.
        reason: Reason,
        /// Now.
        now_ms: i64,
    },
    /// The destination is primary.
    Promoted {
        /// The attempt.
        attempt: Attempt,
        /// Its freeze in milliseconds; 0 for a copy.
        freeze_ms: u64,
    },
    /// The attempt did not get to the flip, as far as the coordinator knows.
    CutoverFailed {
        /// The attempt.
        attempt: Attempt,
        /// Why.
        reason: Reason,
        /// Whether the next attempt may follow by itself.
        again: bool,
    },
    /// The destination answered Abort for the attempt. An answer to an earlier Abort must not be taken for another.
    DestDecided(Attempt, DestAnswer),
    /// The destination answered Discard.
    Discarded(DestAnswer),
    /// The source is open again, and the attempt closed there.
    Unfenced(Attempt),
    /// The source has dropped the database (move) or stopped replicating (copy).
    Released,
    /// The destination has finished.
    Finished(Option<HookOutcome>),
    /// The source has removed everything, its record included.
    SourceClean,
    /// The destination has removed its record.
    Forgotten {
        /// Now.
        now_ms: i64,
    },
    /// An operator says that the source is gone for ever.
    ForgetSource {
        /// Now.
        now_ms: i64,
    },
    /// An operator says that the destination is gone for ever.
    ForgetDest {
        /// Now.
        now_ms: i64,
    },
    /// An operator reopened the source without the destination's answer.
    ForcedUnfence {
        /// Now.
        now_ms: i64,
    },
    /// An operator opened the destination without a marker.
    ForcedPromote {
        /// The attempt used for it.
        attempt: Attempt,
        /// Now.
        now_ms: i64,
    },
}

/// How far both sides are, judged by the driver against the configured thresholds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Observation {
    /// The destination is past its seed.
    pub seeded: bool,
    /// The lag is below the ready threshold.
    pub ready: bool,
    /// The lag is so far above it that a ready operation is not ready any more.
    pub behind: bool,
}

/// What the driver does while an operation is in a state: see [`super::actions`]. Each is idempotent and is repeated
/// until an event comes of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Wait for a place at the source. Gives `Admitted`.
    AwaitPlace,
    /// Preflight again, Prepare at the destination, Begin at the source, in this order. Gives `Begun`,
    /// `PreflightFailed` or `Fail`. Undo: the cancel's actions.
    Prepare,
    /// Ask both sides how far they are, and look at the clock. Gives `Observed`, `Tick` or `Fail`.
    Observe,
    /// Fence or mark at the source and promote at the destination, side by side: the destination waits until it is
    /// prepared. Gives `Promoted` or `CutoverFailed`. Undo: `AbortDest`, then `Unfence`.
    CutOver(Attempt),
    /// `Abort` at the destination. Gives `DestDecided`.
    AbortDest(Attempt),
    /// `Unfence` at the source. Gives `Unfenced`.
    Unfence(Attempt),
    /// `Release` at the source. Gives `Released`. Point of no return.
    Release(Attempt),
    /// `Finish` at the destination. Gives `Finished`.
    Finish,
    /// `Discard` at the destination. Gives `Discarded`. Point of no return.
    Discard,
    /// `Cleanup` at the source. Gives `SourceClean`.
    CleanSource,
    /// `Forget` at the destination. Gives `Forgotten`.
    ForgetDest,
}

/// The reason of a cancel by the user.
pub(super) fn by_user() -> (Outcome, Reason) {
    (Outcome::Cancelled, Reason::new("CANCELLED_BY_USER", "a user cancelled the operation", ""))
}

/// The reason of a cancel by the clock.
pub(super) fn by_clock() -> (Outcome, Reason) {
    let message = "the operation was not completed within its window after it became ready";
    (Outcome::Cancelled, Reason::new("WINDOW_EXPIRED", message, "start it again and complete it before its deadline"))
}

/// The reason of an operation whose source was reopened by an override.
pub(super) fn by_force() -> Reason {
    Reason::new("FORCED_UNFENCE", "an operator reopened the source", "")
}
