//! A durable record as part of a state: shared, and hashed once.

use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// A record that never changes. States share it, and hashing a state costs one number for it.
#[derive(Clone)]
pub struct Record<T>(Arc<(u64, T)>);

impl<T: Hash> Record<T> {
    /// Takes a value.
    pub fn new(value: T) -> Self {
        // The keys of this hasher are fixed, so that two runs walk through the same fingerprints.
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(Arc::new((hasher.finish(), value)))
    }
}

impl<T> Deref for Record<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.1
    }
}
impl<T: PartialEq> PartialEq for Record<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0 && (Arc::ptr_eq(&self.0, &other.0) || self.0.1 == other.0.1)
    }
}
impl<T: Eq> Eq for Record<T> {}
impl<T> Hash for Record<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.0.hash(state);
    }
}
impl<T: fmt::Debug> fmt::Debug for Record<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.1.fmt(f)
    }
}
