//! The destination half behind the guard.

use super::{Lost, Onlooker, Watch};
use crate::{
    Result,
    dest::{DestEngine, DestReplica, Durable},
    source::{DatabaseInfo, LogBatch, Plan},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{
    CommandVersion, DatabaseName, Epoch, Finding, OperationId, Position,
    dest_role::{DestRole, Phase},
};
use std::sync::Arc;

/// The steps of the protocol at this side, in the order in which an operation may come to them.
pub const STEPS: [&str; 15] = [
    "dest.prepare",
    "dest.plan",
    "dest.chunk",
    "dest.log",
    "dest.seed-done",
    "dest.replica",
    "dest.marker",
    "dest.prepared",
    "dest.aborted",
    "dest.primary",
    "dest.finish",
    "dest.discarding",
    "dest.discard",
    "dest.discarded",
    "dest.forget",
];

/// A destination engine behind the guard.
pub struct GuardedDest {
    inner: Arc<dyn DestEngine>,
    watch: Watch,
}

impl GuardedDest {
    /// The guard of `inner`; a lost lock is told to `lost`, steps to `onlooker`.
    pub fn new(inner: Arc<dyn DestEngine>, lost: Lost, onlooker: Option<Arc<dyn Onlooker>>) -> Self {
        Self { inner, watch: Watch { lost, onlooker } }
    }
}

#[async_trait]
impl DestEngine for GuardedDest {
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
    async fn purge(&self, database: &DatabaseName) -> Result<()> {
        self.watch.pass(self.inner.purge(database)).await
    }
    async fn preflight(
        &self,
        database: &DatabaseName,
        requirements: &Bytes,
        operation: Option<&OperationId>,
    ) -> Result<Vec<Finding>> {
        self.watch.pass(self.inner.preflight(database, requirements, operation)).await
    }
    async fn roles(&self) -> Result<Vec<DestRole>> {
        self.watch.pass(self.inner.roles()).await
    }
    async fn put_role(&self, role: &DestRole) -> Result<()> {
        let step = match role.phase {
            // What Hello tells, the outcome of the hook, or a command's version: no step of its own.
            Phase::Seeding | Phase::Primary { .. } => return self.watch.pass(self.inner.put_role(role)).await,
            // The first attempt is 1: the floor is raised by Abort.
            Phase::Replica if role.floor.0 > 0 => "dest.aborted",
            Phase::Replica => "dest.replica",
            Phase::Prepared { .. } => "dest.prepared",
            Phase::Discarding => "dest.discarding",
            Phase::Discarded => "dest.discarded",
        };
        self.watch.step(step, self.inner.put_role(role)).await
    }
    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.watch.step("dest.forget", self.inner.remove_role(operation, version)).await
    }
    async fn watermark(&self) -> Result<CommandVersion> {
        self.watch.pass(self.inner.watermark()).await
    }
    async fn prepare(&self, role: &DestRole) -> Result<()> {
        self.watch.step("dest.prepare", self.inner.prepare(role)).await
    }
    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>> {
        let inner = self.watch.pass(self.inner.open(role)).await?;
        Ok(Arc::new(Replica { inner, watch: self.watch.clone() }))
    }
    async fn promote(&self, role: &DestRole) -> Result<()> {
        self.watch.step("dest.primary", self.inner.promote(role)).await
    }
    async fn finish(&self, role: &DestRole) -> Result<()> {
        self.watch.step("dest.finish", self.inner.finish(role)).await
    }
    async fn discard(&self, role: &DestRole) -> Result<()> {
        self.watch.step("dest.discard", self.inner.discard(role)).await
    }
}

struct Replica {
    inner: Arc<dyn DestReplica>,
    watch: Watch,
}

#[async_trait]
impl DestReplica for Replica {
    async fn durable(&self) -> Result<Durable> {
        self.watch.pass(self.inner.durable()).await
    }
    async fn plan(&self, plan: &Plan) -> Result<()> {
        self.watch.step("dest.plan", self.inner.plan(plan)).await
    }
    async fn digest(&self, part: u32, offset: u64, len: usize) -> Result<Bytes> {
        self.watch.pass(self.inner.digest(part, offset, len)).await
    }
    async fn until_takes(&self, part: u32) -> Result<()> {
        self.watch.pass(self.inner.until_takes(part)).await
    }
    async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next_offset: u64, last: bool) -> Result<()> {
        self.watch.step("dest.chunk", self.inner.chunk(part, offset, payload, next_offset, last)).await
    }
    async fn sync(&self) -> Result<Durable> {
        self.watch.pass(self.inner.sync()).await
    }
    async fn seed_done(&self) -> Result<()> {
        self.watch.step("dest.seed-done", self.inner.seed_done()).await
    }
    async fn log(&self, batch: LogBatch) -> Result<()> {
        self.watch.step("dest.log", self.inner.log(batch)).await
    }
    async fn prepare_marker(&self, position: &Position) -> Result<()> {
        self.watch.step("dest.marker", self.inner.prepare_marker(position)).await
    }
    async fn settle(&self) -> Result<()> {
        self.watch.pass(self.inner.settle()).await
    }
    async fn interrupt(&self) {
        self.inner.interrupt().await;
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
