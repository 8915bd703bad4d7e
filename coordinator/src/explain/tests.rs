//! Every state and half-flip has words, and what is offered is what the state machine takes.

use handover::{
    Attempt, Kind,
    operation::{
        CancelStep, Cancelling, Completing, CompletionStep as Step, Operation, Outcome, Reason, State, Then, Times,
    },
};

use super::*;
use crate::fixture;

fn operation(kind: Kind, state: State) -> Operation {
    let ready = matches!(state, State::Ready);
    Operation {
        attempt: Attempt(1),
        reason: Some(Reason::new("FREEZE_EXCEEDED", "the freeze took too long.", "")),
        times: Times { ready_ms: ready.then_some(1), deadline_ms: ready.then_some(9), ..Times::default() },
        ..fixture::operation(kind, state)
    }
}

fn completing(step: Step) -> State {
    State::Completing(Completing { attempt: Attempt(1), max_freeze_ms: 2000, grace_ms: 1, retries: 5, step })
}

fn cancelling(step: CancelStep) -> State {
    State::Cancelling(Cancelling { outcome: Outcome::Cancelled, step })
}

fn states() -> Vec<State> {
    let reason = || Reason::new("FREEZE_EXCEEDED", "the freeze took too long.", "");
    let thens = [Then::Again, Then::Ready, Then::Cancel(Outcome::Cancelled), Then::Cancel(Outcome::Failed)];
    let mut all = vec![
        State::Queued,
        State::Preparing,
        State::Seeding,
        State::CatchingUp,
        State::Ready,
        completing(Step::Cutover),
        completing(Step::Flipped { released: false, finished: false }),
        completing(Step::Flipped { released: true, finished: false }),
        completing(Step::Flipped { released: false, finished: true }),
        completing(Step::Forgetting { source_clean: false }),
        completing(Step::Forgetting { source_clean: true }),
        cancelling(CancelStep::Discarding),
        cancelling(CancelStep::CleaningSource),
        cancelling(CancelStep::Forgetting),
        State::Succeeded,
        State::Failed,
        State::Cancelled,
    ];
    for then in thens {
        all.push(completing(Step::Aborting { reason: reason(), then: then.clone() }));
        all.push(completing(Step::Unfencing { reason: reason(), then }));
    }
    all
}

fn said() -> Vec<Said> {
    let mut all = vec![Said::Nothing, Said::Silent("refused".to_owned()), Said::Unasked];
    for phase in ["replicating", "fencing", "fenced", "releasing", "released", "replica", "prepared", "primary"] {
        all.push(Said::Phase(phase.to_owned()));
    }
    all
}

fn phase(name: &str) -> Said {
    Said::Phase(name.to_owned())
}

fn silent() -> Said {
    Said::Silent("connection refused".to_owned())
}

fn offered(operation: &Operation, source: Said, dest: Said) -> Vec<String> {
    let all = choices(operation, &Sides { source, dest }, &[], 1);
    all.into_iter().map(|choice| choice.command).filter(|command| !command.is_empty()).collect()
}

#[test]
fn every_state_has_words_and_its_own() {
    for kind in [Kind::Move, Kind::Copy] {
        let mut seen = std::collections::BTreeSet::new();
        for state in states() {
            let operation = operation(kind, state.clone());
            let words = summary(&operation, 3);
            assert!(words.ends_with('.') && !words.contains("..") && !words.contains("  "), "{state:?}: {words}");
            assert!(words.contains("west") || words.contains("east"), "{state:?}: {words}");
            assert!(seen.insert(words.clone()), "{state:?} is told like another state: {words}");
            for source in said() {
                for dest in said() {
                    let sides = Sides { source: source.clone(), dest };
                    assert!(!writers(&operation, &sides).is_empty());
                    let choices = choices(&operation, &sides, &[], 1);
                    assert_eq!(choices.is_empty(), operation.state.ended(), "{state:?}: {choices:?}");
                    assert!(choices.iter().all(|choice| choice.effect.ends_with('.')), "{choices:?}");
                    // Overrides come after everything milder.
                    let first = choices.iter().position(|choice| choice.is_override).unwrap_or(choices.len());
                    assert!(choices[first..].iter().all(|choice| choice.is_override), "{choices:?}");
                }
            }
        }
    }
}

#[test]
fn while_both_agents_answer_nothing_is_overridden_but_a_fence_that_may_be_lifted() {
    for state in states() {
        let operation = operation(Kind::Move, state);
        let primary = offered(&operation, phase("fenced"), phase("primary"));
        assert!(!primary.iter().any(|command| command.contains("operation ")), "{primary:?}");
        let open = offered(&operation, phase("replicating"), phase("replica"));
        assert!(!open.iter().any(|command| command.contains("operation ")), "{open:?}");
    }
}

#[test]
fn a_half_flip_names_what_helps() {
    let reason = Reason::new("R", "too long", "");
    let aborting = operation(Kind::Move, completing(Step::Aborting { reason, then: Then::Ready }));
    let commands = offered(&aborting, phase("fenced"), silent());
    assert_eq!(
        commands,
        [
            "causeway move cancel 0197-a",
            "causeway operation forget --side dest 0197-a",
            "causeway operation force-unfence 0197-a"
        ]
    );
    let sides = Sides { source: phase("fenced"), dest: silent() };
    assert_eq!(writers(&aborting, &sides), "Nobody: west is closed, and east is not open.");
    let mildest = &choices(&aborting, &sides, &[], 1)[0];
    assert!(mildest.effect.starts_with("Start the destination agent of east again"), "{mildest:?}");

    let flipped = operation(Kind::Move, completing(Step::Flipped { released: false, finished: true }));
    let gone = offered(&flipped, silent(), phase("primary"));
    assert_eq!(gone, ["causeway operation forget --side source 0197-a"], "the source away for a day");
    let lost = offered(&flipped, phase("fenced"), Said::Nothing);
    assert_eq!(lost, ["causeway operation force-unfence 0197-a"], "the last copy is not dropped");

    let ready = operation(Kind::Move, State::Ready);
    let promote = offered(&ready, silent(), phase("replica"));
    assert!(promote.iter().any(|command| command == "causeway operation force-promote 0197-a"), "{promote:?}");
}

#[test]
fn two_primaries_by_an_override_are_said_loudly() {
    let flipped = operation(Kind::Move, completing(Step::Flipped { released: false, finished: false }));
    let sides = Sides { source: phase("replicating"), dest: phase("primary") };
    assert!(writers(&flipped, &sides).contains("two primaries"));
    let copy = operation(Kind::Copy, flipped.state);
    assert_eq!(writers(&copy, &sides), "Clients may write at west, and to the copy at east.");
}
