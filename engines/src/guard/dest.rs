//! The destination half behind the guard.

use super::Lost;
use crate::{
    Result,
    dest::{DestEngine, DestReplica, Durable},
    source::{DatabaseInfo, LogBatch, Plan},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{CommandVersion, DatabaseName, Epoch, Finding, OperationId, Position, dest_role::DestRole};
use std::sync::Arc;

/// A destination engine behind the guard.
pub struct GuardedDest {
    inner: Arc<dyn DestEngine>,
    lost: Lost,
}

impl GuardedDest {
    /// The guard of `inner`; a lost lock is told to `lost`.
    pub fn new(inner: Arc<dyn DestEngine>, lost: Lost) -> Self {
        Self { inner, lost }
    }
}

#[async_trait]
impl DestEngine for GuardedDest {
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
    async fn purge(&self, database: &DatabaseName) -> Result<()> {
        self.lost.pass(self.inner.purge(database).await).await
    }
    async fn preflight(
        &self,
        database: &DatabaseName,
        requirements: &Bytes,
        operation: Option<&OperationId>,
    ) -> Result<Vec<Finding>> {
        self.lost.pass(self.inner.preflight(database, requirements, operation).await).await
    }
    async fn roles(&self) -> Result<Vec<DestRole>> {
        self.lost.pass(self.inner.roles().await).await
    }
    async fn put_role(&self, role: &DestRole) -> Result<()> {
        self.lost.pass(self.inner.put_role(role).await).await
    }
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.lost.pass(self.inner.remove_role(operation, version).await).await
    }
    async fn watermark(&self) -> Result<CommandVersion> {
        self.lost.pass(self.inner.watermark().await).await
    }
    async fn prepare(&self, role: &DestRole) -> Result<()> {
        self.lost.pass(self.inner.prepare(role).await).await
    }
    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>> {
        let inner = self.lost.pass(self.inner.open(role).await).await?;
        Ok(Arc::new(Replica { inner, lost: self.lost.clone() }))
    }
    async fn promote(&self, role: &DestRole) -> Result<()> {
        self.lost.pass(self.inner.promote(role).await).await
    }
    async fn finish(&self, role: &DestRole) -> Result<()> {
        self.lost.pass(self.inner.finish(role).await).await
    }
    async fn discard(&self, role: &DestRole) -> Result<()> {
        self.lost.pass(self.inner.discard(role).await).await
    }
}

struct Replica {
    inner: Arc<dyn DestReplica>,
    lost: Lost,
}

#[async_trait]
impl DestReplica for Replica {
    async fn durable(&self) -> Result<Durable> {
        self.lost.pass(self.inner.durable().await).await
    }
    async fn plan(&self, plan: &Plan) -> Result<()> {
        self.lost.pass(self.inner.plan(plan).await).await
    }
    async fn digest(&self, part: u32, offset: u64, len: usize) -> Result<Bytes> {
        self.lost.pass(self.inner.digest(part, offset, len).await).await
    }
    async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next_offset: u64, last: bool) -> Result<()> {
        self.lost.pass(self.inner.chunk(part, offset, payload, next_offset, last).await).await
    }
    async fn sync(&self) -> Result<Durable> {
        self.lost.pass(self.inner.sync().await).await
    }
    async fn seed_done(&self) -> Result<()> {
        self.lost.pass(self.inner.seed_done().await).await
    }
    async fn log(&self, batch: LogBatch) -> Result<()> {
        self.lost.pass(self.inner.log(batch).await).await
    }
    async fn prepare_marker(&self, position: &Position) -> Result<()> {
        self.lost.pass(self.inner.prepare_marker(position).await).await
    }
    async fn settle(&self) -> Result<()> {
        self.lost.pass(self.inner.settle().await).await
    }
    async fn interrupt(&self) {
        self.inner.interrupt().await;
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
