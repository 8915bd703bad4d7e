//! What is known in memory about the operations that have not ended: a copy of the store, and what changes too often to
//! be stored. All of it can be lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use handover::{CommandVersion, InstanceName, OperationId, operation::State};
use tokio::sync::{broadcast, watch};

use crate::{agents::Half, progress::Progress, store::Stored};

/// One operation as it is now.
#[derive(Clone, Debug)]
pub struct View {
    /// The record.
    pub stored: Arc<Stored>,
    /// How far it is; nothing until its agents were asked.
    pub progress: Option<Progress>,
    /// For whom it waits.
    pub waiting: BTreeMap<Waiter, Waiting>,
}

/// That an operation waits for somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Who that is, and why.
    pub why: String,
    /// When it began, in milliseconds since 1970; it begins anew with the operation's next step, and with the process.
    pub since_ms: i64,
}

/// An operation as one follows it.
pub struct Following {
    /// The present view, and that something about it changed.
    pub view: watch::Receiver<View>,
    /// Every change of the record, in order.
    pub changes: broadcast::Receiver<View>,
}

/// Changes of one record that a slow follower may be behind: an operation without faults makes a dozen. Their places are there
/// from the beginning.
const CHANGES_MAX: usize = 16;

#[derive(Debug)]
struct Entry {
    view: watch::Sender<View>,
    changes: broadcast::Sender<View>,
}

/// Whom an operation may wait for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Waiter {
    /// An agent.
    Agent(Half),
    /// The coordinator's own store.
    Store,
}

/// The views of all operations that have not ended, fed by the store's changes in their order.
#[derive(Debug)]
pub struct Hub {
    known: Mutex<Known>,
    seen: watch::Sender<CommandVersion>,
}

#[derive(Debug, Default)]
struct Known {
    views: HashMap<OperationId, Entry>,
    /// Of every source that has had operations: with thousands of operations nobody can afford to look through all for those of one.
    sources: HashMap<InstanceName, Source>,
    /// Over all sources.
    running: usize,
}

/// The operations of one source.
#[derive(Debug, Default)]
struct Source {
    running: usize,
    /// First in, first out.
    queued: BTreeSet<(i64, OperationId)>,
    queue: Queue,
}

/// What the queued operations of a source wait with.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Held from the count of those that run to the commit that adds one.
    pub gate: Arc<tokio::sync::Mutex<()>>,
    /// Counts the changes that may give one of them its turn.
    turns: watch::Sender<u64>,
}

impl Queue {
    /// Changes whenever a queued operation may have got its turn.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }
}

impl Hub {
    /// A hub that knows of nothing.
    pub fn new() -> Self {
        Self { known: Mutex::default(), seen: watch::Sender::new(CommandVersion(0)) }
    }

    /// Take up the records of one commit. Older ones than known change nothing. One that ended is told to its watchers and
    /// dropped.
    pub fn apply(&self, commit: impl IntoIterator<Item = Stored>) {
        let mut last = CommandVersion(0);
        for stored in commit {
            last = last.max(stored.version);
            self.take_up(stored);
        }
        // Only now: half of a start is not caught up with it.
        self.seen.send_if_modified(|seen| {
            let newer = *seen < last;
            *seen = last.max(*seen);
            newer
        });
    }

    fn take_up(&self, stored: Stored) {
        let id = stored.id().clone();
        let stored = Arc::new(stored);
        let mut known = self.lock();
        let before = match known.views.get(&id) {
            Some(entry) => {
                let before = entry.view.borrow().stored.clone();
                if before.version >= stored.version {
                    return;
                }
                entry.view.send_modify(|view| {
                    if stage(&view.stored) != stage(&stored) {
                        view.waiting.clear();
                    }
                    view.stored = stored.clone();
                });
                // Nobody may be following.
                let _ = entry.changes.send(entry.view.borrow().clone());
                Some(before)
            }
            None if stored.operation().state.ended() => return,
            None => {
                let view = View { stored: stored.clone(), progress: None, waiting: BTreeMap::new() };
                let changes = broadcast::Sender::new(CHANGES_MAX);
                known.views.insert(id.clone(), Entry { view: watch::Sender::new(view), changes });
                None
            }
        };
        if stored.operation().state.ended() {
            // Its watchers keep their receivers and with them the last view.
            known.views.remove(&id);
        }
        known.count(before.as_deref(), &stored);
    }

    /// Completes once every change up to `version` was taken up.
    pub async fn caught_up(&self, version: CommandVersion) {
        // The sender lives in `self`, so the channel cannot close.
        let _ = self.seen.subscribe().wait_for(|seen| *seen >= version).await;
    }

    /// The present view of an operation and all later ones; nothing if it has ended.
    pub fn subscribe(&self, id: &OperationId) -> Option<watch::Receiver<View>> {
        self.lock().views.get(id).map(|entry| entry.view.subscribe())
    }

    /// All that happens to an operation from now on; nothing if it has ended.
    pub fn follow(&self, id: &OperationId) -> Option<Following> {
        let following = |entry: &Entry| Following { view: entry.view.subscribe(), changes: entry.changes.subscribe() };
        self.lock().views.get(id).map(following)
    }

    /// The present view of an operation; nothing if it has ended.
    pub fn view(&self, id: &OperationId) -> Option<View> {
        self.lock().views.get(id).map(|entry| entry.view.borrow().clone())
    }

    /// Show how far an operation is.
    pub fn set_progress(&self, id: &OperationId, progress: Progress) {
        if let Some(entry) = self.lock().views.get(id) {
            entry.view.send_modify(|view| view.progress = Some(progress));
        }
    }

    /// Show for whom an operation waits at `now_ms`, or that it waits no more. Another reason does not begin the wait anew.
    pub fn set_waiting(&self, id: &OperationId, whom: Waiter, why: Option<String>, now_ms: i64) {
        if let Some(entry) = self.lock().views.get(id) {
            entry.view.send_if_modified(|view| match why {
                Some(why) => {
                    let waiting = view.waiting.entry(whom).or_insert(Waiting { why: String::new(), since_ms: now_ms });
                    let other = waiting.why != why;
                    waiting.why = why;
                    other
                }
                None => view.waiting.remove(&whom).is_some(),
            });
        }
    }

    /// How many operations have not ended.
    pub fn active(&self) -> usize {
        self.lock().views.len()
    }

    /// The ids of the operations that have not ended.
    pub fn ids(&self) -> Vec<OperationId> {
        self.lock().views.keys().cloned().collect()
    }

    /// How many operations run, over all sources.
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// How many operations a source runs: out of the queue and not ended.
    pub fn running_at(&self, source: &InstanceName) -> usize {
        self.lock().sources.get(source).map_or(0, |source| source.running)
    }

    /// The place of a queued operation in its source's queue, first in first out: 1 is next, 0 is not queued.
    pub fn place(&self, stored: &Stored) -> u32 {
        let mine = stored.operation();
        if mine.state != State::Queued {
            return 0;
        }
        let ahead = match self.lock().sources.get(&mine.source) {
            Some(source) => source.queued.range(..place(stored)).count(),
            None => 0,
        };
        u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The queue of a source.
    pub fn queue(&self, source: &InstanceName) -> Queue {
        self.lock().sources.entry(source.clone()).or_default().queue.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }
}

impl Known {
    /// Take into account what an operation was before and is now.
    fn count(&mut self, before: Option<&Stored>, now: &Stored) {
        let source = self.sources.entry(now.operation().source.clone()).or_default();
        let ran = before.is_some_and(|before| before.operation().state.running());
        let runs = now.operation().state.running();
        source.running = source.running + usize::from(runs) - usize::from(ran);
        self.running = self.running + usize::from(runs) - usize::from(ran);
        if now.operation().state == State::Queued {
            source.queued.insert(place(now));
        } else {
            source.queued.remove(&place(now));
        }
        if before.is_none_or(|before| before.operation().state != now.operation().state) {
            source.queue.turns.send_modify(|count| *count += 1);
        }
    }
}

/// By what a queue is ordered.
fn place(stored: &Stored) -> (i64, OperationId) {
    (stored.operation().times.created_ms, stored.id().clone())
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

/// What is being done for an operation: when it changes, what was waited for does not count any more.
fn stage(stored: &Stored) -> Vec<handover::operation::Action> {
    handover::operation::actions(stored.operation())
}

#[cfg(test)]
mod tests {
    use handover::Kind;

    use super::*;
    use crate::{fixture, store::Record};

    fn stored(version: u64, state: State) -> Stored {
        Stored { version: CommandVersion(version), record: Record::new(fixture::operation(Kind::Move, state)) }
    }

    #[test]
    fn a_wait_counts_from_its_first_refusal_in_a_step() {
        let (hub, first) = (Hub::new(), stored(1, State::Preparing));
        let id = first.id().clone();
        hub.apply([first]);
        let wait = |why: Option<&str>, now_ms| {
            hub.set_waiting(&id, Waiter::Agent(Half::Dest), why.map(str::to_owned), now_ms);
            let waiting = hub.view(&id).expect("it has not ended").waiting;
            waiting.get(&Waiter::Agent(Half::Dest)).map(|waiting| (waiting.why.clone(), waiting.since_ms))
        };
        assert_eq!(wait(Some("refused"), 10), Some(("refused".to_owned(), 10)));
        assert_eq!(wait(Some("no answer"), 20), Some(("no answer".to_owned(), 10)), "another reason, the same wait");
        assert_eq!(wait(None, 30), None);
        assert_eq!(wait(Some("refused"), 40), Some(("refused".to_owned(), 40)), "it answered meanwhile");
        hub.apply([stored(2, State::Seeding)]);
        assert_eq!(wait(Some("refused"), 50), Some(("refused".to_owned(), 50)), "for something else");
    }
}
