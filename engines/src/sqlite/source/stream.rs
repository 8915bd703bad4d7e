//! The reading half of one operation.

use super::{
    seed,
    worker::{Handle, SeedState, Setting, Work},
};
use crate::{
    Error, Result,
    host::blocking,
    source::{Backlog, Chunk, Held, LogBatch, Plan, SourceStream},
    sqlite::{files, wire::Point},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{Position, source_role::SourceRole};
use std::{
    fs::File,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// An open stream; the thread behind it ends with [`SourceStream::close`] or when it is dropped.
pub struct Stream {
    setting: Setting,
    worker: Arc<Handle>,
    /// The generation of the last plan, which chunks belong to.
    planned: AtomicU64,
    file: Mutex<Option<Arc<File>>>,
}

impl Stream {
    /// Opens it. The log begins in the background.
    pub fn open(setting: Setting) -> Result<Self> {
        let worker = Arc::new(Handle::start(setting.clone())?);
        Ok(Self { setting, worker, planned: AtomicU64::new(0), file: Mutex::new(None) })
    }

    /// Fences; answers the role as it is recorded, and the position.
    pub async fn fence(&self, role: SourceRole, grace: Duration) -> Result<(SourceRole, Point)> {
        self.worker.ask(|reply| Work::Fence(Box::new(role), grace, reply)).await
    }

    /// Takes a consistent point.
    pub async fn mark(&self) -> Result<Point> {
        self.worker.ask(Work::Mark).await
    }

    /// Returns once the log was begun or resumed.
    pub async fn begun(&self) -> Result<()> {
        self.worker.ask(Work::Begin).await
    }

    /// Goes on after a fence was lifted.
    pub async fn lifted(&self) -> Result<()> {
        self.worker.ask(Work::Lifted).await
    }

    /// Ends the thread. Blocks.
    pub fn stop(&self) {
        self.worker.stop();
        self.let_go();
    }

    fn let_go(&self) {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// What chunks are read from, unless the log was interrupted since the plan.
    fn planned(&self) -> Result<SeedState> {
        let planned = self.planned.load(Ordering::SeqCst);
        let state = self.setting.seed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match state {
            Some(state) if state.generation.generation == planned => Ok(state),
            _ if planned == 0 => Err(Error::Misuse("a chunk before the plan".to_owned())),
            _ => Err(Error::LogLost("the log was interrupted since the plan".to_owned())),
        }
    }

    fn database_file(&self) -> Result<Arc<File>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &*file {
            Some(file) => Ok(file.clone()),
            None => Ok(file.insert(files::open(&self.setting.path)?).clone()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.worker.signal();
    }
}

#[async_trait]
impl SourceStream for Stream {
    async fn plan(&self, held: &Held) -> Result<Plan> {
        let held = held.clone();
        let plan = self.worker.ask(|reply| Work::Plan(held, reply)).await?;
        self.planned.store(plan.generation, Ordering::SeqCst);
        Ok(plan)
    }

    fn in_order(&self) -> bool {
        // A page has its place, whenever it comes.
        false
    }

    async fn chunk(&self, part: u32, offset: u64, max: usize, digest: Option<Bytes>) -> Result<Chunk> {
        let state = self.planned()?;
        let file = self.database_file()?;
        blocking(&self.setting.host, move || {
            let hashes = state.hashes.as_deref();
            seed::chunk(&file, &state.generation.header, hashes, (part, offset, max), digest.as_ref())
        })
        .await
    }

    async fn seed_done(&self) -> Result<()> {
        self.planned()?;
        self.worker.ask(Work::Seeded).await?;
        self.planned().map(|_| ())
    }

    async fn log(&self, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch> {
        let after = Point::parse(after)?;
        let until = until.map(Point::parse).transpose()?;
        let limit = self.setting.feed.wait(after, until).await?;
        let feed = self.setting.feed.clone();
        blocking(&self.setting.host, move || feed.read(after, max, limit)).await
    }

    async fn confirm(&self, durable: &Position) -> Result<()> {
        let durable = Point::parse(durable)?;
        let feed = self.setting.feed.clone();
        blocking(&self.setting.host, move || feed.confirm(&durable)).await
    }

    async fn backlog(&self, after: &Position) -> Result<Backlog> {
        self.setting.feed.backlog(&Point::parse(after)?)
    }

    async fn health(&self) -> Result<()> {
        self.setting.feed.failure().map_or(Ok(()), Err)
    }

    async fn settle(&self) -> Result<()> {
        self.worker.ask(Work::Settle).await
    }

    async fn close(&self) {
        let worker = self.worker.clone();
        let stopped = blocking(&self.setting.host, move || {
            worker.stop();
            Ok(())
        });
        if let Err(error) = stopped.await {
            tracing::error!(%error, "close a stream");
        }
        self.let_go();
    }
}
