//! The source half.

use super::{BYTES_MAX, Gate};
use crate::{
    machine::{
        Effect::{Reads, Writes},
        Process,
    },
    planted::{self, Planted},
};
use async_trait::async_trait;
use bytes::Bytes;
use engines::{
    Result,
    memory::{MemoryInstance, MemorySource},
    source::{Backlog, Chunk, DatabaseInfo, Held, LogBatch, Plan, SourceEngine, SourceFacts, SourceStream},
};
use handover::{
    Attempt, CommandVersion, DatabaseName, Epoch, Kind, OperationId, Position,
    source_role::{Phase, SourceRole},
};
use std::{sync::Arc, time::Duration};

/// The source half of an instance, on a machine that can fail.
pub struct SimSource {
    inner: MemorySource,
    gate: Gate,
}

impl SimSource {
    /// The source half of `instance`, used by `process`.
    pub fn new(instance: MemoryInstance, process: &Process, planted: Option<Planted>) -> Self {
        let host = Arc::new(agent::EngineHost(crate::env::env(process)));
        Self { inner: MemorySource::new(instance, host), gate: Gate { process: process.clone(), planted } }
    }
}

#[async_trait]
impl SourceEngine for SimSource {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn take_over(&self) -> Result<Epoch> {
        self.gate.pass("take over", Writes, self.inner.take_over()).await
    }
    async fn heartbeat(&self) -> Result<()> {
        self.gate.pass("heartbeat", Reads, self.inner.heartbeat()).await
    }
    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        self.gate.pass("databases", Reads, self.inner.databases()).await
    }
    async fn preflight(
        &self,
        database: &DatabaseName,
        kind: Kind,
        operation: Option<&OperationId>,
    ) -> Result<SourceFacts> {
        self.gate.pass("preflight", Reads, self.inner.preflight(database, kind, operation)).await
    }
    async fn roles(&self) -> Result<Vec<SourceRole>> {
        let roles = self.gate.pass("roles", Reads, self.inner.roles()).await?;
        if self.gate.planted(Planted::ReopenAtStart) {
            for role in roles.iter().filter(|role| matches!(role.phase, Phase::Fencing { .. } | Phase::Fenced { .. })) {
                self.inner.unfence(role, role).await?;
            }
        }
        Ok(roles)
    }
    async fn put_role(&self, role: &SourceRole) -> Result<()> {
        self.gate.pass("put role", Writes, self.inner.put_role(role)).await
    }
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.gate.pass("remove role", Writes, self.inner.remove_role(operation, version)).await
    }
    async fn watermark(&self) -> Result<CommandVersion> {
        self.gate.pass("watermark", Reads, self.inner.watermark()).await
    }
    async fn begin(&self, role: &SourceRole) -> Result<()> {
        self.gate.pass("begin", Writes, self.inner.begin(role)).await
    }
    async fn open(&self, role: &SourceRole) -> Result<Arc<dyn SourceStream>> {
        let inner = self.gate.pass("open", Reads, self.inner.open(role)).await?;
        Ok(Arc::new(Stream { inner, gate: self.gate.clone() }))
    }
    async fn fence(&self, role: &mut SourceRole, grace: Duration) -> Result<Position> {
        let fenced = self.gate.pass("fence", Writes, self.inner.fence(role, grace)).await?;
        if self.gate.planted(Planted::FenceLeaks) {
            self.inner.unfence(role, role).await?;
        }
        Ok(fenced)
    }
    async fn mark(&self, role: &SourceRole, attempt: Attempt) -> Result<Position> {
        self.gate.pass("mark", Writes, self.inner.mark(role, attempt)).await
    }
    async fn unfence(&self, role: &SourceRole, next: &SourceRole) -> Result<()> {
        self.gate.pass("unfence", Writes, self.inner.unfence(role, next)).await
    }
    async fn release(&self, role: &SourceRole, moved_to: &str) -> Result<()> {
        self.gate.pass("release", Writes, self.inner.release(role, moved_to)).await
    }
    async fn cleanup(&self, role: &SourceRole) -> Result<()> {
        if self.gate.planted(Planted::CleanupSkipped) {
            return Ok(());
        }
        self.gate.pass("cleanup", Writes, self.inner.cleanup(role)).await
    }
}

struct Stream {
    inner: Arc<dyn SourceStream>,
    gate: Gate,
}

#[async_trait]
impl SourceStream for Stream {
    async fn plan(&self, held: &Held) -> Result<Plan> {
        self.gate.pass("plan", Writes, self.inner.plan(held)).await
    }
    fn in_order(&self) -> bool {
        self.inner.in_order()
    }
    async fn chunk(&self, part: u32, offset: u64, max: usize, digest: Option<Bytes>) -> Result<Chunk> {
        self.gate.pass("read chunk", Reads, self.inner.chunk(part, offset, max.min(BYTES_MAX), digest)).await
    }
    async fn seed_done(&self) -> Result<()> {
        self.gate.pass("seed read", Reads, self.inner.seed_done()).await
    }
    async fn log(&self, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch> {
        let mut batch = self.gate.pass("read log", Reads, self.inner.log(after, max.min(BYTES_MAX), until)).await?;
        planted::tamper(self.gate.planted, &self.gate.process, &mut batch);
        Ok(batch)
    }
    async fn confirm(&self, durable: &Position) -> Result<()> {
        self.gate.pass("confirm", Writes, self.inner.confirm(durable)).await
    }
    async fn backlog(&self, after: &Position) -> Result<Backlog> {
        self.gate.pass("backlog", Reads, self.inner.backlog(after)).await
    }
    async fn health(&self) -> Result<()> {
        self.gate.pass("health", Reads, self.inner.health()).await
    }
    async fn settle(&self) -> Result<()> {
        self.gate.pass("settle", Reads, self.inner.settle()).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
