//! An operation in words: what is going on, who may write, and what a person can do. Pure: whoever asks has asked the agents.

mod choices;
mod words;

#[cfg(test)]
mod tests;

use handover::operation::{CompletionStep, Operation, State};

pub use choices::{Choice, choices};
pub use words::{summary, writers};

/// What an agent said about the operation when it was asked for this explanation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Its role is in this phase, in its own word.
    Phase(String),
    /// Its instance has no record of the operation.
    Nothing,
    /// Nobody answered, or not so that it could be understood: why.
    Silent(String),
    /// It was not asked: nothing can depend on it in this state.
    Unasked,
}

impl Said {
    fn phase(&self) -> Option<&str> {
        match self {
            Said::Phase(phase) => Some(phase),
            Said::Nothing | Said::Silent(_) | Said::Unasked => None,
        }
    }

    /// Whether the side may be gone: it does not answer, or has forgotten.
    fn may_be_gone(&self) -> bool {
        matches!(self, Said::Nothing | Said::Silent(_))
    }

    /// The answer in words.
    pub fn words(&self) -> String {
        match self {
            Said::Phase(phase) => format!("it is {phase}"),
            Said::Nothing => "its instance has no record of the operation".to_owned(),
            Said::Silent(why) => format!("it does not answer: {why}"),
            Said::Unasked => "it was not asked".to_owned(),
        }
    }
}

/// Both agents' answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sides {
    /// The source agent's.
    pub source: Said,
    /// The destination agent's.
    pub dest: Said,
}

/// Whether the agents know of the operation in this state, so that it is worth asking them.
pub fn concerns_agents(operation: &Operation) -> bool {
    operation.state.running()
}

/// The completion's step, if there is one.
fn step(operation: &Operation) -> Option<&CompletionStep> {
    match &operation.state {
        State::Completing(completing) => Some(&completing.step),
        _ => None,
    }
}
