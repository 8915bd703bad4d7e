//! Where the coordinator keeps what must survive: versioned values under keys, changed in atomic commits.

mod codec;
#[cfg(test)]
mod conformance;
pub mod copy;
mod error;
pub mod etcd;
mod failpoints;
mod record;
mod records;
mod redb;
mod sieve;

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use self::redb::{Medium, RedbStore};
pub use error::Error;
pub use etcd::EtcdStore;
pub use failpoints::STEPS;
pub(crate) use failpoints::WithFailpoints;
pub use record::{CutoverStart, Deed, Done, InstanceRecord, Record, RequestRecord, Stored};
pub use records::{Creation, OperationChanges, Records, Sifted};
pub use sieve::Sieve;

/// One number for the whole store: each commit gets one that is greater than all before.
///
/// A key's version is the revision at which it was last put. That makes the version of an operation's record fit to be
/// the version its commands carry, since it grows over all operations of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A value with the revision at which it was put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versioned {
    /// The revision of the put.
    pub version: Revision,
    /// The value.
    pub value: Vec<u8>,
}

/// A key with its value, as listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value and version.
    pub versioned: Versioned,
}

/// The part of a listing that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Go on after this key (before it when descending); nothing starts at the end of the order.
    pub after: Option<String>,
    /// The most entries.
    pub limit: usize,
    /// From the greatest key down.
    pub descending: bool,
}

impl Page {
    /// The first `limit` entries from the smallest key up.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, descending: false }
    }
}

/// What a commit requires and does. All or nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// Keys with the version each must have, or nothing for a key that must be absent.
    pub checks: Vec<(String, Option<Revision>)>,
    /// Values to put.
    pub puts: Vec<(String, Vec<u8>)>,
    /// Keys to remove; one that is absent already is no error.
    pub deletes: Vec<String>,
    /// The commit's revision shall be greater than this. For instances that obeyed the commands of an earlier store.
    pub above: Revision,
}

impl Txn {
    /// Require that `key` has `version`.
    #[must_use]
    pub fn check(mut self, key: impl Into<String>, version: Revision) -> Self {
        self.checks.push((key.into(), Some(version)));
        self
    }

    /// Require that there is no `key`.
    #[must_use]
    pub fn absent(mut self, key: impl Into<String>) -> Self {
        self.checks.push((key.into(), None));
        self
    }

    /// Put `value` under `key`.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: Vec<u8>) -> Self {
        self.puts.push((key.into(), value));
        self
    }

    /// Remove `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }
}

/// One key that a commit changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The commit's revision.
    pub revision: Revision,
    /// The new value, or nothing if the key was removed.
    pub value: Option<Vec<u8>>,
}

/// Commits in their order, each with all that it changed; never empty. Whoever counts must not see half of one. An
/// [`Error::Lagged`] says that some are missing: list again.
pub type Changes = BoxStream<'static, Result<Vec<Change>, Error>>;

/// A small, durable, ordered map with atomic commits.
///
/// - A commit that answered is durable: it survives a crash of the process and of the machine.
/// - Commits are ordered by revision, and everybody sees them in that order. What `get` and `list` answer is the state
///   after some commit, never half of one, and no older than the last commit that had answered when they were called.
/// - Cancelling a `commit` leaves open whether it happened; cancelling anything else is free.
/// - Errors that are [`Error::retryable`] leave the state as it was, or, for a commit, open.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The value under `key`.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, Error>;

    /// The entries whose keys start with `prefix`, in the order of their keys' bytes.
    async fn list(&self, prefix: &str, page: Page) -> Result<Vec<Entry>, Error>;

    /// Check, then change, in one step. [`Error::Conflict`] changes nothing.
    async fn commit(&self, txn: Txn) -> Result<Revision, Error>;

    /// The changes under `prefix` committed from now on.
    fn watch(&self, prefix: &str) -> Changes;
}
