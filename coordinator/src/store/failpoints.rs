//! A store that waits before and after the commits that take an operation a step further, for tests of faults.

use std::sync::Arc;

use handover::operation::{CancelStep, CompletionStep, Operation, State};
use service::{
    Env,
    failpoint::{Failpoints, Side},
};

use super::{Changes, Entry, Error, Page, Record, Revision, Store, Txn, Versioned, codec, records::OPERATIONS};

/// The steps, in the order in which an operation may come to them.
pub const STEPS: [&str; 17] = [
    "coordinator.queued",
    "coordinator.preparing",
    "coordinator.seeding",
    "coordinator.catching-up",
    "coordinator.ready",
    "coordinator.cutover",
    "coordinator.aborting",
    "coordinator.unfencing",
    "coordinator.flipped",
    "coordinator.half-done",
    "coordinator.forgetting",
    "coordinator.source-clean",
    "coordinator.succeeded",
    "coordinator.discarding",
    "coordinator.cleaning-source",
    "coordinator.forgetting-dest",
    "coordinator.cancelled",
];

/// The store itself, and the points that are armed.
pub(crate) struct WithFailpoints<S> {
    pub(crate) inner: Arc<S>,
    pub(crate) points: Failpoints,
    pub(crate) env: Env,
}

/// The step that a commit is, if it is one.
fn step_of(txn: &Txn) -> Option<&'static str> {
    let (key, value) = txn.puts.iter().find(|(key, _)| key.starts_with(OPERATIONS))?;
    let record: Record = codec::decode(key, value).ok()?;
    Some(name(&record.operation))
}

fn name(operation: &Operation) -> &'static str {
    match &operation.state {
        State::Queued => "coordinator.queued",
        State::Preparing => "coordinator.preparing",
        State::Seeding => "coordinator.seeding",
        State::CatchingUp => "coordinator.catching-up",
        State::Ready => "coordinator.ready",
        State::Completing(completing) => match &completing.step {
            CompletionStep::Cutover => "coordinator.cutover",
            CompletionStep::Aborting { .. } => "coordinator.aborting",
            CompletionStep::Unfencing { .. } => "coordinator.unfencing",
            CompletionStep::Flipped { released: false, finished: false } => "coordinator.flipped",
            CompletionStep::Flipped { .. } => "coordinator.half-done",
            CompletionStep::Forgetting { source_clean: false } => "coordinator.forgetting",
            CompletionStep::Forgetting { source_clean: true } => "coordinator.source-clean",
        },
        State::Cancelling(cancelling) => match cancelling.step {
            CancelStep::Discarding => "coordinator.discarding",
            CancelStep::CleaningSource => "coordinator.cleaning-source",
            CancelStep::Forgetting => "coordinator.forgetting-dest",
        },
        State::Succeeded => "coordinator.succeeded",
        State::Failed | State::Cancelled => "coordinator.cancelled",
    }
}

#[async_trait::async_trait]
impl<S: Store> Store for WithFailpoints<S> {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str, page: Page) -> Result<Vec<Entry>, Error> {
        self.inner.list(prefix, page).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        let Some(step) = step_of(&txn) else { return self.inner.commit(txn).await };
        let (inner, points) = (self.inner.clone(), self.points.clone());
        // Whoever watches the store hears of the commit at once, and may drop the one who made it: the wait goes on.
        let committing = self.env.spawn("commit with failpoints", async move {
            points.reach(step, Side::Before).await;
            let revision = inner.commit(txn).await?;
            points.reach(step, Side::After).await;
            Ok(revision)
        });
        match committing.await {
            Ok(result) => result,
            // The runtime is shutting down: so shall we be.
            Err(_) => std::future::pending().await,
        }
    }
    fn watch(&self, prefix: &str) -> Changes {
        self.inner.watch(prefix)
    }
}
