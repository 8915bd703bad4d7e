//! The source half behind the guard.

use super::Lost;
use crate::{
    Result,
    source::{Backlog, Chunk, DatabaseInfo, Held, LogBatch, Plan, SourceEngine, SourceFacts, SourceStream},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position, source_role::SourceRole};
use std::{sync::Arc, time::Duration};

/// A source engine behind the guard.
pub struct GuardedSource {
    inner: Arc<dyn SourceEngine>,
    lost: Lost,
}

impl GuardedSource {
    /// The guard of `inner`; a lost lock is told to `lost`.
    pub fn new(inner: Arc<dyn SourceEngine>, lost: Lost) -> Self {
        Self { inner, lost }
    }
}

#[async_trait]
impl SourceEngine for GuardedSource {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn take_over(&self) -> Result<Epoch> {
        self.lost.pass(self.inner.take_over().await).await
    }
    async fn heartbeat(&self) -> Result<()> {
        self.lost.pass(self.inner.heartbeat().await).await
    }
    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        self.lost.pass(self.inner.databases().await).await
    }
    async fn preflight(
        &self,
        database: &DatabaseName,
        kind: Kind,
        operation: Option<&OperationId>,
    ) -> Result<SourceFacts> {
        self.lost.pass(self.inner.preflight(database, kind, operation).await).await
    }
    async fn roles(&self) -> Result<Vec<SourceRole>> {
        self.lost.pass(self.inner.roles().await).await
    }
    async fn put_role(&self, role: &SourceRole) -> Result<()> {
        self.lost.pass(self.inner.put_role(role).await).await
    }
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.lost.pass(self.inner.remove_role(operation, version).await).await
    }
    async fn watermark(&self) -> Result<CommandVersion> {
        self.lost.pass(self.inner.watermark().await).await
    }
    async fn begin(&self, role: &SourceRole) -> Result<()> {
        self.lost.pass(self.inner.begin(role).await).await
    }
    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>> {
        let inner = self.lost.pass(self.inner.open(role).await).await?;
        Ok(Arc::new(Stream { inner, lost: self.lost.clone() }))
    }
    async fn fence(&self, role: &mut SourceRole, grace: Duration) -> Result<Position> {
        self.lost.pass(self.inner.fence(role, grace).await).await
    }
    async fn mark(&self, role: &SourceRole, attempt: Attempt) -> Result<Position> {
        self.lost.pass(self.inner.mark(role, attempt).await).await
    }
    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()> {
        self.lost.pass(self.inner.unfence(role, next).await).await
    }
    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()> {
        self.lost.pass(self.inner.release(role, moved_to).await).await
    }
    async fn cleanup(&self, role: &SourceRole) -> Result<()> {
        self.lost.pass(self.inner.cleanup(role).await).await
    }
}

struct Stream {
    inner: Arc<dyn SourceStream>,
    lost: Lost,
}

#[async_trait]
impl SourceStream for Stream {
    async fn plan(&self, held: &Held) -> Result<Plan> {
        self.lost.pass(self.inner.plan(held).await).await
    }
    async fn chunk(&self, part: u32, offset: u64, max: usize, digest: Option<Bytes>) -> Result<Chunk> {
        self.lost.pass(self.inner.chunk(part, offset, max, digest).await).await
    }
    async fn seed_done(&self) -> Result<()> {
        self.lost.pass(self.inner.seed_done().await).await
    }
    async fn log(&self, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch> {
        self.lost.pass(self.inner.log(after, max, until).await).await
    }
    async fn confirm(&self, durable: &Position) -> Result<()> {
        self.lost.pass(self.inner.confirm(durable).await).await
    }
    async fn backlog(&self, after: &Position) -> Result<Backlog> {
        self.lost.pass(self.inner.backlog(after).await).await
    }
    async fn health(&self) -> Result<()> {
        self.lost.pass(self.inner.health().await).await
    }
    async fn settle(&self) -> Result<()> {
        self.lost.pass(self.inner.settle().await).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
