//! What an engine can fail with.

/// The result of every engine call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an engine call failed. [`Error::code`] is stable, [`Error::remedy`] is for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent took this half of the instance over: this one must end.
    #[error("another agent has taken over this half of the instance (epoch {newer}, ours is {ours})")]
    Superseded {
        /// This agent's epoch.
        ours: u64,
        /// The epoch found.
        newer: u64,
    },
    /// A client holds what cannot be taken from it; nothing was changed.
    #[error("{0}")]
    Busy(String),
    /// There is no such database.
    #[error("there is no database {0:?} in this instance")]
    NoDatabase(String),
    /// The name is taken by something that is not ours.
    #[error("the name {0:?} is taken in this instance")]
    NameTaken(String),
    /// The database cannot be copied or moved as it is.
    #[error("{message}")]
    Unsupported {
        /// A stable code, such as `ENCRYPTED`.
        code: &'static str,
        /// What is the matter.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// Stored or received bytes are not what they should be.
    #[error("{0}")]
    Corrupt(String),
    /// The source database is no longer the one with which the operation began.
    #[error("the source database changed its incarnation: {0}")]
    Incarnation(String),
    /// The log asked for is not held any more; the seed has to be verified again.
    #[error("the log cannot be continued: {0}")]
    LogLost(String),
    /// The consistent point of a copy cannot be read to its end any more; the log goes on, and another point can be taken.
    #[error("the consistent point of the copy is lost: {0}")]
    PointLost(String),
    /// A record does not follow the one before; the stream has to start again at the held position.
    #[error("a log record starts at {got}, expected {expected}")]
    Gap {
        /// Where it should start.
        expected: String,
        /// Where it starts.
        got: String,
    },
    /// Retained log reached its cap.
    #[error("retained log at the source reached its budget: {used} of {budget} bytes")]
    Budget {
        /// Bytes retained.
        used: u64,
        /// The cap in bytes.
        budget: u64,
    },
    /// The disk is full.
    #[error("no space left: {0}")]
    DiskFull(String),
    /// The call does not fit what the engine has been told before.
    #[error("{0}")]
    Misuse(String),
    /// The engine's own fault.
    #[error("{0}")]
    Internal(String),
    /// Input or output failed.
    #[error("{what}")]
    Io {
        /// What was tried, in the present tense.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The database system reported an error.
    #[error("{what}: {message}")]
    Database {
        /// What was tried, in the present tense.
        what: String,
        /// The system's own words, without data.
        message: String,
        /// Whether the same call may succeed later.
        transient: bool,
    },
}

impl Error {
    /// Wraps an IO error with what was tried, recognising a full disk.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::DiskFull(what),
            _ => Error::Io { what, source },
        }
    }

    /// Whether the same call may succeed if it is made again a little later.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Busy(_) | Error::Io { .. } | Error::Gap { .. } | Error::DiskFull(_) | Error::PointLost(_) => true,
            Error::Database { transient, .. } => *transient,
            Error::Superseded { .. }
            | Error::NoDatabase(_)
            | Error::NameTaken(_)
            | Error::Unsupported { .. }
            | Error::Corrupt(_)
            | Error::Incarnation(_)
            | Error::LogLost(_)
            | Error::Budget { .. }
            | Error::Misuse(_)
            | Error::Internal(_) => false,
        }
    }

    /// The same error once more, for another caller; of an IO error only its kind and words remain.
    pub(crate) fn repeat(&self) -> Self {
        match self {
            Error::Superseded { ours, newer } => Error::Superseded { ours: *ours, newer: *newer },
            Error::Busy(text) => Error::Busy(text.clone()),
            Error::NoDatabase(text) => Error::NoDatabase(text.clone()),
            Error::NameTaken(text) => Error::NameTaken(text.clone()),
            Error::Unsupported { code, message, remedy } => {
                Error::Unsupported { code, message: message.clone(), remedy: remedy.clone() }
            }
            Error::Corrupt(text) => Error::Corrupt(text.clone()),
            Error::Incarnation(text) => Error::Incarnation(text.clone()),
            Error::LogLost(text) => Error::LogLost(text.clone()),
            Error::PointLost(text) => Error::PointLost(text.clone()),
            Error::Gap { expected, got } => Error::Gap { expected: expected.clone(), got: got.clone() },
            Error::Budget { used, budget } => Error::Budget { used: *used, budget: *budget },
            Error::DiskFull(text) => Error::DiskFull(text.clone()),
            Error::Misuse(text) => Error::Misuse(text.clone()),
            Error::Internal(text) => Error::Internal(text.clone()),
            Error::Io { what, source } => {
                Error::Io { what: what.clone(), source: std::io::Error::new(source.kind(), source.to_string()) }
            }
            Error::Database { what, message, transient } => {
                Error::Database { what: what.clone(), message: message.clone(), transient: *transient }
            }
        }
    }

    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Superseded { .. } => "SUPERSEDED",
            Error::Busy(_) => "BUSY",
            Error::NoDatabase(_) => "DATABASE_NOT_FOUND",
            Error::NameTaken(_) => "NAME_TAKEN",
            Error::Unsupported { code, .. } => code,
            Error::Corrupt(_) => "CORRUPT",
            Error::Incarnation(_) => "SOURCE_CHANGED",
            Error::LogLost(_) => "LOG_LOST",
            Error::PointLost(_) => "POINT_LOST",
            Error::Gap { .. } => "LOG_GAP",
            Error::Budget { .. } => "LOG_BUDGET_EXCEEDED",
            Error::DiskFull(_) => "DISK_FULL",
            Error::Misuse(_) => "MISUSE",
            Error::Internal(_) => "INTERNAL",
            Error::Io { .. } => "IO",
            Error::Database { .. } => "DATABASE",
        }
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Error::Superseded { .. } => "nothing: the newer agent carries on; stop this one".to_owned(),
            Error::Busy(_) => "end the transaction or process that holds the database, then complete again".to_owned(),
            Error::NoDatabase(_) => "list the databases of the instance and check the spelling".to_owned(),
            Error::NameTaken(_) => "rename or remove what has the name at the destination".to_owned(),
            Error::Unsupported { remedy, .. } => remedy.clone(),
            Error::Corrupt(_) => "check the database and the disk; start a new operation afterwards".to_owned(),
            Error::Incarnation(_) => "cancel the operation and start a new one for the present database".to_owned(),
            Error::LogLost(_) | Error::PointLost(_) | Error::Gap { .. } => {
                "none needed: the agents resume by themselves".to_owned()
            }
            Error::Budget { .. } => {
                "raise the log budget or give the destination a faster disk, then start again".to_owned()
            }
            Error::DiskFull(_) => "free space on that disk; the agents go on by themselves".to_owned(),
            Error::Misuse(_) | Error::Internal(_) => "report this with the agents' logs".to_owned(),
            Error::Io { .. } | Error::Database { .. } => "see the cause; the agents try again by themselves".to_owned(),
        }
    }
}
