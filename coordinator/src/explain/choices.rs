//! What a person can do, the mildest first. What the state machine would refuse is not offered.

use handover::{
    Kind,
    operation::{CompletionStep as Step, Event, Operation, State, step as advance},
};

use super::{Said, Sides};

/// One thing that a person can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The command line; empty for what is done elsewhere.
    pub command: String,
    /// What to do elsewhere, or when this is the right command, and what comes of it.
    pub effect: String,
    /// It can lose data or make two primaries if its condition is not met, and asks twice.
    pub is_override: bool,
}

/// What can be done about an operation now. `waiting` names the parties that it waits for.
pub fn choices(operation: &Operation, sides: &Sides, waiting: &[String], now_ms: i64) -> Vec<Choice> {
    let mut all = Vec::new();
    if operation.state.ended() {
        return all;
    }
    absent(operation, sides, waiting, &mut all);
    ordinary(operation, now_ms, &mut all);
    overrides(operation, sides, now_ms, &mut all);
    all
}

/// Whoever does not answer is to be brought back: everything else follows by itself.
fn absent(operation: &Operation, sides: &Sides, waiting: &[String], all: &mut Vec<Choice>) {
    let parties = [
        ("source agent", &operation.source, &sides.source),
        ("destination agent", &operation.destination, &sides.dest),
    ];
    for (what, instance, said) in parties {
        let effect = match said {
            Said::Silent(_) => format!(
                "Start the {what} of {instance} again, here or elsewhere, or mend the way to it. Nothing else is needed: it \
                 finds what it has to do in its instance, and the operation goes on by itself, however long that took."
            ),
            Said::Nothing => format!(
                "Find out why {instance} has no record of the operation. If it was restored from a backup, or another instance \
                 answers at this address, bring the right one back; the operation then goes on by itself."
            ),
            Said::Phase(_) | Said::Unasked => continue,
        };
        all.push(Choice { command: String::new(), effect, is_override: false });
    }
    if all.is_empty() && operation.state != State::Ready {
        let effect = match waiting {
            [] => "Wait: it goes on by itself.".to_owned(),
            _ => "See to what it waits for, which is named above; then it goes on by itself.".to_owned(),
        };
        all.push(Choice { command: String::new(), effect, is_override: false });
    }
}

fn ordinary(operation: &Operation, now_ms: i64, all: &mut Vec<Choice>) {
    let Operation { id, kind, source, destination, .. } = operation;
    let mut offer = |event: Event, verb: &str, effect: String| {
        if takes(operation, &event) {
            let command = format!("causeway {kind} {verb} {id}");
            all.push(Choice { command, effect, is_override: false });
        }
    };
    let complete = match kind {
        Kind::Move => {
            format!("Flip: {source} is closed for a moment, {destination} opens, and {source} drops its database.")
        }
        Kind::Copy => format!("Open the copy at {destination}; {source} goes on serving."),
    };
    offer(Event::Complete { max_freeze_ms: 1, grace_ms: 1 }, "complete", complete);
    let cancel = match &operation.state {
        State::Completing(_) => format!(
            "End it without a flip, unless {destination} turns out to be primary: then it goes on to its end. Like every way \
             back, this needs an answer of {destination}."
        ),
        State::Queued => "Take it out of the queue.".to_owned(),
        _ => format!("End it without a flip: {destination} removes what it has, and {source} is as it was."),
    };
    offer(Event::Cancel { now_ms }, "cancel", cancel);
}

fn overrides(operation: &Operation, sides: &Sides, now_ms: i64, all: &mut Vec<Choice>) {
    if operation.state == State::Queued {
        return;
    }
    let Operation { id, source, destination, database, kind, .. } = operation;
    let mut offer = |event: Event, command: &str, effect: String| {
        if takes(operation, &event) {
            let command = format!("causeway operation {command} {id}");
            all.push(Choice { command, effect, is_override: true });
        }
    };
    if sides.dest.may_be_gone() {
        let next = match super::step(operation) {
            Some(Step::Aborting { .. }) => format!(
                "{source} is opened again, and the operation fails. If {destination} was promoted, there are then two primaries"
            ),
            Some(_) => "the operation goes on to its end without it".to_owned(),
            None => format!("{source} is cleaned up, and the operation ends"),
        };
        offer(
            Event::ForgetDest { now_ms },
            "forget --side dest",
            format!("Only if {destination} is gone for ever: {next}."),
        );
    }
    if sides.source.may_be_gone() {
        offer(
            Event::ForgetSource { now_ms },
            "forget --side source",
            format!(
                "Only if {source} is gone for ever: the operation goes on as if it were clean. What it still has of the \
                 operation, a fence too, has to be removed by hand should it come back."
            ),
        );
    }
    let dest_may_serve = matches!(sides.dest.phase(), Some("primary" | "prepared"));
    let fenced = !matches!(sides.source.phase(), Some("replicating" | "releasing" | "released" | "cleaning up"));
    if !dest_may_serve && fenced && !matches!(sides.source, Said::Nothing) {
        let lost = match super::step(operation) {
            Some(Step::Flipped { .. }) => format!("; what clients wrote at {destination} since the flip is lost"),
            _ => String::new(),
        };
        offer(
            Event::ForcedUnfence { now_ms },
            "force-unfence",
            format!(
                "Only if {destination} is gone for ever, or certainly not primary: {source} is opened again at once, and the \
                 operation fails{lost}. If {destination} is primary, there are then two primaries."
            ),
        );
    }
    let whole = matches!(sides.dest.phase(), Some("replica" | "prepared"));
    if *kind == Kind::Move && sides.source.may_be_gone() && whole {
        offer(
            Event::ForcedPromote { attempt: operation.attempt, now_ms },
            "force-promote",
            format!(
                "Only if {source} is gone for ever: {database} is opened at {destination} as it is there. What {source} \
                 committed after the last log that arrived is lost."
            ),
        );
    }
}

/// Whether the state machine would take the event, and something would come of it.
fn takes(operation: &Operation, event: &Event) -> bool {
    advance(operation, event).is_ok_and(|next| next.state != operation.state)
}
