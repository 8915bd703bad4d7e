//! What is known in memory about the operations that have not ended: a copy of the store, and what changes too often to
//! be stored. All of it can be lost.

use std::collections::{BTreeMap, HashMap};
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

/// Changes of one record that a slow follower may be behind: an operation without faults makes a dozen.
const CHANGES_MAX: usize = 64;

#[derive(Debug)]
struct Entry {
    view: watch::Sender<View>,
    changes: broadcast::Sender<View>,
}

impl Entry {
    fn borrow(&self) -> watch::Ref<'_, View> {
        self.view.borrow()
    }
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
    views: Mutex<HashMap<OperationId, Entry>>,
    seen: watch::Sender<CommandVersion>,
    /// Counts the changes that may give a queued operation its turn.
    turns: watch::Sender<u64>,
}

impl Hub {
    /// A hub that knows of nothing.
    pub fn new() -> Self {
        Self { views: Mutex::default(), seen: watch::Sender::new(CommandVersion(0)), turns: watch::Sender::new(0) }
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
        let version = stored.version;
        let id = stored.id().clone();
        let state = stored.operation().state.clone();
        let stored = Arc::new(stored);
        let mut turn = state.ended();
        {
            let mut views = self.lock();
            match views.get(&id) {
                Some(entry) => {
                    let newer = entry.view.send_if_modified(|view| {
                        if view.stored.version >= version {
                            return false;
                        }
                        turn |= view.stored.operation().state != state;
                        if stage(&view.stored) != stage(&stored) {
                            view.waiting.clear();
                        }
                        view.stored = stored.clone();
                        true
                    });
                    if newer {
                        // Nobody may be following.
                        let _ = entry.changes.send(entry.borrow().clone());
                    }
                }
                None if !state.ended() => {
                    let view = View { stored, progress: None, waiting: BTreeMap::new() };
                    let changes = broadcast::Sender::new(CHANGES_MAX);
                    views.insert(id.clone(), Entry { view: watch::Sender::new(view), changes });
                    turn = true;
                }
                None => {}
            }
            if state.ended() {
                // Its watchers keep their receivers and with them the last view.
                views.remove(&id);
            }
        }
        if turn {
            self.turns.send_modify(|count| *count += 1);
        }
    }

    /// Completes once every change up to `version` was taken up.
    pub async fn caught_up(&self, version: CommandVersion) {
        // The sender lives in `self`, so the channel cannot close.
        let _ = self.seen.subscribe().wait_for(|seen| *seen >= version).await;
    }

    /// The present view of an operation and all later ones; nothing if it has ended.
    pub fn subscribe(&self, id: &OperationId) -> Option<watch::Receiver<View>> {
        self.lock().get(id).map(|entry| entry.view.subscribe())
    }

    /// All that happens to an operation from now on; nothing if it has ended.
    pub fn follow(&self, id: &OperationId) -> Option<Following> {
        self.lock().get(id).map(|entry| Following { view: entry.view.subscribe(), changes: entry.changes.subscribe() })
    }

    /// The present view of an operation; nothing if it has ended.
    pub fn view(&self, id: &OperationId) -> Option<View> {
        self.lock().get(id).map(|view| view.borrow().clone())
    }

    /// Show how far an operation is.
    pub fn set_progress(&self, id: &OperationId, progress: Progress) {
        if let Some(entry) = self.lock().get(id) {
            entry.view.send_modify(|view| view.progress = Some(progress));
        }
    }

    /// Show for whom an operation waits at `now_ms`, or that it waits no more. Another reason does not begin the wait anew.
    pub fn set_waiting(&self, id: &OperationId, whom: Waiter, why: Option<String>, now_ms: i64) {
        if let Some(entry) = self.lock().get(id) {
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
        self.lock().len()
    }

    /// The ids of the operations that have not ended.
    pub fn ids(&self) -> Vec<OperationId> {
        self.lock().keys().cloned().collect()
    }

    /// How many operations a source runs: out of the queue and not ended.
    pub fn running(&self, source: &InstanceName) -> usize {
        let views = self.lock();
        let runs = |view: &Entry| {
            let view = view.borrow();
            let operation = view.stored.operation();
            operation.source == *source && operation.state.running()
        };
        views.values().filter(|view| runs(view)).count()
    }

    /// The place of a queued operation in its source's queue, first in first out: 1 is next, 0 is not queued.
    pub fn place(&self, stored: &Stored) -> u32 {
        let mine = stored.operation();
        if mine.state != State::Queued {
            return 0;
        }
        let before = |view: &Entry| {
            let view = view.borrow();
            let other = view.stored.operation();
            other.source == mine.source
                && other.state == State::Queued
                && (other.times.created_ms, &other.id) < (mine.times.created_ms, &mine.id)
        };
        let ahead = self.lock().values().filter(|view| before(view)).count();
        u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Changes whenever a queued operation may have got its turn.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, Entry>> {
        self.views.lock().expect("no holder of this lock panics")
    }
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
