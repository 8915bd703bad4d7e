//! The whole protocol of a copy or move as pure code: identifiers, the operation's states and the roles of both sides.
//!
//! Nothing in this crate does IO, reads a clock or draws a random number. The coordinator and both agents run these
//! functions, and so do the model and the simulation that check them.

mod finding;
mod id;
mod position;

pub mod dest_role;
pub mod operation;
pub mod source_role;

pub use finding::{Finding, Severity, Side};
pub use id::{
    Attempt, CommandVersion, DatabaseName, Epoch, IdError, Incarnation, InstanceName, Kind, OperationId, Token,
};
pub use position::Position;
