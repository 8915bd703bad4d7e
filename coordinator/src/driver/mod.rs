//! The driver: one task for each operation that has not ended, started from the store alone.
//!
//! The store's changes are the only wire between the calls of users and the tasks: whoever commits a change of an
//! operation wakes its task, and a new operation gets one.

mod cutover;
mod ending;
mod hub;
mod observe;
mod perform;
mod prepare;
mod rate;
mod task;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use handover::OperationId;
use service::Backoff;
use tokio::task::AbortHandle;

use crate::{core::Core, store};

pub use hub::{Following, Hub, View, Waiter, Waiting};

/// How long an operation rests after its task panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Drives every operation until shutdown. Returns early only if the store cannot be read at the start.
pub async fn run(core: Arc<Core>) -> Result<(), store::Error> {
    // Watched before it is listed, so that nothing falls between.
    let mut changes = core.records.changes();
    let mut tasks = Tasks { core: core.clone(), running: HashMap::new(), ended: FuturesUnordered::new() };
    core.hub.apply(core.records.active().await?);
    tasks.start_all();
    tracing::info!(operations = core.hub.active(), "driving");
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.wait() => break,
            change = changes.next() => match change {
                Some(Ok(commit)) => {
                    let going_on = commit.iter().filter(|stored| !stored.operation().state.ended());
                    let going_on: Vec<OperationId> = going_on.map(|stored| stored.id().clone()).collect();
                    core.hub.apply(commit);
                    going_on.into_iter().for_each(|id| tasks.start(id));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "follow the store's changes, listing again");
                    changes = core.records.changes();
                    relist(&core).await;
                    tasks.start_all();
                }
                // The store lives as long as `core`.
                None => break,
            },
            // After the changes, so that a task which ended is not started again for want of news.
            Some((id, panicked)) = tasks.ended.next() => tasks.ended(id, panicked),
        }
    }
    tasks.stop().await;
    Ok(())
}

/// Bring the hub up to date after changes were missed.
async fn relist(core: &Core) {
    let mut backoff = Backoff::default();
    loop {
        match refresh(core).await {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "list the operations, trying again"),
        }
        backoff.wait(&core.env).await;
    }
}

async fn refresh(core: &Core) -> Result<(), store::Error> {
    core.hub.apply(core.records.active().await?);
    // Those that ended while changes were missed are in no list of active ones.
    for id in core.hub.ids() {
        core.hub.apply(core.records.operation(&id).await?);
    }
    Ok(())
}

struct Tasks {
    core: Arc<Core>,
    running: HashMap<OperationId, AbortHandle>,
    ended: FuturesUnordered<BoxFuture<'static, (OperationId, bool)>>,
}

impl Tasks {
    fn start_all(&mut self) {
        for id in self.core.hub.ids() {
            self.start(id);
        }
    }

    fn start(&mut self, id: OperationId) {
        self.start_after(Duration::ZERO, id);
    }

    fn start_after(&mut self, pause: Duration, id: OperationId) {
        if self.running.contains_key(&id) {
            return;
        }
        let (core, driven) = (self.core.clone(), id.clone());
        let task = self.core.env.spawn("drive", async move {
            core.env.sleep(pause).await;
            task::drive(core, driven).await;
        });
        self.running.insert(id.clone(), task.abort_handle());
        self.ended.push(task.map(|joined| (id, joined.is_err_and(|error| error.is_panic()))).boxed());
    }

    /// A task ends with its operation. One that panicked starts again from the store.
    fn ended(&mut self, id: OperationId, panicked: bool) {
        self.running.remove(&id);
        if self.core.hub.view(&id).is_some() {
            // Not at once, should it panic again.
            self.start_after(if panicked { AFTER_PANIC } else { Duration::ZERO }, id);
        }
    }

    /// Everything is in the store: tasks are stopped where they stand, and only waited for.
    async fn stop(&mut self) {
        self.abort();
        while self.ended.next().await.is_some() {}
    }

    fn abort(&self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

impl Drop for Tasks {
    /// Also when the driver is dropped in the middle, nobody goes on driving.
    fn drop(&mut self) {
        self.abort();
    }
}
