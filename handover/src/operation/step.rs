//! The operation's state machine: the functions are the diagram.

use super::{
    Action, CancelStep, Cancelling, Completing, CompletionStep as Step, Event, Operation, Outcome, Reason, State, Then,
    event::{by_clock, by_force, by_user},
};
use crate::{Attempt, Kind, Severity, source_role::DestAnswer};

/// Attempts that may follow an aborted one by themselves while the user's Complete stands. Each restart of an agent in the
/// middle of a cutover uses one up; five in a row say that a person should look.
const RETRIES: u32 = 5;

/// Why an event changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Illegal {
    /// Complete before it is ready.
    #[error("the operation is {state}, not ready for completion")]
    NotReady {
        /// The state.
        state: &'static str,
    },
    /// Cancel after the flip.
    #[error("the destination is primary already")]
    TooLate,
    /// The destination was primary and is said to be gone: the fenced source is all that is left of the database, and must
    /// not be dropped as if nothing had happened.
    #[error("the source is all that is left of the database, and going on would drop it")]
    LastCopy,
    /// The operation has ended.
    #[error("the operation has ended: {state}")]
    Ended {
        /// The state.
        state: &'static str,
    },
    /// The event does not fit, or not any more: a late answer.
    #[error("{event} does not fit an operation that is {state}")]
    Unexpected {
        /// The event, in a word.
        event: &'static str,
        /// The state.
        state: &'static str,
    },
}

/// What is to be done while the operation is as it is; recovery after a crash does nothing else.
pub fn actions(operation: &Operation) -> Vec<Action> {
    match &operation.state {
        State::Queued => vec![Action::AwaitPlace],
        State::Preparing => vec![Action::Prepare],
        State::Seeding | State::CatchingUp | State::Ready => vec![Action::Observe],
        State::Completing(completing) => match &completing.step {
            Step::Cutover => vec![Action::CutOver(completing.attempt)],
            Step::Aborting { .. } => vec![Action::AbortDest(completing.attempt)],
            Step::Unfencing { .. } => vec![Action::Unfence(completing.attempt)],
            Step::Flipped { released, finished } => {
                let release = (!released).then_some(Action::Release(completing.attempt));
                let finish = (!finished).then_some(Action::Finish);
                release.into_iter().chain(finish).collect()
            }
            Step::Forgetting { source_clean: false } => vec![Action::CleanSource],
            Step::Forgetting { source_clean: true } => vec![Action::ForgetDest],
        },
        State::Cancelling(cancelling) => match cancelling.step {
            CancelStep::Discarding => vec![Action::Discard],
            CancelStep::CleaningSource => vec![Action::CleanSource],
            CancelStep::Forgetting => vec![Action::ForgetDest],
        },
        State::Succeeded | State::Failed | State::Cancelled => vec![],
    }
}

/// How a forced promotion is recorded.
const PROMOTED: &str = "force-promote";

/// What `event` makes of `operation`: to be stored before [`actions`] of it are performed. The same event twice has the
/// effect of one, or is refused.
pub fn step(operation: &Operation, event: &Event) -> Result<Operation, Illegal> {
    if operation.state.ended() {
        return Err(Illegal::Ended { state: operation.state.as_str() });
    }
    match event {
        Event::Cancel { now_ms } => return cancel(operation, by_user(), *now_ms),
        Event::Fail { reason, now_ms } => return cancel(operation, (Outcome::Failed, reason.clone()), *now_ms),
        Event::ForgetSource { now_ms } => return forget_source(operation, *now_ms),
        Event::ForgetDest { now_ms } => return forget_dest(operation, *now_ms),
        Event::ForcedUnfence { now_ms } => return forced_unfence(operation, *now_ms),
        Event::ForcedPromote { attempt, now_ms } => {
            return Ok(forced_promote(operation, *attempt, *now_ms));
        }
        Event::Tick { now_ms } if operation.times.deadline_ms.is_some_and(|d| *now_ms >= d) => {
            return match &operation.state {
                // Past the flip, or already on the way out, the window means nothing.
                State::Completing(_) | State::Cancelling(_) => Ok(operation.clone()),
                _ => cancel(operation, by_clock(), *now_ms),
            };
        }
        _ => {}
    }
    match &operation.state {
        State::Queued => queued(operation, event),
        State::Preparing => preparing(operation, event),
        State::Seeding | State::CatchingUp | State::Ready => replicating(operation, event),
        State::Completing(completing) => completion(operation, completing, event),
        State::Cancelling(cancelling) => cancellation(operation, cancelling, event),
        State::Succeeded | State::Failed | State::Cancelled => Err(unexpected(operation, event)),
    }
}

fn queued(operation: &Operation, event: &Event) -> Result<Operation, Illegal> {
    match event {
        Event::Admitted { now_ms } => {
            let mut next = with(operation, State::Preparing);
            next.times.started_ms = Some(*now_ms);
            Ok(next)
        }
        Event::Tick { .. } => Ok(operation.clone()),
        Event::Complete { .. } => Err(not_ready(operation)),
        _ => Err(unexpected(operation, event)),
    }
}

fn preparing(operation: &Operation, event: &Event) -> Result<Operation, Illegal> {
    match event {
        Event::Begun { findings } => {
            let mut next = with(operation, State::Seeding);
            next.findings = findings.clone();
            Ok(next)
        }
        Event::PreflightFailed { findings } => {
            let message = findings
                .iter()
                .filter(|f| f.severity == Severity::Error)
                .map(|f| f.message.as_str())
                .collect::<Vec<_>>()
                .join("; ");
            let reason = Reason::new("PREFLIGHT_FAILED", message, "mend what the findings name, then start again");
            let mut next = cancelling(operation, Outcome::Failed, reason);
            next.findings = findings.clone();
            Ok(next)
        }
        Event::Tick { .. } => Ok(operation.clone()),
        Event::Complete { .. } => Err(not_ready(operation)),
        _ => Err(unexpected(operation, event)),
    }
}

fn replicating(operation: &Operation, event: &Event) -> Result<Operation, Illegal> {
    match (&operation.state, event) {
        (state, Event::Observed { observation, now_ms }) => {
            let state = match state {
                _ if !observation.seeded => State::Seeding,
                State::Ready if !observation.behind => State::Ready,
                _ if observation.ready => State::Ready,
                _ => State::CatchingUp,
            };
            let mut next = with(operation, state);
            if next.state == State::Ready && next.times.ready_ms.is_none() {
                next.times.ready_ms = Some(*now_ms);
                next.times.deadline_ms = Some(now_ms.saturating_add(next.options.window_ms));
            }
            Ok(next)
        }
        (State::Ready, Event::Complete { max_freeze_ms, grace_ms }) => {
            let attempt = operation.attempt.next();
            let mut next = with(
                operation,
                State::Completing(Completing {
                    attempt,
                    max_freeze_ms: *max_freeze_ms,
                    grace_ms: *grace_ms,
                    retries: RETRIES,
                    step: Step::Cutover,
                }),
            );
            next.attempt = attempt;
            next.reason = None;
            Ok(next)
        }
        (_, Event::Complete { .. }) => Err(not_ready(operation)),
        (_, Event::Tick { .. }) => Ok(operation.clone()),
        _ => Err(unexpected(operation, event)),
    }
}

fn completion(operation: &Operation, completing: &Completing, event: &Event) -> Result<Operation, Illegal> {
    let at = |step: Step| with(operation, State::Completing(Completing { step, ..completing.clone() }));
    match (&completing.step, event) {
        (_, Event::Tick { .. }) => Ok(operation.clone()),
        // A Complete that is repeated changes nothing, unless the attempt is being given up.
        (Step::Cutover | Step::Flipped { .. } | Step::Forgetting { .. }, Event::Complete { .. }) => {
            Ok(operation.clone())
        }
        (
            Step::Aborting { then: Then::Again, .. } | Step::Unfencing { then: Then::Again, .. },
            Event::Complete { .. },
        ) => Ok(operation.clone()),
        (Step::Aborting { .. } | Step::Unfencing { .. }, Event::Complete { .. }) => Err(not_ready(operation)),

        (Step::Cutover, Event::Promoted { attempt, freeze_ms }) if *attempt == completing.attempt => {
            Ok(flipped(operation, *attempt, *freeze_ms))
        }
        (Step::Cutover, Event::CutoverFailed { attempt, reason, again }) if *attempt == completing.attempt => {
            let then = if *again && completing.retries > 0 { Then::Again } else { Then::Ready };
            Ok(at(Step::Aborting { reason: reason.clone(), then }))
        }
        (Step::Aborting { reason, then }, Event::DestDecided(n, answer)) if *n == completing.attempt => match answer {
            DestAnswer::Aborted => Ok(at(Step::Unfencing { reason: reason.clone(), then: then.clone() })),
            DestAnswer::Promoted => Ok(flipped(operation, completing.attempt, 0)),
            // Nothing follows: a source that is fenced stays so until the destination's record is found or an
            // operator decides.
            DestAnswer::Unknown | DestAnswer::Prepared => Ok(operation.clone()),
        },
        (Step::Unfencing { reason, then }, Event::Unfenced(attempt)) if *attempt == completing.attempt => {
            Ok(match then {
                Then::Again => {
                    let attempt = operation.attempt.next();
                    let retries = completing.retries.saturating_sub(1);
                    let again = Completing { attempt, retries, step: Step::Cutover, ..completing.clone() };
                    let mut next = with(operation, State::Completing(again));
                    next.attempt = attempt;
                    next
                }
                Then::Ready => {
                    let mut next = with(operation, State::Ready);
                    next.reason = Some(reason.clone());
                    next
                }
                Then::Cancel(outcome) => cancelling(operation, *outcome, reason.clone()),
            })
        }
        (Step::Flipped { released, finished }, Event::Released | Event::Finished(_)) => {
            let released = *released || *event == Event::Released;
            let finished = *finished || matches!(event, Event::Finished(_));
            let step = match (released, finished) {
                (true, true) => Step::Forgetting { source_clean: false },
                _ => Step::Flipped { released, finished },
            };
            let mut next = at(step);
            if let Event::Finished(hook) = event {
                next.hook = hook.clone();
            }
            Ok(next)
        }
        (Step::Forgetting { source_clean: false }, Event::SourceClean) => {
            Ok(at(Step::Forgetting { source_clean: true }))
        }
        (Step::Forgetting { source_clean: true }, Event::Forgotten { now_ms }) => {
            Ok(ended(operation, State::Succeeded, *now_ms))
        }
        _ => Err(unexpected(operation, event)),
    }
}

fn cancellation(operation: &Operation, now: &Cancelling, event: &Event) -> Result<Operation, Illegal> {
    let at = |step| with(operation, State::Cancelling(Cancelling { step, ..now.clone() }));
    match (now.step, event) {
        (_, Event::Tick { .. }) => Ok(operation.clone()),
        (_, Event::Complete { .. }) => Err(not_ready(operation)),
        (CancelStep::Discarding, Event::Discarded(answer)) => match answer {
            // No fence stands in doubt here (a completion is aborted first), so a destination that knows nothing is clean.
            DestAnswer::Aborted | DestAnswer::Unknown => Ok(at(CancelStep::CleaningSource)),
            DestAnswer::Promoted => Ok(flipped(operation, operation.attempt, 0)),
            DestAnswer::Prepared => Err(unexpected(operation, event)),
        },
        (CancelStep::CleaningSource, Event::SourceClean) => Ok(at(CancelStep::Forgetting)),
        (CancelStep::Forgetting, Event::Forgotten { now_ms }) => {
            let state = match now.outcome {
                Outcome::Cancelled => State::Cancelled,
                Outcome::Failed => State::Failed,
            };
            Ok(ended(operation, state, *now_ms))
        }
        _ => Err(unexpected(operation, event)),
    }
}

fn cancel(operation: &Operation, (outcome, reason): (Outcome, Reason), now_ms: i64) -> Result<Operation, Illegal> {
    match &operation.state {
        State::Queued => {
            // No agent has heard of it yet.
            let state = if outcome == Outcome::Failed { State::Failed } else { State::Cancelled };
            let mut next = ended(operation, state, now_ms);
            next.reason = Some(reason);
            Ok(next)
        }
        State::Preparing | State::Seeding | State::CatchingUp | State::Ready => {
            Ok(cancelling(operation, outcome, reason))
        }
        State::Completing(completing) => {
            let then = Then::Cancel(outcome);
            let step = match &completing.step {
                Step::Cutover | Step::Aborting { .. } => Step::Aborting { reason, then },
                Step::Unfencing { .. } => Step::Unfencing { reason, then },
                Step::Flipped { .. } | Step::Forgetting { .. } => return Err(Illegal::TooLate),
            };
            Ok(with(operation, State::Completing(Completing { step, ..completing.clone() })))
        }
        State::Cancelling(_) => Ok(operation.clone()),
        State::Succeeded | State::Failed | State::Cancelled => Err(Illegal::Ended { state: operation.state.as_str() }),
    }
}

fn forget_source(operation: &Operation, now_ms: i64) -> Result<Operation, Illegal> {
    let next = noting(operation, "forget source", now_ms);
    match &operation.state {
        State::Completing(completing) => {
            let step = match &completing.step {
                Step::Flipped { finished: true, .. } | Step::Forgetting { .. } => {
                    Step::Forgetting { source_clean: true }
                }
                Step::Flipped { finished: false, .. } => Step::Flipped { released: true, finished: false },
                Step::Unfencing { reason, .. } => {
                    return Ok(cancelling(&next, Outcome::Failed, reason.clone()));
                }
                Step::Cutover | Step::Aborting { .. } => return Err(unexpected_word(operation, "forget source")),
            };
            Ok(with(&next, State::Completing(Completing { step, ..completing.clone() })))
        }
        State::Cancelling(Cancelling { outcome, step: CancelStep::CleaningSource }) => {
            Ok(with(&next, State::Cancelling(Cancelling { outcome: *outcome, step: CancelStep::Forgetting })))
        }
        _ => Err(unexpected_word(operation, "forget source")),
    }
}

fn forget_dest(operation: &Operation, now_ms: i64) -> Result<Operation, Illegal> {
    let next = noting(operation, "forget dest", now_ms);
    match &operation.state {
        State::Completing(completing) => match &completing.step {
            Step::Aborting { reason, then } => {
                // A destination that is gone cannot become ready again.
                let then = match then {
                    Then::Again | Then::Ready => Then::Cancel(Outcome::Failed),
                    Then::Cancel(outcome) => Then::Cancel(*outcome),
                };
                let step = Step::Unfencing { reason: reason.clone(), then };
                Ok(with(&next, State::Completing(Completing { step, ..completing.clone() })))
            }
            Step::Flipped { released: false, .. } if operation.kind == Kind::Move => Err(Illegal::LastCopy),
            Step::Flipped { released, .. } => {
                let step = match released {
                    true => Step::Forgetting { source_clean: false },
                    false => Step::Flipped { released: false, finished: true },
                };
                Ok(with(&next, State::Completing(Completing { step, ..completing.clone() })))
            }
            Step::Forgetting { source_clean: true } => Ok(ended(&next, State::Succeeded, now_ms)),
            Step::Cutover | Step::Unfencing { .. } | Step::Forgetting { source_clean: false } => {
                Err(unexpected_word(operation, "forget dest"))
            }
        },
        State::Cancelling(now) => match now.step {
            CancelStep::Discarding => {
                Ok(with(&next, State::Cancelling(Cancelling { step: CancelStep::CleaningSource, ..now.clone() })))
            }
            CancelStep::Forgetting => {
                let state = if now.outcome == Outcome::Failed { State::Failed } else { State::Cancelled };
                Ok(ended(&next, state, now_ms))
            }
            CancelStep::CleaningSource => Err(unexpected_word(operation, "forget dest")),
        },
        _ => Err(unexpected_word(operation, "forget dest")),
    }
}

fn forced_unfence(operation: &Operation, now_ms: i64) -> Result<Operation, Illegal> {
    let next = noting(operation, "force-unfence", now_ms);
    match &operation.state {
        State::Completing(completing) => match &completing.step {
            Step::Cutover | Step::Aborting { .. } | Step::Unfencing { .. } => {
                Ok(cancelling(&next, Outcome::Failed, by_force()))
            }
            // The destination was primary, and whoever asks says that it is gone for ever.
            Step::Flipped { released: false, .. } if operation.kind == Kind::Move => {
                let mut next = cancelling(&next, Outcome::Failed, by_force());
                next.freeze_ms = None;
                Ok(next)
            }
            Step::Flipped { .. } | Step::Forgetting { .. } => Err(Illegal::TooLate),
        },
        _ => Err(unexpected_word(operation, "force-unfence")),
    }
}

fn forced_promote(operation: &Operation, attempt: Attempt, now_ms: i64) -> Operation {
    let next = noting(operation, PROMOTED, now_ms);
    match &operation.state {
        // Somebody else heard of the promotion first: what was done since is not done again, but the override is recorded.
        State::Completing(Completing { step: Step::Flipped { .. } | Step::Forgetting { .. }, .. }) => {
            match operation.overrides.iter().any(|(what, _)| what == PROMOTED) {
                true => operation.clone(),
                false => next,
            }
        }
        _ => flipped(&Operation { attempt: operation.attempt.max(attempt), ..next }, attempt, 0),
    }
}

fn with(operation: &Operation, state: State) -> Operation {
    Operation { state, ..operation.clone() }
}

fn noting(operation: &Operation, what: &str, now_ms: i64) -> Operation {
    let mut next = operation.clone();
    next.overrides.push((what.to_owned(), now_ms));
    next
}

fn cancelling(operation: &Operation, outcome: Outcome, reason: Reason) -> Operation {
    let mut next = with(operation, State::Cancelling(Cancelling { outcome, step: CancelStep::Discarding }));
    next.reason = Some(reason);
    next
}

fn flipped(operation: &Operation, attempt: Attempt, freeze_ms: u64) -> Operation {
    let completing = match &operation.state {
        State::Completing(completing) => completing.clone(),
        _ => Completing { attempt, max_freeze_ms: 0, grace_ms: 0, retries: 0, step: Step::Cutover },
    };
    let step = Step::Flipped { released: false, finished: false };
    let mut next = with(operation, State::Completing(Completing { attempt, step, ..completing }));
    next.freeze_ms = (freeze_ms > 0).then_some(freeze_ms);
    next.reason = None;
    next
}

fn ended(operation: &Operation, state: State, now_ms: i64) -> Operation {
    let mut next = with(operation, state);
    next.times.ended_ms = Some(now_ms);
    next
}

fn not_ready(operation: &Operation) -> Illegal {
    Illegal::NotReady { state: operation.state.as_str() }
}

fn unexpected(operation: &Operation, event: &Event) -> Illegal {
    let event = match event {
        Event::Admitted { .. } => "Admitted",
        Event::PreflightFailed { .. } => "PreflightFailed",
        Event::Begun { .. } => "Begun",
        Event::Observed { .. } => "Observed",
        Event::Tick { .. } => "Tick",
        Event::Complete { .. } => "Complete",
        Event::Cancel { .. } => "Cancel",
        Event::Fail { .. } => "Fail",
        Event::Promoted { .. } => "Promoted",
        Event::CutoverFailed { .. } => "CutoverFailed",
        Event::DestDecided(..) => "DestDecided",
        Event::Discarded(_) => "Discarded",
        Event::Unfenced(_) => "Unfenced",
        Event::Released => "Released",
        Event::Finished(_) => "Finished",
        Event::SourceClean => "SourceClean",
        Event::Forgotten { .. } => "Forgotten",
        Event::ForgetSource { .. } => "ForgetSource",
        Event::ForgetDest { .. } => "ForgetDest",
        Event::ForcedUnfence { .. } => "ForcedUnfence",
        Event::ForcedPromote { .. } => "ForcedPromote",
    };
    unexpected_word(operation, event)
}

fn unexpected_word(operation: &Operation, event: &'static str) -> Illegal {
    Illegal::Unexpected { event, state: operation.state.as_str() }
}
