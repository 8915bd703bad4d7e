//! What each step of something took that clients wait for, for the log.

use std::time::Instant;

/// In microseconds, from one step to the next.
pub(crate) struct Steps {
    since: Instant,
    took: Vec<(&'static str, u128)>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { since: Instant::now(), took: vec![] }
    }
}

impl Steps {
    /// A step has ended, and the next one begins.
    pub(crate) fn done(&mut self, step: &'static str) {
        self.took.push((step, self.since.elapsed().as_micros()));
        self.since = Instant::now();
    }
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (step, took) in &self.took {
            write!(f, "{step} {took} ")?;
        }
        Ok(())
    }
}
