//! The agent beside a destination instance: it takes in seed and log, prepares, and opens the database at the flip.

pub mod config;

mod hook;

mod rpc;
mod session;

mod run;

pub use agent::Error;
pub use run::run;
