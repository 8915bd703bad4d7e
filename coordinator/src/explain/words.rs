//! What is going on, for every state and step.

use handover::{
    Kind,
    operation::{CancelStep, Completing, CompletionStep as Step, Operation, Outcome, State, Then},
};

use super::{Said, Sides};

/// What is going on, and what follows by itself, in a few sentences. `place` is that in the queue.
pub fn summary(operation: &Operation, place: u32) -> String {
    let Operation { source, destination, database, .. } = operation;
    match &operation.state {
        State::Queued => format!(
            "It waits for its turn: {source} runs as many operations as it may, and this one has place {place} in its queue."
        ),
        State::Preparing => format!(
            "Both sides are being prepared: the preflight is made once more, {destination} reserves the name {database}, and \
             {source} begins to retain its log."
        ),
        State::Seeding => format!(
            "A snapshot of {database} is being copied to {destination}. What is committed meanwhile is retained at {source} and \
             sent after it."
        ),
        State::CatchingUp => format!(
            "The snapshot is loaded. {destination} applies what was committed since, until it is close enough behind {source}."
        ),
        State::Ready => ready(operation),
        State::Completing(completing) => completion(operation, completing),
        State::Cancelling(now) => {
            let why = why(operation);
            let step = match now.step {
                CancelStep::Discarding => format!("{destination} removes what it has of {database}"),
                CancelStep::CleaningSource => {
                    format!("{destination} has removed its half; {source} removes fence, retained log and helpers")
                }
                CancelStep::Forgetting => {
                    format!("both sides are clean; {destination} removes its record, the last trace")
                }
            };
            let end = match now.outcome {
                Outcome::Cancelled => "cancelled",
                Outcome::Failed => "failed",
            };
            format!("It is being ended without a flip{why}: {step}. Then it is {end}, and {source} is as it was.")
        }
        State::Succeeded => match operation.kind {
            Kind::Move => format!("{database} has moved to {destination}; {source} has dropped it."),
            Kind::Copy => format!("{destination} has a copy of {database}; {source} goes on serving its own."),
        },
        State::Failed => format!("It failed{}. {}", why(operation), untouched(operation)),
        State::Cancelled => format!("It was cancelled{}. {}", why(operation), untouched(operation)),
    }
}

fn ready(operation: &Operation) -> String {
    let Operation { source, destination, .. } = operation;
    let back = match &operation.reason {
        Some(reason) => format!(" The last attempt was given up: {}.", trimmed(&reason.message)),
        None => String::new(),
    };
    format!(
        "{destination} follows {source} closely, and waits to be completed. If nobody does that before the deadline, the \
         operation is cancelled by itself and {source} is as it was.{back}"
    )
}

fn completion(operation: &Operation, completing: &Completing) -> String {
    let Operation { source, destination, database, kind, .. } = operation;
    let n = completing.attempt;
    match (&completing.step, kind) {
        (Step::Cutover, Kind::Move) => format!(
            "Attempt {n}: {source} is being closed to clients, and {destination} opens as soon as it has everything. If that \
             takes longer than {} ms, the attempt is given up and {source} opened again.",
            completing.max_freeze_ms
        ),
        (Step::Cutover, Kind::Copy) => format!(
            "Attempt {n}: {source} marks a consistent point and goes on serving; {destination} opens as soon as it has \
             everything up to it."
        ),
        (Step::Aborting { reason, then }, _) => {
            let closed = match kind {
                Kind::Move => {
                    format!(" Until it answers, {source} stays closed, since {destination} might be primary.")
                }
                Kind::Copy => String::new(),
            };
            format!(
                "Attempt {n} is being given up: {}. Whether it came to the flip all the same, {destination} alone can tell: it \
                 is asked to close the attempt for ever.{closed} If it was promoted, the operation goes on to its end; if not, {}.",
                trimmed(&reason.message),
                afterwards(operation, then)
            )
        }
        (Step::Unfencing { reason, then }, _) => {
            let open = match kind {
                Kind::Move => format!("{source} is being opened to clients again"),
                Kind::Copy => format!("{source} goes on sending its log"),
            };
            format!(
                "Attempt {n} is given up ({}) and closed for ever at {destination}. {open}; then {}.",
                trimmed(&reason.message),
                follows(then)
            )
        }
        (Step::Flipped { released, finished }, _) => {
            let rest = match (released, finished, kind) {
                (false, false, Kind::Move) => format!(
                    "{source}, which is closed, has to drop its {database}, and {destination} to clean up and run its hook"
                ),
                (false, true, Kind::Move) => format!("{source}, which is closed, has to drop its {database}"),
                (false, false, Kind::Copy) => {
                    format!("{source} has to stop retaining log, and {destination} to clean up and run its hook")
                }
                (false, true, Kind::Copy) => format!("{source} has to stop retaining log"),
                (true, _, _) => format!("{destination} has to clean up and run its hook"),
            };
            format!(
                "The flip has happened: {destination} is primary and serves. It cannot go back. What is left: {rest}."
            )
        }
        (Step::Forgetting { source_clean }, _) => {
            let left = if *source_clean { destination } else { source };
            format!("The flip has happened and both sides are done. What is left: {left} has to remove its record.")
        }
    }
}

fn afterwards(operation: &Operation, then: &Then) -> String {
    let open = match operation.kind {
        Kind::Move => format!("{} is opened again, and ", operation.source),
        Kind::Copy => String::new(),
    };
    format!("{open}{}", follows(then))
}

fn follows(then: &Then) -> &'static str {
    match then {
        Then::Again => "the next attempt begins by itself",
        Then::Ready => "the operation is ready for completion as before",
        Then::Cancel(Outcome::Cancelled) => "the operation is cancelled",
        Then::Cancel(Outcome::Failed) => "the operation fails",
    }
}

fn why(operation: &Operation) -> String {
    operation.reason.as_ref().map(|reason| format!(" ({})", trimmed(&reason.message))).unwrap_or_default()
}

fn untouched(operation: &Operation) -> String {
    let Operation { source, destination, .. } = operation;
    let forced = operation.overrides.iter().any(|(what, _)| what.starts_with("forget"));
    match forced {
        true => format!("{source} serves as before; a side that was forgotten may still have something of it."),
        false => format!("{source} is as it was, and {destination} has nothing of it."),
    }
}

/// A sentence to be continued.
fn trimmed(message: &str) -> &str {
    message.trim_end_matches('.')
}

/// Who may write to the database now, as far as is known.
pub fn writers(operation: &Operation, sides: &Sides) -> String {
    let Operation { source, destination, .. } = operation;
    let primary = sides.dest.phase() == Some("primary") || operation.state == State::Succeeded || flipped(operation);
    if operation.kind == Kind::Copy {
        return match primary {
            true => format!("Clients may write at {source}, and to the copy at {destination}."),
            false => format!("Clients may write at {source}."),
        };
    }
    if primary {
        return match (&sides.source, &sides.dest) {
            (Said::Phase(phase), _) if phase == "replicating" => {
                format!("Clients may write at {destination} AND at {source}: two primaries, by an override.")
            }
            (_, Said::Nothing) => format!(
                "{destination} was primary and has no record of it any more; {source} is closed. Look what happened at \
                 {destination}."
            ),
            _ => format!("Clients write at {destination}; {source} is closed."),
        };
    }
    match (&sides.source, &operation.state) {
        (Said::Phase(phase), _) if matches!(phase.as_str(), "replicating" | "cleaning up") => {
            format!("Clients may write at {source}.")
        }
        (Said::Phase(phase), _) if phase == "fencing" => {
            format!("{source} is being closed to clients; {destination} is not open.")
        }
        (Said::Phase(_), _) => format!("Nobody: {source} is closed, and {destination} is not open."),
        (_, State::Completing(_)) => {
            format!("{source} may be closed, and {destination} is not known to be open: perhaps nobody can write.")
        }
        _ => format!("Clients may write at {source}."),
    }
}

fn flipped(operation: &Operation) -> bool {
    matches!(super::step(operation), Some(Step::Flipped { .. } | Step::Forgetting { .. }))
}
