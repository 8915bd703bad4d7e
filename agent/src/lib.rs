//! What the two agents have in common: the flags about their instance, the engines' host, the life of a process that holds a
//! lock, and what engines' errors are on the wire.

pub mod config;
pub mod failpoint;
pub mod life;
pub mod process;
pub mod rpc;

mod host;

pub use host::EngineHost;
pub use life::Error;
