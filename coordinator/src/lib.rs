//! The coordinator: takes requests to move and copy databases, admits them, and drives each to its end by commands to the
//! agents of both instances. All that must survive is in its store; nothing of a database ever passes through it.

pub mod config;

pub mod progress;
pub mod store;

pub mod agents;
pub mod instances;

mod core;
mod office;

pub mod admission;
mod adopt;
pub mod auth;
pub mod driver;

mod explain;
#[cfg(test)]
mod fixture;
mod retention;

mod rpc;
mod server;

pub use crate::core::Core;
pub use config::Config;
pub use server::{Coordinator, Error, copy_store};
