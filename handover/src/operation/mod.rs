//! One operation as the coordinator keeps it: its states, what may happen to it, and what follows.

mod event;
mod state;
mod step;

pub use event::{Action, Event, Observation};
pub use state::{
    CancelStep, Cancelling, Completing, CompletionStep, HookOutcome, Operation, Options, Outcome, Reason, State, Then,
    Times,
};
pub use step::{Illegal, actions, step};
