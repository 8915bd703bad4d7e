//! The PostgreSQL engine: an instance is a server (a cluster, in its own words), a database is one of its databases.
//!
//! What an agent has to remember lives in the schema `causeway` of the maintenance database; helpers that a database needs
//! while an operation runs live in a schema `causeway` of its own.

mod apply;
mod catalog;
mod config;
mod dest;
mod disk;
#[cfg(test)]
mod fuzz;
mod log;
mod payload;
mod position;
mod refused;
mod rows;
mod source;
mod sql;
mod states;
mod steps;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use config::{OnDdl, PostgresConfig, Setup};
pub use dest::PostgresDest;
pub use source::PostgresSource;

/// The engine's name at both ends.
pub const NAME: &str = "postgres";

/// The schema of ours, in the maintenance database and, while an operation runs, in the user's.
pub(crate) const SCHEMA: &str = "causeway";
