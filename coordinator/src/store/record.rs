//! The records of the store: operations, instances and requests, with what the coordinator adds to them.

use handover::{
    Attempt, CommandVersion, DatabaseName, InstanceName, Kind, OperationId,
    operation::{CompletionStep, Operation, State},
};
use serde::{Deserialize, Serialize};

use crate::progress::Progress;

/// An operation as stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The operation of the state machine.
    pub operation: Operation,
    /// The longest freeze given with the last Complete, in milliseconds; 0 before.
    #[serde(default)]
    pub max_freeze_ms: u64,
    /// When the present attempt's cutover began.
    #[serde(default)]
    pub cutover: Option<CutoverStart>,
    /// Wall clock when it came into its present state and step, in milliseconds since 1970; nothing in a record of an
    /// earlier version.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// How far it was at the last change of its state.
    #[serde(default)]
    pub progress: Progress,
    /// Who did what about it, oldest first.
    #[serde(default)]
    pub deeds: Vec<Deed>,
}

/// Deeds that a record keeps: the start, and the newest others. Completions that are aborted and asked for again are what
/// makes many.
const DEEDS_MAX: usize = 32;

/// What somebody did about an operation, with effect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deed {
    /// What.
    pub what: Done,
    /// The caller's name, such as `user:ann`.
    pub by: String,
    /// Wall clock in milliseconds since 1970.
    pub at_ms: i64,
}

/// What can be done about an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// It was started.
    Start,
    /// Its completion was asked for.
    Complete,
    /// Its end was asked for.
    Cancel,
    /// It was overridden; the operation's `overrides` say how.
    Override,
}

/// When an attempt's cutover began, so that a restarted coordinator keeps to the user's limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CutoverStart {
    /// The attempt.
    pub attempt: Attempt,
    /// Wall clock in milliseconds since 1970.
    pub at_ms: i64,
}

impl Record {
    /// The record of a new operation.
    pub fn new(operation: Operation) -> Self {
        let since_ms = Some(operation.times.created_ms);
        Self { operation, max_freeze_ms: 0, cutover: None, since_ms, progress: Progress::default(), deeds: Vec::new() }
    }

    /// The record with a note of who did something about it.
    pub fn done(mut self, what: Done, by: impl ToString, at_ms: i64) -> Self {
        if self.deeds.len() >= DEEDS_MAX {
            self.deeds.remove(1);
        }
        self.deeds.push(Deed { what, by: by.to_string(), at_ms });
        self
    }

    /// The record after a step of the state machine at `now_ms`.
    pub fn advanced(&self, next: Operation, now_ms: i64) -> Self {
        let mut record = Self { operation: next, ..self.clone() };
        if record.operation.state != self.operation.state {
            record.since_ms = Some(now_ms);
        }
        if let State::Completing(completing) = &record.operation.state {
            if completing.max_freeze_ms > 0 {
                record.max_freeze_ms = completing.max_freeze_ms;
            }
            let begun = record.cutover.is_some_and(|start| start.attempt == completing.attempt);
            if completing.step == CompletionStep::Cutover && !begun {
                record.cutover = Some(CutoverStart { attempt: completing.attempt, at_ms: now_ms });
            }
        }
        record
    }
}

/// An operation's record with its version, which is also the version its commands carry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The version.
    pub version: CommandVersion,
    /// The record.
    pub record: Record,
}

impl Done {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Complete => "complete",
            Self::Cancel => "cancel",
            Self::Override => "override",
        }
    }
}

impl Stored {
    /// The operation.
    pub fn operation(&self) -> &Operation {
        &self.record.operation
    }

    /// Its id.
    pub fn id(&self) -> &OperationId {
        &self.record.operation.id
    }
}

/// An instance as stored, or as configured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceRecord {
    /// Its name.
    pub name: InstanceName,
    /// Its engine.
    pub engine: String,
    /// `host:port` of its source agent; empty if it is only a destination.
    #[serde(default)]
    pub source_agent: String,
    /// `host:port` of its destination agent as the coordinator reaches it; empty if it is only a source.
    #[serde(default)]
    pub dest_agent: String,
    /// `host:port` of its destination agent as source agents reach it; empty: `dest_agent`.
    #[serde(default)]
    pub transfer_address: String,
    /// Any text.
    #[serde(default)]
    pub subscription: String,
    /// Any text.
    #[serde(default)]
    pub resource_group: String,
    /// Any text.
    #[serde(default)]
    pub region: String,
    /// Empty: none.
    #[serde(default)]
    pub failover_group: String,
    /// Name in the source agent's certificate; empty: the one that follows from the instance's name.
    #[serde(default)]
    pub source_identity: String,
    /// Name in the destination agent's certificate; empty: the one that follows from the instance's name.
    #[serde(default)]
    pub dest_identity: String,
}

impl InstanceRecord {
    /// Where source agents reach its destination agent.
    pub fn transfer_address(&self) -> &str {
        if self.transfer_address.is_empty() { &self.dest_agent } else { &self.transfer_address }
    }

    /// Who its source agent must prove to be.
    pub fn source_identity(&self) -> String {
        if self.source_identity.is_empty() {
            format!("spiffe://causeway/agent-source/{}", self.name)
        } else {
            self.source_identity.clone()
        }
    }

    /// Who its destination agent must prove to be.
    pub fn dest_identity(&self) -> String {
        if self.dest_identity.is_empty() {
            format!("spiffe://causeway/agent-dest/{}", self.name)
        } else {
            self.dest_identity.clone()
        }
    }
}

/// A start request that carried an id. It is kept whole: small, and better to read than a hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The batch it started.
    pub batch: String,
    /// Copy or move.
    pub kind: Kind,
    /// The source instance.
    pub source: InstanceName,
    /// The destination instance.
    pub destination: InstanceName,
    /// The databases in their order.
    pub databases: Vec<DatabaseName>,
    /// As given; 0 for the default.
    pub log_budget_bytes: u64,
    /// As given; 0 for the default.
    pub window_seconds: u64,
}

impl RequestRecord {
    /// Whether the other asks for the same.
    pub fn same_as(&self, other: &RequestRecord) -> bool {
        RequestRecord { batch: other.batch.clone(), ..self.clone() } == *other
    }
}
