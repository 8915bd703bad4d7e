//! What every Causeway process needs: the injected environment, mutual TLS, dialling and serving gRPC, configuration,
//! telemetry, shutdown and rich errors; it knows nothing of databases, operations or roles.

pub mod env;

pub mod certs;
pub mod tls;

mod wire;

#[cfg(test)]
mod fixture;

pub mod dial;
pub mod serve;
pub mod status;

pub mod config;
pub mod failpoint;
pub mod memory;
pub mod shutdown;
pub mod telemetry;

pub use env::{Backoff, Env, Timestamp};
pub use shutdown::Shutdown;
pub use tls::{Identity, Tls, TlsFiles};
