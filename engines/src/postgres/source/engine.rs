//! The contract's calls, each handed to the file of its phase.

use super::{
    Inner, Limits, begin, fence, mark, preflight, release,
    stream::{Gate, Stream},
};
use crate::{
    Error, Result,
    host::Host,
    postgres::{NAME, PostgresConfig},
    source::{DatabaseInfo, SourceEngine, SourceFacts, SourceStream},
};
use async_trait::async_trait;
use handover::{Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position, source_role::SourceRole};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// The source half of a PostgreSQL server.
pub struct PostgresSource {
    inner: Arc<Inner>,
}

impl PostgresSource {
    /// The source half of the server of `config`. Touches nothing yet.
    pub fn new(config: PostgresConfig, host: Arc<dyn Host>) -> Self {
        Self::with(config, host, Limits::default())
    }

    pub(super) fn with(config: PostgresConfig, host: Arc<dyn Host>, limits: Limits) -> Self {
        Self { inner: Arc::new(Inner::new(config, host, limits)) }
    }

    fn stream(&self, operation: &OperationId) -> Result<Arc<Stream>> {
        let stream = self.inner.streams().get(operation).and_then(Weak::upgrade);
        stream.ok_or_else(|| Error::Misuse(format!("operation {operation} has no open stream")))
    }

    /// Ends the stream of an operation, if one is open.
    async fn close_stream(&self, operation: &OperationId) {
        let stream = self.inner.streams().remove(operation).and_then(|stream| stream.upgrade());
        if let Some(stream) = stream {
            stream.close().await;
        }
    }
}

#[async_trait]
impl SourceEngine for PostgresSource {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn take_over(&self) -> Result<Epoch> {
        let epoch = self.inner.store.take_over().await?;
        if let Err(error) = release::drop_orphans(&self.inner).await {
            // The next agent tries again; the operations that are known come first.
            tracing::warn!(%error, "drop the slots of forgotten operations");
        }
        Ok(epoch)
    }

    async fn heartbeat(&self) -> Result<()> {
        self.inner.store.heartbeat().await
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        preflight::databases(&self.inner).await
    }

    async fn preflight(
        &self,
        database: &DatabaseName,
        kind: Kind,
        operation: Option<&OperationId>,
    ) -> Result<SourceFacts> {
        preflight::preflight(&self.inner, database, kind, operation).await
    }

    async fn roles(&self) -> Result<Vec<SourceRole>> {
        self.inner.store.roles().await
    }

    async fn put_role(&self, role: &SourceRole) -> Result<()> {
        self.inner.store.put_role(&role.operation, role).await
    }

    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        // A beginning that failed half-way is known by its record alone.
        if let Some(role) = release::unfinished(&self.inner, operation).await? {
            self.close_stream(operation).await;
            release::cleanup(&self.inner, &role).await?;
        }
        self.inner.store.remove_role(operation, version).await
    }

    async fn watermark(&self) -> Result<CommandVersion> {
        self.inner.store.watermark().await
    }

    async fn begin(&self, role: &SourceRole) -> Result<()> {
        begin::begin(&self.inner, role).await
    }

    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>> {
        self.close_stream(&role.operation).await;
        let stream = Arc::new(Stream::new(self.inner.clone(), role.clone()));
        self.inner.streams().insert(role.operation.clone(), Arc::downgrade(&stream));
        Ok(stream)
    }

    async fn fence(&self, role: &mut SourceRole, grace: Duration) -> Result<Position> {
        let stream = self.stream(&role.operation)?;
        fence::fence(&self.inner, &stream, role, grace).await
    }

    async fn mark(&self, role: &SourceRole, attempt: Attempt) -> Result<Position> {
        let stream = self.stream(&role.operation)?;
        mark::mark(&self.inner, &stream, role, attempt).await
    }

    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()> {
        let sql = self.inner.maintenance("source unfence").await?;
        fence::open(&self.inner, &sql, role, Some(next)).await?;
        if let Ok(stream) = self.stream(&role.operation) {
            stream.set_marker(None);
            stream.gate.send_replace(Gate::Open);
        }
        Ok(())
    }

    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()> {
        self.close_stream(&role.operation).await;
        release::release(&self.inner, role, moved_to).await
    }

    async fn cleanup(&self, role: &SourceRole) -> Result<()> {
        self.close_stream(&role.operation).await;
        release::cleanup(&self.inner, role).await
    }
}
