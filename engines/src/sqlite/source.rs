//! The source half of the SQLite engine.
//!
//! In reading order: [`connect`] and [`identity`]; the log of a WAL database, from [`wal_index`] and [`wal`] over
//! [`tail`] to [`spool`] and [`feed`]; of a rollback-journal database in [`passes`] and [`hashes`]; [`seed`] and
//! [`generation`]; [`worker`], the thread that owns it all, and [`stream`], what is seen of it; [`fence`] and [`vfs`];
//! [`preflight`] and [`release`].

pub mod connect;
pub mod feed;
pub mod fence;
pub mod generation;
pub mod hashes;
pub mod identity;
pub mod passes;
pub mod preflight;
pub mod release;
pub mod seed;
pub mod spool;
pub mod stream;
pub mod tail;
pub mod vfs;
pub mod wal;
pub mod wal_index;
pub mod worker;

#[cfg(test)]
mod tests;

use super::{
    NAME, SqliteConfig, disk, files,
    store::{Half, Store},
    tombstone::Note,
};
use crate::{
    Error, Result,
    host::{Host, blocking},
    source::{DatabaseInfo, SourceEngine, SourceFacts, SourceStream},
};
use async_trait::async_trait;
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position,
    source_role::{Phase, SourceRole},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stream::Stream;

/// The source half of the SQLite engine for one instance.
#[derive(Clone)]
pub struct SqliteSource {
    config: Arc<SqliteConfig>,
    host: Arc<dyn Host>,
    store: Arc<Store>,
    streams: Arc<Mutex<HashMap<OperationId, Arc<Stream>>>>,
}

impl SqliteSource {
    /// For the instance in `config.dir`. Touches nothing before the lock is taken.
    pub fn new(config: SqliteConfig, host: Arc<dyn Host>) -> Self {
        let store = Arc::new(Store::new(&config.dir, Half::Source, config.takeover_after, host.clone()));
        Self { config: Arc::new(config), host, store, streams: Arc::default() }
    }

    async fn job<T: Send + 'static>(
        &self,
        job: impl FnOnce(&SqliteConfig, &Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (config, store) = (self.config.clone(), self.store.clone());
        blocking(&self.host, move || job(&config, &store)).await
    }

    fn stream(&self, operation: &OperationId) -> Option<Arc<Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).get(operation).cloned()
    }

    /// Ends the open stream of an operation, so that no connection of ours is left.
    async fn end_stream(&self, operation: &OperationId) -> Result<()> {
        let stream = self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(operation);
        match stream {
            Some(stream) => {
                blocking(&self.host, move || {
                    stream.stop();
                    Ok(())
                })
                .await
            }
            None => Ok(()),
        }
    }

    fn open_stream(&self, operation: &OperationId) -> Result<Arc<Stream>> {
        self.stream(operation).ok_or_else(|| Error::Misuse(format!("operation {operation} has no open stream")))
    }
}

#[async_trait]
impl SourceEngine for SqliteSource {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take_over(&self) -> Result<Epoch> {
        preflight::check_library()?;
        self.store.take_over().await
    }

    async fn heartbeat(&self) -> Result<()> {
        self.job(|_, store| store.beat()).await
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        self.job(preflight::databases).await
    }

    async fn preflight(
        &self,
        database: &DatabaseName,
        kind: Kind,
        operation: Option<&OperationId>,
    ) -> Result<SourceFacts> {
        let (database, operation) = (database.clone(), operation.cloned());
        self.job(move |config, store| preflight::preflight(config, store, &database, kind, operation.as_ref())).await
    }

    async fn roles(&self) -> Result<Vec<SourceRole>> {
        self.job(|_, store| store.records()).await
    }

    async fn put_role(&self, role: &SourceRole) -> Result<()> {
        let role = role.clone();
        self.job(move |_, store| store.put(&role.operation, &role)).await
    }

    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        let operation = operation.clone();
        self.job(move |_, store| store.remove(&operation, version)).await
    }

    async fn watermark(&self) -> Result<CommandVersion> {
        self.job(|_, store| store.watermark()).await
    }

    async fn begin(&self, role: &SourceRole) -> Result<()> {
        let role = role.clone();
        // The log itself begins with `open`, under the record: before there is one nothing of ours exists.
        self.job(move |config, store| {
            let path = config.database(&role.database);
            if !disk::exists(&path)? {
                return Err(Error::NoDatabase(role.database.to_string()));
            }
            identity::check(&path, &role.incarnation)?;
            store.put(&role.operation, &role)?;
            release::prepare(store, &role.operation)
        })
        .await
    }

    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>> {
        self.end_stream(&role.operation).await?;
        self.store.check()?;
        identity::check(&self.config.database(&role.database), &role.incarnation)?;
        let feed = feed::Feed::new(self.config.clone(), self.host.clone(), role.log_budget_bytes);
        let stream = Arc::new(Stream::open(worker::Setting {
            config: self.config.clone(),
            host: self.host.clone(),
            store: self.store.clone(),
            path: self.config.database(&role.database),
            dir: release::directory(&self.store, &role.operation),
            role: Arc::new(role.clone()),
            feed: Arc::new(feed),
            seed: Arc::default(),
        })?);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(role.operation.clone(), stream.clone());
        Ok(stream)
    }

    async fn fence(&self, role: &mut SourceRole, grace: Duration) -> Result<Position> {
        let stream = self.open_stream(&role.operation)?;
        let (recorded, point) = stream.fence(role.clone(), grace).await?;
        *role = recorded;
        Ok(point.position())
    }

    async fn mark(&self, role: &SourceRole, _attempt: Attempt) -> Result<Position> {
        Ok(self.open_stream(&role.operation)?.mark().await?.position())
    }

    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()> {
        // A log that was interrupted while no agent watched can be joined while the fence stands, and only then.
        if let Some(stream) = self.stream(&role.operation)
            && let Err(error) = stream.begun().await
        {
            tracing::warn!(operation = %role.operation, %error, "resume the log before the fence is lifted");
        }
        let (was, next) = (role.clone(), next.clone());
        self.job(move |config, store| {
            let path = config.database(&was.database);
            // Nothing saved means that the fence was never begun; a fence that stands is then not ours.
            if !fence::saved_of(&was).is_empty() {
                identity::check(&path, &was.incarnation)?;
                fence::lift(&path, &|| store.check().map(|_| ()))?;
            }
            store.put(&next.operation, &next)
        })
        .await?;
        match self.stream(&role.operation) {
            // It goes on by itself if this fails; what it reports it will report again to whoever reads it.
            Some(stream) => stream.lifted().await.or(Ok(())),
            None => Ok(()),
        }
    }

    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()> {
        let Phase::Releasing { .. } = role.phase else {
            return Err(Error::Misuse("only an operation that is releasing is released".to_owned()));
        };
        self.end_stream(&role.operation).await?;
        let (role, moved_to, now) = (role.clone(), moved_to.to_owned(), self.host.now_ms());
        self.job(move |config, store| match role.kind {
            Kind::Move => {
                let note = Note { operation: role.operation.to_string(), moved_to, moved_at_ms: now };
                release::drop_database(config, store, &role, &note, &|_| Ok(()))
            }
            Kind::Copy => release::cleanup(config, store, &role),
        })
        .await
    }

    async fn cleanup(&self, role: &SourceRole) -> Result<()> {
        self.end_stream(&role.operation).await?;
        let role = role.clone();
        self.job(move |config, store| release::cleanup(config, store, &role)).await
    }
}
