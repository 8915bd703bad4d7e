//! The SQLite engine: an instance is a directory, a database is a file in it, and the agents' own files lie in
//! `.causeway/` beside them.
//!
//! Common ground: [`config`], [`store`] (lock, epoch and role records), [`wire`] (positions and payloads), [`header`]
//! (facts of a database file), [`tombstone`] (what a moved database leaves), [`disk`] (durable file operations) and
//! [`files`] (why a database file is opened once and stays open).

pub mod config;
pub mod dest;
pub mod disk;
pub mod files;
#[cfg(test)]
mod fuzz;
pub mod header;
pub mod source;
pub mod store;
pub mod tombstone;
pub mod wire;

pub use config::SqliteConfig;

/// The engine's name at both ends.
pub const NAME: &str = "sqlite";

/// The directory within an instance that holds everything of ours.
pub const OURS: &str = ".causeway";

#[cfg(test)]
mod tests;
