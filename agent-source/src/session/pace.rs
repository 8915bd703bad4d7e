//! The rate at which a seed is sent, kept by all its lanes together.

use std::{sync::Mutex, time::Duration};

/// See the module.
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When all that was sent would have been, at this rate.
    due: Mutex<Duration>,
}

impl Pace {
    /// No limit if it is 0.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, due: Mutex::default() }
    }

    /// How long the lane that just sent so many bytes has to wait. What was not sent earlier is not made up for.
    pub(super) fn wait(&self, bytes: u64, now: Duration) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let mut due = self.due.lock().expect("no code panics while it holds this lock");
        *due = now.max(*due) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *due - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_keep_the_rate_together() {
        let (at, pace) = (Duration::from_secs, Pace::new(100));
        assert_eq!(pace.wait(300, at(10)), at(3));
        assert_eq!(pace.wait(100, at(11)), at(3), "another lane waits for the first one's bytes too");
        assert_eq!(pace.wait(100, at(20)), at(1), "a pause is not made up for");
        assert_eq!(Pace::new(0).wait(u64::MAX, at(1)), Duration::ZERO);
    }
}
