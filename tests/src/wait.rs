//! Waiting for something to become true, with a deadline and a name for what was awaited.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything that should happen soon may take on a busy machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks: short against everything that is awaited, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `look` finds something; panics with what was awaited when it takes longer than `patience`.
#[track_caller]
pub fn until<T>(awaited: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < patience, "{awaited}: not within {patience:?}");
        thread::sleep(PAUSE);
    }
}
