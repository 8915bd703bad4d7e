//! The two agents of an instance as the coordinator calls them: plain values in, plain values out.

mod error;
mod rpc;

pub use error::{Error, Half, Party};
pub use rpc::{Agents, DestAgent, SourceAgent, Timeouts};

use std::time::Duration;

use handover::{
    Attempt, CommandVersion, DatabaseName, Finding, Kind, OperationId,
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
    /// The operations that its instance has a record of.
    pub operations: Vec<Remembered>,
    /// The highest version with which a record was removed.
    pub watermark: CommandVersion,
}

/// What an agent remembers of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// The operation.
    pub operation: OperationId,
    /// The database.
    pub database: DatabaseName,
    /// Copy or move.
    pub kind: Kind,
    /// The role's phase, in a word.
    pub phase: String,
    /// The attempt that the phase is about; 0 if it is about none.
    pub attempt: Attempt,
    /// The highest closed attempt.
    pub floor: Attempt,
    /// The highest version of any command obeyed.
    pub version: CommandVersion,
    /// Of a source agent: where it streams to.
    pub dest_address: String,
    /// Of a destination agent: whose stream it takes; empty without TLS.
    pub source_identity: String,
    /// Of a source agent: the cap of retained log as given at the start.
    pub log_budget_bytes: u64,
    /// Of a source agent: when it last heard a coordinator about it.
    pub heard_ago: Option<Duration>,
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
