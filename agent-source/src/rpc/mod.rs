//! The `SourceAgent` service: reads requests, calls the session, writes answers.

mod commands;
mod errors;
mod preflight;

pub use commands::Commands;
