//! The destination half.

use super::Gate;
use crate::{
    machine::{
        Effect::{Reads, Writes},
        Process,
    },
    planted::Planted,
};
use async_trait::async_trait;
use bytes::Bytes;
use engines::{
    Result,
    dest::{DestEngine, DestReplica, Durable},
    memory::{MemoryDest, MemoryInstance},
    source::{DatabaseInfo, LogBatch, Plan},
};
use handover::{CommandVersion, DatabaseName, Epoch, Finding, OperationId, Position, dest_role::DestRole};
use std::sync::Arc;

/// The destination half of an instance, on a machine that can fail.
pub struct SimDest {
    inner: MemoryDest,
    gate: Gate,
}

impl SimDest {
    /// The destination half of `instance`, used by `process`.
    pub fn new(instance: MemoryInstance, process: &Process, planted: Option<Planted>) -> Self {
        let host = Arc::new(agent::EngineHost(crate::env::env(process)));
        Self { inner: MemoryDest::new(instance, host), gate: Gate { process: process.clone(), planted } }
    }
}

#[async_trait]
impl DestEngine for SimDest {
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
    async fn purge(&self, database: &DatabaseName) -> Result<()> {
        self.gate.pass("purge", Writes, self.inner.purge(database)).await
    }
    async fn preflight(
        &self,
        database: &DatabaseName,
        requirements: &Bytes,
        operation: Option<&OperationId>,
    ) -> Result<Vec<Finding>> {
        self.gate.pass("preflight", Reads, self.inner.preflight(database, requirements, operation)).await
    }
    async fn roles(&self) -> Result<Vec<DestRole>> {
        self.gate.pass("roles", Reads, self.inner.roles()).await
    }
    async fn put_role(&self, role: &DestRole) -> Result<()> {
        self.gate.pass("put role", Writes, self.inner.put_role(role)).await
    }
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.gate.pass("remove role", Writes, self.inner.remove_role(operation, version)).await
    }
    async fn watermark(&self) -> Result<CommandVersion> {
        self.gate.pass("watermark", Reads, self.inner.watermark()).await
    }
    async fn prepare(&self, role: &DestRole) -> Result<()> {
        self.gate.pass("prepare", Writes, self.inner.prepare(role)).await
    }
    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>> {
        let inner = self.gate.pass("open", Writes, self.inner.open(role)).await?;
        Ok(Arc::new(Replica { inner, gate: self.gate.clone() }))
    }
    async fn promote(&self, role: &DestRole) -> Result<()> {
        self.gate.pass("promote", Writes, self.inner.promote(role)).await
    }
    async fn finish(&self, role: &DestRole) -> Result<()> {
        self.gate.pass("finish", Writes, self.inner.finish(role)).await
    }
    async fn discard(&self, role: &DestRole) -> Result<()> {
        self.gate.pass("discard", Writes, self.inner.discard(role)).await
    }
}

struct Replica {
    inner: Arc<dyn DestReplica>,
    gate: Gate,
}

#[async_trait]
impl DestReplica for Replica {
    async fn durable(&self) -> Result<Durable> {
        self.gate.pass("durable", Reads, self.inner.durable()).await
    }
    async fn plan(&self, plan: &Plan) -> Result<()> {
        self.gate.pass("take plan", Writes, self.inner.plan(plan)).await
    }
    async fn digest(&self, part: u32, offset: u64, len: usize) -> Result<Bytes> {
        self.gate.pass("digest", Reads, self.inner.digest(part, offset, len)).await
    }
    async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next_offset: u64, last: bool) -> Result<()> {
        let write = self.inner.chunk(part, offset, payload, next_offset, last);
        self.gate.pass("write chunk", Writes, write).await
    }
    async fn sync(&self) -> Result<Durable> {
        self.gate.pass("sync", Writes, self.inner.sync()).await
    }
    async fn seed_done(&self) -> Result<()> {
        self.gate.pass("seed loaded", Writes, self.inner.seed_done()).await
    }
    async fn log(&self, batch: LogBatch) -> Result<()> {
        self.gate.pass("apply log", Writes, self.inner.log(batch)).await
    }
    async fn prepare_marker(&self, position: &Position) -> Result<()> {
        if self.gate.planted(Planted::MarkerNotSynced) {
            return Ok(());
        }
        self.gate.pass("prepare marker", Writes, self.inner.prepare_marker(position)).await
    }
    async fn settle(&self) -> Result<()> {
        self.gate.pass("settle", Reads, self.inner.settle()).await
    }
    async fn interrupt(&self) {
        self.inner.interrupt().await;
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
