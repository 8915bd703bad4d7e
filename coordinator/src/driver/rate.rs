//! How fast an operation goes, over the last few seconds.

use std::collections::VecDeque;
use std::time::Duration;

use crate::progress::Progress;

/// Long enough to even out bursts, short enough to follow a change while one looks on.
const OVER: Duration = Duration::from_secs(5);
/// Samples kept: 5 s at the shortest interval a configuration allows.
const SAMPLES_MAX: usize = 512;

/// The last samples of one counter.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Duration, u64)>,
    seeding: bool,
}

impl Rate {
    /// Take in the figures at `now` (monotonic) and fill in the rate and what follows from it.
    pub(super) fn fill(&mut self, now: Duration, seeded: bool, progress: &mut Progress) {
        let counter = if seeded { progress.log_bytes_applied } else { progress.seed_bytes_done };
        // Another counter, or a new generation of it: what was measured before says nothing.
        if self.seeding == seeded || self.samples.back().is_some_and(|(_, last)| *last > counter) {
            self.samples.clear();
        }
        self.seeding = !seeded;
        self.samples.push_back((now, counter));
        while self.samples.len() > SAMPLES_MAX
            || self.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > OVER)
        {
            self.samples.pop_front();
        }
        let (Some((from, first)), Some((to, last))) = (self.samples.front(), self.samples.back()) else {
            return;
        };
        let millis = u64::try_from(to.saturating_sub(*from).as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return;
        }
        let rate = u128::from(last - first) * 1000 / u128::from(millis);
        progress.bytes_per_second = u64::try_from(rate).unwrap_or(u64::MAX);
        let left = progress.seed_bytes_total.saturating_sub(progress.seed_bytes_done);
        progress.eta_seconds = match progress.bytes_per_second {
            _ if seeded => None,
            0 => None,
            rate => Some(left.div_ceil(rate)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, done: u64, rate: &mut Rate) -> Progress {
        let mut progress = Progress { seed_bytes_done: done, seed_bytes_total: 10_000, ..Progress::default() };
        rate.fill(Duration::from_secs(seconds), false, &mut progress);
        progress
    }

    #[test]
    fn the_rate_is_of_the_last_seconds_and_gives_the_time_left() {
        let mut rate = Rate::default();
        assert_eq!(at(0, 0, &mut rate).eta_seconds, None);
        assert_eq!(at(1, 1000, &mut rate).bytes_per_second, 1000);
        for second in 2..=10 {
            at(second, 1000 + (second - 1) * 100, &mut rate);
        }
        let now = at(11, 2000, &mut rate);
        assert_eq!((now.bytes_per_second, now.eta_seconds), (100, Some(80)));
    }

    #[test]
    fn a_counter_that_starts_again_gives_no_nonsense() {
        let mut rate = Rate::default();
        at(0, 5000, &mut rate);
        at(1, 6000, &mut rate);
        let again = at(2, 0, &mut rate);
        assert_eq!((again.bytes_per_second, again.eta_seconds), (0, None));
        let mut seeded = Progress { log_bytes_applied: 7, ..Progress::default() };
        rate.fill(Duration::from_secs(3), true, &mut seeded);
        assert_eq!((seeded.bytes_per_second, seeded.eta_seconds), (0, None));
    }
}
