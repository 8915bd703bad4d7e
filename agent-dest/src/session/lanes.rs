//! Which streams of an operation are open, so that a newer one waits until the older has let go of the replica.

use super::error::{Error, Result};
use handover::Epoch;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The lane of log and control.
pub(crate) const CONTROL: u32 = 0;
/// More seed lanes than any source opens; a bound for what one operation may hold in memory.
pub(crate) const LANES_MAX: u32 = 64;

/// Why a lane has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A newer stream of the same lane, or a newer plan.
    Superseded,
    /// A newer source agent spoke.
    Epoch { given: Epoch, known: Epoch },
    /// The operation is decided: the stream ends orderly, and Hello tells how.
    Decided,
}

/// The open lanes of one operation.
#[derive(Default)]
pub(super) struct Lanes {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    lanes: BTreeMap<u32, Entry>,
    /// The newest epoch that registered.
    epoch: Epoch,
    /// Set while a command needs the replica for itself.
    shut: bool,
}

struct Entry {
    stop: Arc<watch::Sender<Option<Stop>>>,
    epoch: Epoch,
    generation: u64,
}

/// Held by a lane's handler as long as it may touch the replica.
pub(crate) struct Ticket {
    stop: watch::Receiver<Option<Stop>>,
}

impl Ticket {
    /// Completes when the lane has to end. Cancel-safe.
    pub(crate) async fn stopped(&mut self) -> Error {
        let stop = match self.stop.wait_for(Option::is_some).await {
            Ok(stop) => *stop,
            // The entry is kept until the ticket is gone; a missing one means the session is.
            Err(_) => None,
        };
        match stop {
            Some(Stop::Epoch { given, known }) => Error::StaleEpoch { given, known },
            Some(Stop::Decided) | None => Error::Broken,
            Some(Stop::Superseded) => Error::SupersededLane,
        }
    }

    /// Whether the lane has to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }
}

impl Lanes {
    /// Enters a lane, ends the older streams that it replaces, and waits until they have let go.
    pub(super) async fn enter(&self, lane: u32, epoch: Epoch, generation: u64) -> Result<Ticket> {
        let (ticket, older) = {
            let mut open = self.lock();
            if epoch < open.epoch {
                return Err(Error::StaleEpoch { given: epoch, known: open.epoch });
            }
            if open.shut {
                return Err(Error::Occupied);
            }
            open.epoch = epoch;
            let mut older = open.stop_where(|n, entry| {
                if entry.epoch < epoch {
                    return Some(Stop::Epoch { given: entry.epoch, known: epoch });
                }
                (n == lane).then_some(Stop::Superseded)
            });
            let (stop, ticket) = watch::channel(None);
            if let Some(replaced) = open.lanes.insert(lane, Entry { stop: Arc::new(stop), epoch, generation }) {
                older.push(replaced.stop);
            }
            (Ticket { stop: ticket }, older)
        };
        gone(older).await;
        Ok(ticket)
    }

    /// Ends the seed lanes of plans older than `generation` and waits until they have let go.
    pub(super) async fn end_older_seed(&self, generation: u64) {
        let older = self
            .lock()
            .stop_where(|lane, entry| (lane != CONTROL && entry.generation < generation).then_some(Stop::Superseded));
        gone(older).await;
    }

    /// Ends all lanes and waits until they have let go; with `shut` none enters until [`Lanes::reopen`].
    pub(super) async fn end_all(&self, stop: Stop, shut: bool) {
        let all = {
            let mut open = self.lock();
            open.shut |= shut;
            open.stop_where(|_, _| Some(stop))
        };
        gone(all).await;
    }

    pub(super) fn reopen(&self) {
        self.lock().shut = false;
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn stop_where(&self, judge: impl Fn(u32, &Entry) -> Option<Stop>) -> Vec<Arc<watch::Sender<Option<Stop>>>> {
        let mut stopped = Vec::new();
        for (lane, entry) in &self.lanes {
            if let Some(stop) = judge(*lane, entry) {
                // The first reason stands.
                entry.stop.send_if_modified(|now| {
                    now.is_none() && {
                        *now = Some(stop);
                        true
                    }
                });
                stopped.push(entry.stop.clone());
            }
        }
        stopped
    }
}

async fn gone(lanes: Vec<Arc<watch::Sender<Option<Stop>>>>) {
    for lane in lanes {
        lane.closed().await;
    }
}
