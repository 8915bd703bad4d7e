//! What an operation has come to, by the records of its two halves.

use handover::{
    Attempt, Kind,
    operation::{CancelStep, Cancelling, Completing, CompletionStep as Step, Outcome, Reason, State, Then},
};

use crate::agents::Remembered;

/// An operation rebuilt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rebuilt {
    pub state: State,
    /// The highest attempt that anybody has heard of.
    pub attempt: Attempt,
}

/// Two records that cannot both be true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Conflict {
    pub why: String,
    pub remedy: &'static str,
}

/// Why an operation is as it is.
pub(super) fn reason() -> Reason {
    let message = "the coordinator's store was lost; the operation goes on by what its agents remember";
    Reason::new("ADOPTED", message, "")
}

/// What a source's record says, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    Closed,
    Releasing,
    Released,
    CleaningUp,
    None,
}

/// What a destination's record says, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dest {
    Seeding,
    Replica,
    Prepared,
    Primary,
    Discarded,
    None,
}

/// The state from which the coordinator goes on.
///
/// Wherever an attempt may be under way, the destination is asked first ([`Step::Aborting`]): it alone knows whether it was
/// promoted, also if that happens just now.
pub(super) fn rebuild(
    kind: Kind,
    source: Option<&Remembered>,
    dest: Option<&Remembered>,
    max_freeze_ms: u64,
    grace_ms: u64,
) -> Result<Rebuilt, Conflict> {
    let (at_source, at_dest) = (source_phase(source)?, dest_phase(dest)?);
    let attempts = [source, dest].into_iter().flatten();
    // A discarded destination has closed all attempts there can be.
    let highest = attempts.flat_map(|known| [known.attempt, known.floor]).filter(|n| *n != Attempt(u32::MAX)).max();
    let attempt = highest.unwrap_or(Attempt(0));
    let completing = |attempt: Attempt, step: Step| {
        State::Completing(Completing { attempt, max_freeze_ms, grace_ms, retries: 0, step })
    };
    let flipped = |released| {
        let by = [dest, source].into_iter().flatten().map(|known| known.attempt).find(|n| *n > Attempt(0));
        completing(by.unwrap_or(attempt), Step::Flipped { released, finished: false })
    };
    let cancelling = |step| State::Cancelling(Cancelling { outcome: Outcome::Cancelled, step });
    let aborting = || completing(attempt, Step::Aborting { reason: reason(), then: Then::Ready });
    let state = match (at_source, at_dest) {
        (Source::Open, Dest::Primary) if kind == Kind::Move => {
            return Err(Conflict {
                why: "the source is open and the destination is primary: there may be two primaries".to_owned(),
                remedy: "find out by which of the two the applications go, and end the other by hand",
            });
        }
        (Source::Open | Source::Closed | Source::Releasing, Dest::Primary) => flipped(false),
        (Source::Released, Dest::Primary) => flipped(true),
        (Source::CleaningUp, Dest::Primary) => completing(attempt, Step::Forgetting { source_clean: false }),
        (Source::None, Dest::Primary) => completing(attempt, Step::Forgetting { source_clean: true }),

        // Point of no return at the source: only after a flip. Whether the destination still is primary is asked before
        // anything is dropped.
        (Source::Releasing, _) => flipped(false),
        (Source::Released, _) => flipped(true),

        (_, Dest::Discarded) | (Source::None, _) => cancelling(CancelStep::Discarding),
        (Source::CleaningUp, Dest::None) => cancelling(CancelStep::CleaningSource),
        (Source::CleaningUp, _) => cancelling(CancelStep::Discarding),

        (Source::Closed, _) | (Source::Open, Dest::Prepared) => aborting(),
        // Without a record at the destination the operation fails as soon as the two are looked at.
        (Source::Open, Dest::Seeding | Dest::None) => State::Seeding,
        (Source::Open, Dest::Replica) => State::CatchingUp,
    };
    Ok(Rebuilt { state, attempt })
}

fn source_phase(known: Option<&Remembered>) -> Result<Source, Conflict> {
    Ok(match known.map(|known| known.phase.as_str()) {
        None => Source::None,
        Some("replicating") => Source::Open,
        Some("fencing" | "fenced") => Source::Closed,
        Some("releasing") => Source::Releasing,
        Some("released") => Source::Released,
        Some("cleaning up") => Source::CleaningUp,
        Some(other) => return Err(unknown("source", other)),
    })
}

fn dest_phase(known: Option<&Remembered>) -> Result<Dest, Conflict> {
    Ok(match known.map(|known| known.phase.as_str()) {
        None => Dest::None,
        Some("seeding") => Dest::Seeding,
        Some("replica") => Dest::Replica,
        Some("prepared") => Dest::Prepared,
        Some("primary") => Dest::Primary,
        Some("discarding" | "discarded") => Dest::Discarded,
        Some(other) => return Err(unknown("destination", other)),
    })
}

fn unknown(side: &str, phase: &str) -> Conflict {
    Conflict {
        why: format!("the {side} is {phase:?}, which this coordinator does not know"),
        remedy: "run the coordinator in the version of the agents",
    }
}

#[cfg(test)]
mod tests;
