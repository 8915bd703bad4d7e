//! The engine's replica of one operation, opened when it is needed and closed when the operation is decided.

use super::{
    Session,
    error::{Error, Result},
    sync::Syncer,
};
use engines::dest::DestReplica;
use handover::dest_role::Phase;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinHandle,
};

/// An open replica and what makes it durable.
#[derive(Clone)]
pub(super) struct Replica {
    pub(super) engine: Arc<dyn DestReplica>,
    pub(super) syncer: Arc<Syncer>,
}

/// Where the open replica is.
#[derive(Default)]
pub(super) struct Slot {
    open: Mutex<Option<Opened>>,
    /// The syncer of the open replica, for those who must not wait for an opening.
    syncer: StdMutex<Option<Arc<Syncer>>>,
}

struct Opened {
    replica: Replica,
    task: JoinHandle<()>,
}

impl Slot {
    /// Keeps syncs of the replica away as long as the answer lives.
    pub(super) async fn pause(&self) -> Option<OwnedMutexGuard<()>> {
        match self.syncer() {
            Some(syncer) => Some(syncer.pause().await),
            None => None,
        }
    }

    /// Keeps syncs of the replica away for good: it is a database now.
    pub(super) fn retire(&self) {
        if let Some(syncer) = self.syncer() {
            syncer.stop();
        }
    }

    fn syncer(&self) -> Option<Arc<Syncer>> {
        self.syncer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, syncer: Option<Arc<Syncer>>) {
        *self.syncer.lock().unwrap_or_else(PoisonError::into_inner) = syncer;
    }
}

impl Session {
    /// The replica, opened if it is not. Only for an operation that still takes in data.
    pub(super) async fn replica(&self) -> Result<Replica> {
        let mut slot = self.slot.open.lock().await;
        if let Some(open) = &*slot {
            return Ok(open.replica.clone());
        }
        // Looked at under the slot's lock: whoever decides closes the slot after the decision is durable.
        let role = self.view().role;
        match role.phase {
            Phase::Seeding | Phase::Replica | Phase::Prepared { .. } => {}
            Phase::Primary { .. } | Phase::Discarding | Phase::Discarded => {
                return Err(Error::NotReplicating { phase: role.phase.as_str(), what: "a stream" });
            }
        }
        let engine = self.engine.open(&role).await?;
        let durable = engine.durable().await?;
        self.meter.durable(&durable);
        let syncer = Syncer::new(self.meter.clone(), durable);
        let task = self.env.spawn("sync", syncer.clone().run(self.env.clone(), engine.clone()));
        let replica = Replica { engine, syncer };
        self.slot.set(Some(replica.syncer.clone()));
        *slot = Some(Opened { replica: replica.clone(), task });
        Ok(replica)
    }

    /// Ends what takes long at the replica, so that its lanes can end soon.
    pub(super) async fn interrupt_replica(&self) {
        let open = self.slot.open.lock().await.as_ref().map(|open| open.replica.engine.clone());
        if let Some(engine) = open {
            engine.interrupt().await;
        }
    }

    /// Closes the replica, if it is open. Its lanes have ended before.
    pub(super) async fn close_replica(&self) {
        let mut slot = self.slot.open.lock().await;
        let Some(open) = slot.take() else { return };
        self.slot.set(None);
        open.replica.syncer.stop();
        // A panic of the task is logged already.
        let _ = open.task.await;
        open.replica.engine.close().await;
    }
}
