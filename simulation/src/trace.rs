//! What happened, line by line, and the hash of all of it: two runs are the same if their hashes are.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use xxhash_rust::xxh3::Xxh3;

/// Lines kept to be shown beside a violation.
const TAIL: usize = 60;

/// The trace of a run.
pub struct Trace {
    state: Mutex<State>,
    print: bool,
}

struct State {
    hash: Xxh3,
    tail: VecDeque<String>,
}

impl Trace {
    /// An empty trace; with `print` every line goes to standard error too.
    pub fn new(print: bool) -> Self {
        Self { state: Mutex::new(State { hash: Xxh3::new(), tail: VecDeque::new() }), print }
    }

    /// One thing happened.
    pub fn say(&self, who: &str, what: fmt::Arguments<'_>) {
        let line = format!("{:>10.3} {who:<11} {what}", now().as_secs_f64());
        if self.print {
            eprintln!("{line}");
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.hash.update(line.as_bytes());
        if state.tail.len() == TAIL {
            state.tail.pop_front();
        }
        state.tail.push_back(line);
    }

    /// The hash of everything said so far.
    pub fn hash(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).hash.digest()
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).tail.iter().cloned().collect()
    }
}

/// Simulated time since the start: inside a host to the instant, between steps as the clock was last set.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| Duration::from_nanos(NOW.load(std::sync::atomic::Ordering::Relaxed)))
}

static NOW: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Sets the time between steps.
pub fn set_now(now: Duration) {
    NOW.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), std::sync::atomic::Ordering::Relaxed);
}
