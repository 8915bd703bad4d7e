//! Makes what was received durable, beside the receiving: one sync at a time for all lanes of an operation.

use super::{error::Error, meter::Meter};
use engines::dest::{DestReplica, Durable};
use service::{Env, Shutdown};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};

/// How long received log stays not durable: a source keeps so much more of it, and a crash costs so much to send again.
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// Received bytes after which it is synced at once, so that dirty pages stay few and the sync of a marker short.
const SYNC_BYTES: u64 = 32 << 20;

/// A failed sync is tried again by itself, for a full disk is freed without a word to this agent.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the last sync said.
pub(super) type Synced = std::result::Result<Arc<Durable>, Error>;

/// Decides when the replica is synced.
pub(super) struct Syncer {
    dirty: AtomicU64,
    some: Notify,
    now: Notify,
    gate: Arc<Mutex<()>>,
    meter: Arc<Meter>,
    synced: watch::Sender<Synced>,
    stop: Shutdown,
}

impl Syncer {
    pub(super) fn new(meter: Arc<Meter>, durable: Durable) -> Arc<Self> {
        Arc::new(Self {
            dirty: AtomicU64::new(0),
            some: Notify::new(),
            now: Notify::new(),
            gate: Arc::default(),
            meter,
            synced: watch::Sender::new(Ok(Arc::new(durable))),
            stop: Shutdown::new(),
        })
    }

    /// So many bytes more are to be made durable, soon or (`promptly`) at once.
    pub(super) fn wrote(&self, bytes: usize, promptly: bool) {
        let bytes = bytes as u64;
        // One more, because an empty chunk has to be acknowledged too.
        let dirty = self.dirty.fetch_add(bytes + 1, Ordering::Relaxed) + bytes + 1;
        self.some.notify_one();
        if promptly || dirty >= SYNC_BYTES {
            self.now.notify_one();
        }
    }

    /// What is durable, now and from now on.
    pub(super) fn watch(&self) -> watch::Receiver<Synced> {
        self.synced.subscribe()
    }

    /// Waits for a sync under way and keeps further ones away as long as the guard lives.
    pub(super) async fn pause(&self) -> OwnedMutexGuard<()> {
        self.gate.clone().lock_owned().await
    }

    /// The engine has made everything durable in another way.
    pub(super) fn clean(&self) {
        self.dirty.store(0, Ordering::Relaxed);
    }

    /// Ends the syncs; after it, one that waits at the gate does nothing.
    pub(super) fn stop(&self) {
        self.stop.trigger();
    }

    /// Syncs until told to stop.
    pub(super) async fn run(self: Arc<Self>, env: Env, replica: Arc<dyn DestReplica>) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.wait() => return,
                () = self.some.notified() => {}
            }
            tokio::select! {
                biased;
                () = self.stop.wait() => return,
                () = self.now.notified() => {}
                () = env.sleep(SYNC_EVERY) => {}
            }
            let failed = {
                let _gate = self.gate.lock().await;
                self.sync(&*replica).await
            };
            if failed {
                tokio::select! {
                    biased;
                    () = self.stop.wait() => return,
                    () = env.sleep(RETRY_AFTER) => self.some.notify_one(),
                }
            }
        }
    }

    /// Syncs what is there now and tells it to all lanes; for a source that has ended its side and listens on.
    pub(super) async fn flush(&self, replica: &dyn DestReplica) {
        self.dirty.fetch_add(1, Ordering::Relaxed);
        let _gate = self.gate.lock().await;
        self.sync(replica).await;
    }

    /// Whether the sync failed.
    async fn sync(&self, replica: &dyn DestReplica) -> bool {
        let dirty = self.dirty.swap(0, Ordering::Relaxed);
        // Looked at behind the gate: the replica of a database that was opened is not to be touched.
        if dirty == 0 || self.stop.is_set() {
            return false;
        }
        match replica.sync().await {
            Ok(durable) => {
                self.meter.durable(&durable);
                self.meter.went_on();
                self.synced.send_modify(|synced| *synced = Ok(Arc::new(durable)));
                false
            }
            Err(error) => {
                let error = Error::from(error);
                tracing::warn!(%error, "make what was received durable");
                self.meter.failed(&error);
                self.dirty.fetch_add(dirty, Ordering::Relaxed);
                self.synced.send_modify(|synced| *synced = Err(error));
                true
            }
        }
    }
}
