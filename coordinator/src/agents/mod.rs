//! The two agents of an instance as the coordinator calls them: plain values in, plain values out.

mod error;
mod rpc;

pub use error::{Error, Half, Party};
pub use rpc::{Agents, DestAgent, SourceAgent, Timeouts};

use handover::{
    Finding,
    operation::{HookOutcome, Reason},
};

use crate::progress::Progress;

/// What an agent says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// `source` or `dest`.
    pub half: String,
    /// Its instance.
    pub instance: String,
    /// Its engine.
    pub engine: String,
    /// Of the transfer protocol.
    pub protocol: u32,
}

/// What a source agent demands of a destination for one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceJudgement {
    /// What it found.
    pub findings: Vec<Finding>,
    /// Opaque, for the destination.
    pub requirements: Vec<u8>,
}

/// Where an operation stands at its source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceStatus {
    /// The role's phase, in a word.
    pub phase: String,
    /// How far it is.
    pub progress: Progress,
    /// The log lane to the destination is up.
    pub connected: bool,
    /// The destination has confirmed the seed.
    pub seeded: bool,
    /// What keeps it from going on.
    pub trouble: Option<Reason>,
    /// Waiting does not cure the trouble.
    pub fatal: bool,
}

impl SourceStatus {
    /// Whether clients may be refused at the source.
    pub fn fenced(&self) -> bool {
        matches!(self.phase.as_str(), "fencing" | "fenced")
    }
}

/// Where an operation stands at its destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DestStatus {
    /// The role's phase, in a word.
    pub phase: String,
    /// How far it is.
    pub progress: Progress,
    /// What keeps it from going on.
    pub trouble: Option<Reason>,
    /// Waiting does not cure the trouble.
    pub fatal: bool,
}

impl DestStatus {
    /// Whether it is past its seed.
    pub fn seeded(&self) -> bool {
        matches!(self.phase.as_str(), "replica" | "prepared" | "primary")
    }

    /// Whether it is primary.
    pub fn is_primary(&self) -> bool {
        self.phase == "primary"
    }

    /// Whether it is primary, or one command away from it.
    pub fn may_be_primary(&self) -> bool {
        matches!(self.phase.as_str(), "prepared" | "primary")
    }
}

/// What `Begin` tells a source.
#[derive(Clone, Copy, Debug)]
pub struct DestAddress<'a> {
    /// `host:port` as source agents reach it.
    pub address: &'a str,
    /// The instance that must answer there.
    pub instance: &'a str,
    /// The name its certificate must carry; may be empty.
    pub identity: &'a str,
}

/// A database as its agent lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseInfo {
    /// Its name, as the engine spells it.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// `online`, `fenced`, `tombstone`, `incoming` or an engine's own word.
    pub state: String,
    /// What stands in the way of a move.
    pub findings: Vec<Finding>,
}

/// What `Finish` answers: the outcome of the hook, if there is one.
pub type Hook = Option<HookOutcome>;
