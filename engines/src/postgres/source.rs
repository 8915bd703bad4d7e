//! The source half: a database is seeded from an exported snapshot, its log read through a logical slot, and it is fenced by
//! closing it to connections in the catalog.

mod begin;
mod budget;
mod ddl;
mod engine;
mod extras;
mod fence;
mod holder;
mod identity;
mod instance;
mod mark;
mod memo;
mod names;
mod preflight;
mod release;
mod seed;
mod stream;
#[cfg(test)]
mod tests;

pub use engine::PostgresSource;

use super::{
    config::PostgresConfig,
    sql::Sql,
    store::{Half, Store},
};
use crate::{Result, host::Host};
use handover::OperationId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use stream::Stream;

/// What the parts of this half share.
pub(super) struct Inner {
    config: PostgresConfig,
    host: Arc<dyn Host>,
    store: Store,
    streams: Mutex<HashMap<OperationId, Weak<Stream>>>,
    limits: Limits,
    disk: budget::LogDisk,
}

/// How long to wait for what others do.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For transactions that hold up the creation of a slot. Clients are not held up meanwhile.
    slot_wait: Duration,
    /// Without an agent, after which the snapshot of a seed is let go.
    holder_quiet: Duration,
    /// For sessions that were told to end.
    end_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slot_wait: Duration::from_secs(30),
            holder_quiet: Duration::from_secs(600),
            end_wait: Duration::from_secs(5),
        }
    }
}

impl Inner {
    fn new(config: PostgresConfig, host: Arc<dyn Host>, limits: Limits) -> Self {
        let store = Store::new(config.clone(), Half::Source);
        Self { config, host, store, streams: Mutex::default(), limits, disk: budget::LogDisk::default() }
    }

    /// A session with a database. The purpose begins with the half, so that a take-over ends it.
    async fn sql(&self, database: &str, purpose: &str) -> Result<Sql> {
        Sql::connect(&self.config, database, purpose).await
    }

    /// A session with the maintenance database.
    async fn maintenance(&self, purpose: &str) -> Result<Sql> {
        self.sql(self.config.maintenance(), purpose).await
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<OperationId, Weak<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
