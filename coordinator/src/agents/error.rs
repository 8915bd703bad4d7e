//! Why a call to an agent has no result.

use std::fmt;

use handover::{CommandVersion, InstanceName, Side, operation::Reason};

/// One of the two agents of an instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Half {
    /// The source agent.
    Source,
    /// The destination agent.
    Dest,
}

impl Half {
    /// The side of a finding about it.
    pub fn side(self) -> Side {
        match self {
            Half::Source => Side::Source,
            Half::Dest => Side::Dest,
        }
    }

    /// `source` or `dest`, as agents name themselves.
    pub fn as_str(self) -> &'static str {
        match self {
            Half::Source => "source",
            Half::Dest => "dest",
        }
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Half::Source => "source agent",
            Half::Dest => "destination agent",
        })
    }
}

/// An agent, as shown to people: `source agent west at 127.0.0.1:4711`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Party {
    /// Which of the two.
    pub half: Half,
    /// Its instance.
    pub instance: InstanceName,
    /// Where it should listen.
    pub address: String,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.half, self.instance)?;
        if !self.address.is_empty() {
            write!(f, " at {}", self.address)?;
        }
        Ok(())
    }
}

/// Why a call to an agent has no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there, or not in time; the command may have been obeyed nevertheless.
    #[error("{party}: {message}")]
    Unreachable {
        /// Who.
        party: Party,
        /// Why.
        message: String,
        /// What to do about it; may be empty.
        remedy: String,
    },
    /// The address or the certificate is wrong: a person has to mend it, but may do so at any time.
    #[error("{party}: {message}")]
    Misconfigured {
        /// Who.
        party: Party,
        /// What is wrong.
        message: String,
        /// What to do about it; may be empty.
        remedy: String,
    },
    /// It answered no.
    #[error("{party}: {}", reason.message)]
    Refused {
        /// Who.
        party: Party,
        /// Its stable reason, sentence and remedy.
        reason: Box<Reason>,
        /// It says that the same may succeed later.
        retryable: bool,
        /// With `STALE_VERSION`: the version it knows, if it told.
        known: Option<CommandVersion>,
    },
    /// It answered something that cannot be.
    #[error("{party}: {message}")]
    Malformed {
        /// Who.
        party: Party,
        /// What is wrong with the answer.
        message: String,
    },
}

impl Error {
    /// Who it is about.
    pub fn party(&self) -> &Party {
        match self {
            Error::Unreachable { party, .. }
            | Error::Misconfigured { party, .. }
            | Error::Refused { party, .. }
            | Error::Malformed { party, .. } => party,
        }
    }

    /// Whether the same call may succeed later without anything happening to the operation.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Misconfigured { .. } => true,
            Error::Refused { retryable, .. } => *retryable,
            Error::Malformed { .. } => false,
        }
    }

    /// Whether the agent did not answer at all.
    pub fn unreachable(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Misconfigured { .. })
    }

    /// Whether the agent refused with this stable reason.
    pub fn is(&self, code: &str) -> bool {
        matches!(self, Error::Refused { reason, .. } if reason.code == code)
    }

    /// Whether the agent's instance has no record of the operation.
    pub fn unknown_operation(&self) -> bool {
        self.is("OPERATION_UNKNOWN")
    }

    /// The reason as an operation keeps it.
    pub fn reason(&self) -> Reason {
        let party = self.party();
        match self {
            Error::Refused { reason, .. } => {
                Reason::new(&reason.code, format!("{party}: {}", reason.message), reason.remedy.clone())
            }
            Error::Unreachable { message, remedy, .. } | Error::Misconfigured { message, remedy, .. } => {
                let code = match party.half {
                    Half::Source => "SOURCE_AGENT_UNREACHABLE",
                    Half::Dest => "DEST_AGENT_UNREACHABLE",
                };
                let remedy = match remedy.as_str() {
                    "" => format!("start the {party}, or correct its address"),
                    remedy => remedy.to_owned(),
                };
                Reason::new(code, format!("{party}: {message}"), remedy)
            }
            Error::Malformed { message, .. } => {
                let remedy = "run the same version of coordinator and agents";
                Reason::new("AGENT_ANSWER_MALFORMED", format!("{party}: {message}"), remedy)
            }
        }
    }
}
