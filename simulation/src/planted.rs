//! Faults put in on purpose, to see that the simulation finds them: each is a lie of an engine or of a disk. They live here,
//! not in what runs outside.

use crate::machine::Process;
use bytes::Bytes;
use engines::source::LogBatch;
use serde_json::{Value, json};

/// One deliberate fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Planted {
    /// The source's engine says that the database is closed, and leaves it open.
    FenceLeaks,
    /// A source agent that starts again opens what it finds closed.
    ReopenAtStart,
    /// The destination's engine says that all up to the marker is durable, and has not synced it.
    MarkerNotSynced,
    /// A change is missing in the log.
    LosesChange,
    /// A change that nobody made is in the log.
    InventsChange,
    /// Two changes of the log change places.
    SwapsChanges,
    /// The source's engine says that it has cleaned up, and has not.
    CleanupSkipped,
    /// The coordinator's disk says that it has synced, and has not.
    DiskLies,
}

/// One batch in so many is tampered with.
const ONE_IN: u32 = 20;

/// Does to a batch of the log what the fault says.
pub fn tamper(planted: Option<Planted>, process: &Process, batch: &mut LogBatch) {
    let Some(fault @ (Planted::LosesChange | Planted::InventsChange | Planted::SwapsChanges)) = planted else { return };
    let Ok(Value::Array(mut changes)) = serde_json::from_slice(&batch.payload) else { return };
    if process.below(ONE_IN) != 0 {
        return;
    }
    match fault {
        Planted::LosesChange => drop(changes.pop()),
        Planted::InventsChange => changes.push(json!({"key": "row 1", "value": "nobody wrote this"})),
        _ => changes.reverse(),
    }
    batch.payload = Bytes::from(Value::Array(changes).to_string());
}
