//! Who watches: each operation is watched by somebody, and what comes is when it came.

use super::{Client, figures::Times};
use proto::v1::{self, State};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What the watchers have seen so far.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    states: HashMap<String, State>,
    messages: u64,
    /// Operations that may be completed and that nobody has taken yet.
    ready: Vec<String>,
    asked: HashMap<String, Instant>,
    /// From the request to complete an operation to the news that it is being completed.
    news: Times,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Watches some operations until all have ended.
    pub async fn watch(&self, mut client: Client, ids: Vec<String>) {
        let request = v1::WatchOperationsRequest { ids, batch: String::new() };
        let mut news = client.watch_operations(request).await.expect("watch").into_inner();
        while let Some(news) = news.message().await.expect("news") {
            self.take(news.operation.expect("news are about an operation"));
        }
    }

    fn take(&self, operation: v1::Operation) {
        let state = operation.state();
        let mut known = self.lock();
        known.messages += 1;
        let before = known.states.insert(operation.id.clone(), state);
        if before == Some(state) {
            return;
        }
        match state {
            State::ReadyForCompletion => known.ready.push(operation.id),
            State::Completing | State::Succeeded => {
                if let Some(asked) = known.asked.remove(&operation.id) {
                    known.news.add(asked.elapsed());
                }
            }
            State::Failed | State::Cancelled => panic!("{} ended: {:?}", operation.id, operation.reason),
            _ => {}
        }
    }

    /// Takes an operation to be completed, from this moment on.
    pub fn next_ready(&self) -> Option<String> {
        let mut known = self.lock();
        let id = known.ready.pop()?;
        known.asked.insert(id.clone(), Instant::now());
        Some(id)
    }

    /// How many operations are in one of these states.
    pub fn count(&self, states: &[State]) -> usize {
        self.lock().states.values().filter(|state| states.contains(state)).count()
    }

    /// Messages so far.
    pub fn messages(&self) -> u64 {
        self.lock().messages
    }

    /// How long news took.
    pub fn news(&self) -> Times {
        self.lock().news.clone()
    }

    /// Waits until so many operations are in one of these states.
    pub async fn until(&self, count: usize, states: &[State], patience: Duration) {
        let begun = Instant::now();
        let mut told = begun;
        while self.count(states) < count {
            assert!(begun.elapsed() < patience, "{} of {count} are {states:?}", self.count(states));
            if told.elapsed() > Duration::from_secs(10) {
                eprintln!("  {} of {count} are {states:?}", self.count(states));
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
