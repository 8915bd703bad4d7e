//! The services as gRPC sees them: who may call, what is asked, and how answers and refusals look on the wire.

mod commands;
mod errors;
mod status;
mod transfer;

pub(crate) use commands::Commands;
pub(crate) use transfer::Lanes;
