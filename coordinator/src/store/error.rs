//! What can go wrong with the store, each with the remedy in its text.

use std::path::PathBuf;

use handover::{DatabaseName, InstanceName, OperationId};

/// What can go wrong with the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Something else changed the key first.
    #[error("{key:?} was changed by somebody else meanwhile")]
    Conflict {
        /// The first key that differed.
        key: String,
    },
    /// A database that was to be taken takes part in an operation already.
    #[error("database {database} at instance {instance} takes part in operation {operation} already")]
    Busy {
        /// The instance.
        instance: InstanceName,
        /// The database.
        database: DatabaseName,
        /// The operation that has it.
        operation: OperationId,
    },
    /// A watcher misses changes: it was too slow, or nobody knows whether there were any.
    #[error("changes of the store may have been missed")]
    Lagged,
    /// Another process has the file open.
    #[error(
        "open the store {path:?}: another process uses it; stop the other coordinator, or give this one a store of its own"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or something else.
    #[error(
        "the store {path:?} cannot be read: {reason}; restore it from a backup, or move it away to start with an empty one \
         (running operations are then unknown to this coordinator)"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file or its file system cannot be written.
    #[error("the store {path:?} cannot be written: {reason}; make file and directory writable for this process")]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// No space is left.
    #[error(
        "the disk of the store {path:?} is full: {reason}; free some space, the coordinator then goes on by itself"
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A newer program wrote it.
    #[error("{what} has format {found}, this program knows formats up to {known}; run the newer program again")]
    Newer {
        /// What was read.
        what: String,
        /// Its format.
        found: u64,
        /// The newest format known here.
        known: u64,
    },
    /// A value is not what was written.
    #[error("the value of {key:?} in the store is damaged: {reason}; restore the store from a backup")]
    Value {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Any other failure of file or system.
    #[error("{action} the store {path:?}: {reason}; check the disk, the coordinator tries again")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// etcd does not answer, or not in time. A commit may have happened.
    #[error(
        "{action} at etcd {endpoint}: {reason}; check that a majority of etcd's members runs and takes this coordinator's certificate; the coordinator tries again"
    )]
    Etcd {
        /// What was being done.
        action: &'static str,
        /// The member that was asked.
        endpoint: String,
        /// What it says, or what the network does.
        reason: String,
    },
    /// etcd takes no more.
    #[error(
        "etcd is full: {reason}; compact and defragment it, then `etcdctl alarm disarm`, and let it compact by itself with \
         --auto-compaction-retention=1h"
    )]
    EtcdFull {
        /// What it says.
        reason: String,
    },
    /// etcd does not let this process in, or not to these keys.
    #[error("etcd refuses this coordinator: {reason}; check the certificates of the store's address and etcd's rights")]
    EtcdDenied {
        /// What it says.
        reason: String,
    },
    /// A change is beyond what etcd takes at once.
    #[error(
        "this is more than etcd takes at once: {reason}; start fewer databases with one request, or start etcd with a greater \
         --max-request-bytes or --max-txn-ops"
    )]
    TooLarge {
        /// What it says.
        reason: String,
    },
    /// Another coordinator leads, or this one's lease has run out: nothing was written.
    #[error("this coordinator does not lead any more; ask again, whoever leads now will answer")]
    Deposed,
    /// What lies there is not to be used as it is.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// Whether the same call may succeed later without a person changing the store.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Conflict { .. }
            | Error::Lagged
            | Error::Full { .. }
            | Error::Io { .. }
            | Error::ReadOnly { .. }
            | Error::Etcd { .. }
            | Error::EtcdFull { .. }
            | Error::EtcdDenied { .. }
            | Error::Deposed => true,
            Error::Busy { .. }
            | Error::TooLarge { .. }
            | Error::Unfit(_)
            | Error::InUse { .. }
            | Error::Corrupt { .. }
            | Error::Newer { .. }
            | Error::Value { .. } => false,
        }
    }
}
