//! An engine whose instances live in memory: for tests and simulations. It keeps every rule of the contract and has hooks
//! for what real systems do by themselves: lose log, hold a writer, fail.
//!
//! It uses no threads and no clock but its host's, so a run replays exactly.

mod dest;
mod instance;
mod source;
mod wire;

pub use dest::MemoryDest;
pub use instance::MemoryInstance;
pub use source::MemorySource;

/// The engine's name at both ends.
pub const NAME: &str = "memory";

#[cfg(test)]
mod tests;
