//! The names of the keys, in memory: where to begin reading backwards. A hint only: one too many or too few costs a request.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use super::Keys;

/// Keys read at once: names of some fifty bytes.
pub(super) const PAGE: i64 = 10_000;

/// The keys as far as they are known.
#[derive(Default)]
pub(super) struct Index {
    keys: Mutex<BTreeSet<String>>,
}

impl Index {
    pub(super) fn add(&self, keys: impl IntoIterator<Item = String>) {
        self.lock().extend(keys);
    }

    pub(super) fn remove(&self, key: &str) {
        self.lock().remove(key);
    }

    /// The key from which on there are `wanted` keys below `high` that start with `low`; nothing if there are not so many.
    pub(super) fn begin(&self, names: &Keys, low: &str, high: &[u8], wanted: usize) -> Option<String> {
        let keys = self.lock();
        let range = keys.range::<str, _>((Bound::Included(low), Bound::Unbounded));
        // The end may be no text: an end of a prefix is one byte further.
        let below = |key: &&String| names.data(key).as_slice() < high;
        match names.data_of(high) {
            Some(end) if end.as_str() > low => keys
                .range::<str, _>((Bound::Included(low), Bound::Excluded(end.as_str())))
                .nth_back(wanted.checked_sub(1)?)
                .cloned(),
            Some(_) => None,
            None => range.take_while(below).collect::<Vec<_>>().into_iter().nth_back(wanted.checked_sub(1)?).cloned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.keys.lock().expect("no holder of this lock panics")
    }
}
