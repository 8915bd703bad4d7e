//! The source half behind the guard.

use super::{Lost, Onlooker, Watch};
use crate::{
    Result,
    source::{Backlog, Chunk, DatabaseInfo, Held, LogBatch, Plan, SourceEngine, SourceFacts, SourceStream},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position,
    source_role::{Phase, SourceRole},
};
use std::{sync::Arc, time::Duration};

/// The steps of the protocol at this side, in the order in which an operation may come to them.
pub const STEPS: [&str; 13] = [
    "source.begin",
    "source.plan",
    "source.seed-done",
    "source.fence",
    "source.fenced",
    "source.mark",
    "source.unfence",
    "source.releasing",
    "source.release",
    "source.released",
    "source.cleaning",
    "source.cleanup",
    "source.forget",
];

/// A source engine behind the guard.
pub struct GuardedSource {
    inner: Arc<dyn SourceEngine>,
    watch: Watch,
}

impl GuardedSource {
    /// The guard of `inner`; a lost lock is told to `lost`, steps to `onlooker`.
    pub fn new(inner: Arc<dyn SourceEngine>, lost: Lost, onlooker: Option<Arc<dyn Onlooker>>) -> Self {
        Self { inner, watch: Watch { lost, onlooker } }
    }
}

#[async_trait]
impl SourceEngine for GuardedSource {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn take_over(&self) -> Result<Epoch> {
        self.watch.pass(self.inner.take_over()).await
    }
    async fn heartbeat(&self) -> Result<()> {
        self.watch.pass(self.inner.heartbeat()).await
    }
    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        self.watch.pass(self.inner.databases()).await
    }
    async fn preflight(
        &self,
        database: &DatabaseName,
        kind: Kind,
        operation: Option<&OperationId>,
    ) -> Result<SourceFacts> {
        self.watch.pass(self.inner.preflight(database, kind, operation)).await
    }
    async fn roles(&self) -> Result<Vec<SourceRole>> {
        self.watch.pass(self.inner.roles()).await
    }
    async fn put_role(&self, role: &SourceRole) -> Result<()> {
        let step = match role.phase {
            // An attempt that goes back, or a command's version: no step of its own.
            Phase::Replicating | Phase::Fencing { .. } => return self.watch.pass(self.inner.put_role(role)).await,
            Phase::Fenced { .. } => "source.fenced",
            Phase::Releasing { .. } => "source.releasing",
            Phase::Released { .. } => "source.released",
            Phase::CleaningUp { .. } => "source.cleaning",
        };
        self.watch.step(step, self.inner.put_role(role)).await
    }
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.watch.step("source.forget", self.inner.remove_role(operation, version)).await
    }
    async fn watermark(&self) -> Result<CommandVersion> {
        self.watch.pass(self.inner.watermark()).await
    }
    async fn begin(&self, role: &SourceRole) -> Result<()> {
        self.watch.step("source.begin", self.inner.begin(role)).await
    }
    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>> {
        let inner = self.watch.pass(self.inner.open(role)).await?;
        Ok(Arc::new(Stream { inner, watch: self.watch.clone() }))
    }
    async fn fence(&self, role: &mut SourceRole, grace: Duration) -> Result<Position> {
        self.watch.step("source.fence", self.inner.fence(role, grace)).await
    }
    async fn mark(&self, role: &SourceRole, attempt: Attempt) -> Result<Position> {
        self.watch.step("source.mark", self.inner.mark(role, attempt)).await
    }
    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()> {
        self.watch.step("source.unfence", self.inner.unfence(role, next)).await
    }
    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()> {
        self.watch.step("source.release", self.inner.release(role, moved_to)).await
    }
    async fn cleanup(&self, role: &SourceRole) -> Result<()> {
        self.watch.step("source.cleanup", self.inner.cleanup(role)).await
    }
}

struct Stream {
    inner: Arc<dyn SourceStream>,
    watch: Watch,
}

#[async_trait]
impl SourceStream for Stream {
    async fn plan(&self, held: &Held) -> Result<Plan> {
        self.watch.step("source.plan", self.inner.plan(held)).await
    }
    fn in_order(&self) -> bool {
        self.inner.in_order()
    }
    async fn chunk(&self, part: u32, offset: u64, max: usize, digest: Option<Bytes>) -> Result<Chunk> {
        self.watch.pass(self.inner.chunk(part, offset, max, digest)).await
    }
    async fn seed_done(&self) -> Result<()> {
        self.watch.step("source.seed-done", self.inner.seed_done()).await
    }
    async fn log(&self, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch> {
        self.watch.pass(self.inner.log(after, max, until)).await
    }
    async fn confirm(&self, durable: &Position) -> Result<()> {
        self.watch.pass(self.inner.confirm(durable)).await
    }
    async fn backlog(&self, after: &Position) -> Result<Backlog> {
        self.watch.pass(self.inner.backlog(after)).await
    }
    async fn health(&self) -> Result<()> {
        self.watch.pass(self.inner.health()).await
    }
    async fn settle(&self) -> Result<()> {
        self.watch.pass(self.inner.settle()).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
