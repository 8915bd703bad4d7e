//! When a watch is over, and with which exit code.

use super::*;
use crate::view::tests::operation;

fn in_state(state: &str) -> Operation {
    Operation { state: state.to_owned(), ..operation() }
}

#[test]
fn goals_are_reached_and_judged() {
    for (goal, state, reached, verdict) in [
        (Goal::Ready, "seeding", false, Exit::Failed),
        (Goal::Ready, "ready_for_completion", true, Exit::Ok),
        (Goal::Ready, "cancelled", true, Exit::Failed),
        (Goal::Ended, "ready_for_completion", false, Exit::Failed),
        (Goal::Ended, "succeeded", true, Exit::Ok),
        (Goal::Ended, "failed", true, Exit::Failed),
        (Goal::Completed, "completing", false, Exit::Failed),
        (Goal::Completed, "ready_for_completion", true, Exit::Failed),
        (Goal::Completed, "succeeded", true, Exit::Ok),
    ] {
        let operation = in_state(state);
        assert_eq!(goal.is_reached(&operation), reached, "{goal:?} {state}");
        assert_eq!(goal.verdict(&[operation]), verdict, "{goal:?} {state}");
    }
}

#[test]
fn an_older_state_does_not_count() {
    let known = Operation { version: 9, state: "completing".to_owned(), ..operation() };
    let mut watch = Watch { goal: Goal::Completed, newest: [(known.id.clone(), known.clone())].into() };
    let mut wire = v1::Operation { id: known.id, version: 8, ..Default::default() };
    wire.set_state(v1::State::ReadyForCompletion);
    watch.take(&wire, &mut Lines::new());
    assert!(!watch.is_over(), "version 8 is from before the completion");
    wire.version = 10;
    watch.take(&wire, &mut Lines::new());
    assert!(watch.is_over(), "version 10 went back to ready");
}
