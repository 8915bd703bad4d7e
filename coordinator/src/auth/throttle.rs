//! How much one caller may ask: a rate, and a number of requests at once. Whoever floods hinders only themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Callers that are remembered. One that has been quiet is as good as new, so forgetting it changes nothing.
const CALLERS_MAX: usize = 10_000;
/// What may be asked in one burst, in seconds of the rate.
const BURST_SECONDS: f64 = 2.0;

/// Counts requests by caller.
pub(super) struct Throttle {
    per_second: f64,
    at_once: u32,
    callers: Callers,
}

type Callers = Arc<Mutex<HashMap<String, Bucket>>>;

struct Bucket {
    /// Requests that may be made now.
    tokens: f64,
    /// When they were last counted, by the monotonic clock.
    at: Duration,
    under_way: u32,
    /// Requests that were turned away since the last one that was not.
    turned_away: u64,
}

/// A request that counts as under way until this is dropped.
pub(super) struct Place {
    callers: Callers,
    who: String,
    /// How many of the caller's requests were turned away before this one.
    pub(super) turned_away: u64,
}

/// Why a request has to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many in too short a time; try again after this.
    Rate(Duration),
    /// Too many at once.
    AtOnce(u32),
}

impl Throttle {
    pub(super) fn new(per_second: u32, at_once: u32) -> Self {
        Self { per_second: f64::from(per_second), at_once, callers: Arc::default() }
    }

    /// Takes one request of a caller into account.
    pub(super) fn enter(&self, who: String, now: Duration) -> Result<Place, Full> {
        let most = self.per_second * BURST_SECONDS;
        let mut callers = self.callers.lock().expect("no holder of this lock panics");
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&who) {
            // Those that wait for nothing and have used nothing up.
            callers.retain(|_, bucket| bucket.under_way > 0 || bucket.refilled(self.per_second, most, now) < most);
        }
        let bucket =
            callers.entry(who.clone()).or_insert(Bucket { tokens: most, at: now, under_way: 0, turned_away: 0 });
        bucket.tokens = bucket.refilled(self.per_second, most, now);
        bucket.at = now;
        bucket.turned_away += 1;
        if bucket.under_way >= self.at_once {
            return Err(Full::AtOnce(self.at_once));
        }
        if bucket.tokens < 1.0 {
            let missing = (1.0 - bucket.tokens) / self.per_second;
            return Err(Full::Rate(Duration::from_secs_f64(missing.min(60.0)).max(Duration::from_millis(10))));
        }
        bucket.tokens -= 1.0;
        bucket.under_way += 1;
        let turned_away = std::mem::take(&mut bucket.turned_away) - 1;
        Ok(Place { callers: self.callers.clone(), who, turned_away })
    }
}

impl Bucket {
    fn refilled(&self, per_second: f64, most: f64, now: Duration) -> f64 {
        (self.tokens + now.saturating_sub(self.at).as_secs_f64() * per_second).min(most)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.callers.lock().expect("no holder of this lock panics");
        if let Some(bucket) = callers.get_mut(&self.who) {
            bucket.under_way = bucket.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_floods_waits_and_nobody_else_does() {
        let throttle = Throttle::new(10, 100);
        let now = Duration::from_secs(5);
        let taken = (0..30).filter(|_| throttle.enter("mallory".to_owned(), now).is_ok()).count();
        assert_eq!(taken, 20, "two seconds' worth in one burst");
        let Err(Full::Rate(wait)) = throttle.enter("mallory".to_owned(), now) else { panic!("no more for now") };
        assert!(wait <= Duration::from_millis(110), "{wait:?}");
        assert!(throttle.enter("ann".to_owned(), now).is_ok());
        let Ok(place) = throttle.enter("mallory".to_owned(), now + wait) else {
            panic!("after the wait there is one more")
        };
        assert_eq!(place.turned_away, 11);
        assert!(throttle.enter("mallory".to_owned(), now + wait).is_err());
    }

    #[test]
    fn requests_under_way_are_bounded_and_end() {
        let throttle = Throttle::new(1000, 3);
        let mut held: Vec<Place> =
            (0..3).filter_map(|_| throttle.enter("ann".to_owned(), Duration::ZERO).ok()).collect();
        assert_eq!(held.len(), 3);
        assert_eq!(throttle.enter("ann".to_owned(), Duration::ZERO).err(), Some(Full::AtOnce(3)));
        held.pop();
        assert!(throttle.enter("ann".to_owned(), Duration::ZERO).is_ok());
    }

    #[test]
    fn quiet_callers_are_forgotten() {
        let throttle = Throttle::new(10, 3);
        let place = throttle.enter("busy".to_owned(), Duration::ZERO);
        for n in 0..3 * CALLERS_MAX {
            let now = Duration::from_millis(n as u64);
            drop(throttle.enter(format!("caller {n}"), now));
        }
        let callers = throttle.callers.lock().expect("the lock");
        assert!(callers.len() <= CALLERS_MAX && callers.contains_key("busy"), "{}", callers.len());
        drop((callers, place));
    }
}
