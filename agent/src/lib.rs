//! What the two agents have in common: the flags about their instance, the engines' host, and the life of a process that
//! holds a lock.

pub mod config;
pub mod life;
pub mod process;

mod host;

pub use host::EngineHost;
pub use life::Error;
