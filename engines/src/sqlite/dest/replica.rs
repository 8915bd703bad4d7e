//! One operation's replica while it is written.
//!
//! State is kept twice: as received, in memory, and as durable, in the progress record. Every call shares `files`; what
//! must be alone (a new plan, the end) takes it for itself and so waits for the calls that run.

mod log;
mod seed;
mod sync;

use super::{progress, progress::Progress, staging};
use crate::{
    Error, Result,
    dest::{DestReplica, Durable},
    host::{Host, blocking},
    source::{LogBatch, Plan},
    sqlite::{config::SqliteConfig, store::Store},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::Position;
use std::{
    fs::{File, OpenOptions},
    ops::Deref,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A replica that is open; clones share it.
#[derive(Clone)]
pub(super) struct Replica {
    shared: Arc<Shared>,
}

struct Shared {
    config: SqliteConfig,
    host: Arc<dyn Host>,
    store: Arc<Store>,
    dir: PathBuf,
    /// `None` once the replica was ended.
    files: RwLock<Option<Files>>,
    state: Mutex<State>,
    /// Held while log is taken, so that it is taken in order.
    log: Mutex<()>,
    /// Held while files are synced or the progress record is written.
    syncing: Mutex<()>,
    /// Bytes written since the last sync in the background began.
    dirty: AtomicU64,
    flushing: AtomicBool,
    /// A sync failed: what was written since the last one that did not may be lost, and the kernel will not say it again.
    lost: AtomicBool,
}

struct Files {
    db: File,
    spool: File,
}

struct State {
    received: Option<Progress>,
    durable: Option<Progress>,
    /// The furthest point of the log that this process tried to apply.
    touched: u64,
    /// The furthest point of the log that an agent before may have applied.
    unsure: u64,
}

/// The files, shared with other calls.
struct Using<'a>(RwLockReadGuard<'a, Option<Files>>);

impl Deref for Using<'_> {
    type Target = Option<Files>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Replica {
    /// Opens what lies in `dir`, an operation's directory.
    pub fn open(config: SqliteConfig, host: Arc<dyn Host>, store: Arc<Store>, dir: PathBuf) -> Result<Self> {
        let durable = Progress::read(&dir)?;
        let db_path = dir.join(staging::DB);
        if durable.as_ref().is_some_and(|p| !p.parts.is_empty()) && !db_path.exists() {
            return Err(Error::Corrupt(format!("{} is gone", db_path.display())));
        }
        let files = Files { db: open_file(&db_path)?, spool: open_file(&dir.join(staging::SPOOL))? };
        let spool_bytes = durable.as_ref().map_or(0, |p| p.spool_bytes);
        files.spool.set_len(spool_bytes).map_err(|e| Error::io("cut the log spool", e))?;
        let unsure = durable.as_ref().map_or(0, |p| p.bound);
        let state = State { received: durable.clone(), durable, touched: 0, unsure };
        let shared = Shared {
            config,
            host,
            store,
            dir,
            files: RwLock::new(Some(files)),
            state: Mutex::new(state),
            log: Mutex::new(()),
            syncing: Mutex::new(()),
            dirty: AtomicU64::new(0),
            flushing: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes durable what there is and ends the replica: further calls fail.
    pub fn seal(&self) -> Result<()> {
        let sealed = self.shared.sync(sync::Bound::IfKnown);
        *self.shared.files.write().unwrap_or_else(PoisonError::into_inner) = None;
        match sealed {
            // It was ended before.
            Err(Error::Misuse(_)) => Ok(()),
            other => other,
        }
    }

    /// Ends the replica; what cannot be made durable is sent again.
    pub fn end(&self) {
        if let Err(error) = self.seal() {
            tracing::debug!(%error, "end a replica without its last sync");
        }
    }

    /// As if a sync had failed.
    #[cfg(test)]
    pub fn lose_writes(&self) {
        self.shared.lost.store(true, Ordering::Release);
    }

    async fn job<T: Send + 'static>(&self, job: impl FnOnce(&Arc<Shared>) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = self.shared.clone();
        blocking(&self.shared.host, move || job(&shared)).await
    }
}

impl Shared {
    /// Begins a call: waits until it may share the files, and forgets what a failed sync has lost.
    fn enter(&self) -> Result<Using<'_>> {
        loop {
            if self.lost.load(Ordering::Acquire) {
                let _alone = self.files.write().unwrap_or_else(PoisonError::into_inner);
                let mut state = self.state();
                state.received = state.durable.clone();
                state.unsure = state.unsure.max(state.touched);
                self.lost.store(false, Ordering::Release);
            }
            let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
            if files.is_none() {
                return Err(ended());
            }
            if !self.lost.load(Ordering::Acquire) {
                return Ok(Using(files));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn db_path(&self) -> PathBuf {
        self.dir.join(staging::DB)
    }
}

impl Using<'_> {
    fn files(&self) -> Result<&Files> {
        self.0.as_ref().ok_or_else(ended)
    }
}

impl State {
    fn received(&self) -> Result<&Progress> {
        self.received.as_ref().ok_or_else(|| Error::Misuse("the replica has no plan yet".to_owned()))
    }

    fn received_mut(&mut self) -> Result<&mut Progress> {
        self.received.as_mut().ok_or_else(|| Error::Misuse("the replica has no plan yet".to_owned()))
    }

    fn tell(&self) -> Durable {
        progress::tell(self.durable.as_ref(), self.received.as_ref())
    }
}

fn ended() -> Error {
    Error::Misuse("the replica was ended".to_owned())
}

fn open_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|e| Error::io(format!("open {}", path.display()), e))
}

#[async_trait]
impl DestReplica for Replica {
    async fn durable(&self) -> Result<Durable> {
        self.job(|shared| {
            let _using = shared.enter()?;
            Ok(shared.state().tell())
        })
        .await
    }

    async fn plan(&self, plan: &Plan) -> Result<()> {
        let plan = plan.clone();
        self.job(move |shared| shared.plan(&plan)).await
    }

    async fn digest(&self, part: u32, offset: u64, len: usize) -> Result<Bytes> {
        self.job(move |shared| shared.digest(part, offset, len)).await
    }

    async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next_offset: u64, last: bool) -> Result<()> {
        self.job(move |shared| shared.chunk(part, offset, &payload, next_offset, last)).await
    }

    async fn sync(&self) -> Result<Durable> {
        self.job(|shared| {
            shared.sync(sync::Bound::Keep)?;
            Ok(shared.state().tell())
        })
        .await
    }

    async fn seed_done(&self) -> Result<()> {
        self.job(|shared| shared.seed_done()).await
    }

    async fn log(&self, batch: LogBatch) -> Result<()> {
        self.job(move |shared| shared.take_log(&batch)).await
    }

    async fn prepare_marker(&self, position: &Position) -> Result<()> {
        let position = position.clone();
        self.job(move |shared| shared.prepare_marker(&position)).await
    }

    async fn settle(&self) -> Result<()> {
        self.job(|shared| shared.sync(sync::Bound::Keep)).await
    }

    async fn close(&self) {
        let _ = self
            .job(|shared| {
                Replica { shared: shared.clone() }.end();
                Ok(())
            })
            .await;
    }
}
