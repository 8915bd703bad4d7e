//! The engine contract, the engines that keep it, and the conformance suite that shows it.
//!
//! Each agent uses its half: [`source::SourceEngine`] or [`dest::DestEngine`]. Payloads, positions and requirements are
//! opaque to everything outside an engine.

pub mod dest;
pub mod error;
pub mod guard;
pub mod host;
pub mod source;

pub mod memory;
pub mod postgres;
pub mod sqlite;

pub mod conformance;

pub use error::{Error, Result};
