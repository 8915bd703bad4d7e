//! How long to wait between tries: exponential, bounded, with jitter.

use std::time::Duration;

use super::Env;

/// Waiting times that double from `first` to `most`, each give or take a fifth.
///
/// The defaults are for reconnecting: 100 ms, because a restarted agent listens again within that; at most 5 s, because
/// an operator who repaired the network should not wait longer than that to see it work.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// The first wait of [`Backoff::default`].
    pub const FIRST: Duration = Duration::from_millis(100);
    /// The longest wait of [`Backoff::default`].
    pub const MOST: Duration = Duration::from_secs(5);

    /// Waits from `first` up to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    /// How long to wait now; the next answer will be about twice as long.
    pub fn next_delay(&mut self, env: &Env) -> Duration {
        // 2^20 times any sensible first wait is past any sensible bound; stopping there keeps the shift in range.
        let factor = 1u32 << self.tries.min(20);
        self.tries = self.tries.saturating_add(1);
        // Jitter after the bound, so that many waiters at the bound still spread; then bounded again.
        env.jitter(self.first.saturating_mul(factor).min(self.most)).min(self.most)
    }

    /// Wait as long as it is time to wait.
    pub async fn wait(&mut self, env: &Env) {
        let delay = self.next_delay(env);
        env.sleep(delay).await;
    }

    /// Start over, after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How many waits were asked for since the start or the last [`Backoff::reset`].
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Self::FIRST, Self::MOST)
    }
}
