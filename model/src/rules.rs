//! The functions of `handover`, as the services call them; with a mutation, as they must not be.

use crate::{
    Mutation,
    world::{NOW_MS, reason},
};
use handover::{
    Attempt,
    dest_role::{self, DestRole},
    operation::{self, CancelStep, Cancelling, CompletionStep, Event, Operation, Outcome, State},
    source_role::{self, DestAnswer, SourceRole},
};

/// The rules of one model.
#[derive(Clone, Copy, Debug)]
pub struct Rules(pub Option<Mutation>);

impl Rules {
    /// Whether this fault is put in.
    pub fn broken(self, mutation: Mutation) -> bool {
        self.0 == Some(mutation)
    }

    /// What the coordinator makes of an event; nothing if it is illegal or changes nothing.
    pub fn operation(self, before: &Operation, event: &Event) -> Option<Operation> {
        let next = operation::step(before, event).ok()?;
        let next = canonical(self.mutated(event, next));
        (next != *before).then_some(next)
    }

    /// What the coordinator does in a state.
    pub fn actions(self, operation: &Operation) -> Vec<operation::Action> {
        let mut actions = operation::actions(operation);
        if self.broken(Mutation::ReleaseAtCutover)
            && let Some(operation::Action::CutOver(n)) = actions.first().cloned()
        {
            actions.push(operation::Action::Release(n));
        }
        actions
    }

    fn mutated(self, event: &Event, mut next: Operation) -> Operation {
        let Some(mutation) = self.0 else { return next };
        let step = match &mut next.state {
            State::Completing(completing) => Some(&mut completing.step),
            _ => None,
        };
        match (mutation, event, step) {
            (Mutation::UnfenceWithoutAbort, Event::CutoverFailed { .. }, Some(step)) => {
                if let CompletionStep::Aborting { reason, then } = step.clone() {
                    *step = CompletionStep::Unfencing { reason, then };
                }
            }
            (Mutation::ForgetBeforeClean, _, Some(CompletionStep::Forgetting { source_clean })) => *source_clean = true,
            (Mutation::CleanBeforeDiscard, Event::Cancel { .. }, Some(_)) => {
                let step = CancelStep::CleaningSource;
                next.state = State::Cancelling(Cancelling { outcome: Outcome::Cancelled, step });
            }
            (Mutation::DiscardIgnoresPrimary, Event::Cancel { .. }, Some(_)) => {
                let step = CancelStep::Discarding;
                next.state = State::Cancelling(Cancelling { outcome: Outcome::Cancelled, step });
            }
            _ => {}
        }
        next
    }

    /// The source's role.
    pub fn source(
        self,
        role: &SourceRole,
        event: &source_role::Event,
    ) -> Result<source_role::Step, source_role::Refusal> {
        match (self.0, event) {
            (Some(Mutation::LateFenceObeyed), source_role::Event::Fence(_, n)) => {
                let role = SourceRole { floor: Attempt(0), ..role.clone() };
                source_role::step(&role, &source_role::Event::Fence(role.version, *n))
            }
            (Some(Mutation::ReopenOnUnknown), source_role::Event::DestAnswered(n, DestAnswer::Unknown)) => {
                source_role::step(role, &source_role::Event::DestAnswered(*n, DestAnswer::Aborted))
            }
            _ => source_role::step(role, event),
        }
    }

    /// The destination's role.
    pub fn dest(self, role: &DestRole, event: &dest_role::Event) -> Result<dest_role::Step, dest_role::Refusal> {
        use dest_role::{Action, Answer, Event, Phase, Refusal, Step};
        let step = dest_role::step(role, event);
        let primary = matches!(role.phase, Phase::Primary { .. });
        match (self.0, event, step) {
            (Some(Mutation::PromoteUnprepared), Event::Promote(version, n), Err(Refusal::NotPrepared { .. })) => {
                let next = DestRole { version: *version, phase: Phase::Primary { attempt: *n }, ..role.clone() };
                Ok(Step { next, actions: vec![Action::Open], answer: Answer::Decided(DestAnswer::Promoted) })
            }
            (Some(Mutation::AbortWithoutFloor), Event::Abort(..), Ok(mut step)) => {
                step.next.floor = role.floor;
                Ok(step)
            }
            (Some(Mutation::AbortIgnoresPrimary), Event::Abort(..), Ok(mut step)) if primary => {
                step.answer = Answer::Decided(DestAnswer::Aborted);
                Ok(step)
            }
            (Some(Mutation::DiscardIgnoresPrimary), Event::Discard(_), Ok(_)) if primary => {
                let next = DestRole { phase: Phase::Discarding, ..role.clone() };
                let answer = Answer::Decided(DestAnswer::Aborted);
                Ok(Step { next, actions: vec![Action::RemoveAll], answer })
            }
            (_, _, step) => step,
        }
    }
}

/// An operation without what no rule looks at: reasons, and times but for the deadline. States that differ in nothing else
/// are one.
fn canonical(mut operation: Operation) -> Operation {
    operation.reason = None;
    operation.overrides.sort();
    operation.overrides.dedup();
    operation.freeze_ms = None;
    operation.times.ended_ms = operation.times.ended_ms.map(|_| NOW_MS);
    if let State::Completing(completing) = &mut operation.state
        && let CompletionStep::Aborting { reason: why, .. } | CompletionStep::Unfencing { reason: why, .. } =
            &mut completing.step
    {
        *why = reason();
    }
    operation
}
