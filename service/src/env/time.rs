//! Moments and ticks: [`Timestamp`], [`Elapsed`] and [`Interval`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Clock;

/// A moment of wall-clock time: milliseconds since 1970-01-01T00:00:00Z, negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// A moment in the notation of RFC 3339, such as `2024-06-19T19:22:45Z`; nothing for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|moment| Self(moment.as_millisecond()))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment plus `duration`, held at the end of time.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Self(i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis)),
        }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, such as `2024-06-19T19:22:45.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => moment.fmt(f),
            // Beyond the year 9999 there is no such notation.
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// The time limit passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {limit:?}")]
pub struct Elapsed {
    /// The limit.
    pub limit: Duration,
}

/// Regular ticks by an injected clock. Made by [`super::Env::interval`].
#[derive(Debug)]
pub struct Interval {
    clock: Arc<dyn Clock>,
    period: Duration,
    next: Duration,
}

impl Interval {
    pub(super) fn new(clock: Arc<dyn Clock>, period: Duration) -> Self {
        let next = clock.monotonic();
        Self { clock, period, next }
    }

    /// Wait for the next tick. Cancelling loses no tick.
    pub async fn tick(&mut self) {
        let now = self.clock.monotonic();
        if now < self.next {
            self.clock.sleep(self.next - now).await;
        }
        self.next = self.clock.monotonic() + self.period;
    }
}
