//! The agent beside a source instance: it obeys the coordinator, streams seed and log to the destination agent, and fences.

pub mod config;

mod rpc;
mod session;

mod run;

pub use agent::Error;
pub use run::run;
