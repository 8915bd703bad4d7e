//! What a session can fail with.

use handover::source_role::Refusal;
use tonic::Status;

/// Why a command or a stream of one operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent knows no such operation.
    #[error("this source agent knows no operation {0}")]
    Unknown(handover::OperationId),
    /// A command for an operation that is not known, and not newer than what was cleaned up.
    #[error("command version {given} is not above the instance's watermark {watermark}: the command is late")]
    Late {
        /// The version given.
        given: handover::CommandVersion,
        /// The instance's watermark.
        watermark: handover::CommandVersion,
    },
    /// The database takes part in another operation.
    #[error("the database {database} takes part in operation {other} already")]
    Taken {
        /// The database.
        database: handover::DatabaseName,
        /// The operation it takes part in.
        other: handover::OperationId,
    },
    /// The same operation with other parameters.
    #[error("operation {0} was begun before with other parameters")]
    Differs(handover::OperationId),
    /// The preflight found errors.
    #[error("the source cannot be copied or moved as it is")]
    Findings(Vec<handover::Finding>),
    /// The role refuses the command.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What became of the attempt is not known yet; the agent is asking the destination.
    #[error("the outcome of the attempt is in doubt; the agent is asking the destination")]
    InDoubt,
    /// The destination is not connected, or its seed is not whole.
    #[error("the destination is not connected or still being seeded: nothing could follow a fence soon")]
    NotReplicating,
    /// The log sender did not stop in time for a mark.
    #[error("the log could not be paused for a mark within {0} s")]
    NotPaused(u64),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] engines::Error),
    /// The destination could not be dialled.
    #[error(transparent)]
    Dial(#[from] service::dial::Error),
    /// The destination ended the stream or refused it.
    #[error("the destination answered: {}", service::status::describe(.0))]
    Dest(Box<Status>),
    /// The destination sent something that does not fit.
    #[error("the destination's answer does not fit: {0}")]
    Protocol(String),
    /// The connection is gone.
    #[error("the stream to the destination ended")]
    Closed,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Dest(Box::new(status))
    }
}

/// The destination's reasons that no waiting cures.
const FATAL: [&str; 6] =
    ["BAD_TOKEN", "SOURCE_CHANGED", "WRONG_PROTOCOL", "WRONG_ENGINE", "WRONG_DATABASE", "IDENTITY_NOT_ALLOWED"];

impl Error {
    /// Whether the operation cannot go on, however long one waits.
    pub fn fatal(&self) -> bool {
        match self {
            Error::Engine(error) => !error.retryable() && !matches!(error, engines::Error::LogLost(_)),
            Error::Dest(status) => {
                service::status::reason_of(status).is_some_and(|reason| FATAL.contains(&reason.as_str()))
            }
            _ => false,
        }
    }

    /// A stable code.
    pub fn code(&self) -> String {
        match self {
            Error::Unknown(_) => "OPERATION_UNKNOWN".to_owned(),
            Error::Late { .. } => "STALE_VERSION".to_owned(),
            Error::Taken { .. } | Error::Differs(_) => "OPERATION_EXISTS".to_owned(),
            Error::Findings(_) => "PREFLIGHT_FAILED".to_owned(),
            Error::Refused(Refusal::StaleVersion { .. }) => "STALE_VERSION".to_owned(),
            Error::Refused(Refusal::StaleAttempt { .. }) => "STALE_ATTEMPT".to_owned(),
            Error::Refused(Refusal::WrongPhase { .. }) => "WRONG_PHASE".to_owned(),
            Error::Refused(Refusal::WrongKind { .. }) => "WRONG_KIND".to_owned(),
            Error::InDoubt => "IN_DOUBT".to_owned(),
            Error::NotReplicating => "NOT_REPLICATING".to_owned(),
            Error::NotPaused(_) => "NOT_PAUSED".to_owned(),
            Error::Engine(error) => error.code().to_owned(),
            Error::Dial(_) => "DEST_UNREACHABLE".to_owned(),
            Error::Dest(status) => service::status::reason_of(status).unwrap_or_else(|| "DEST_UNREACHABLE".to_owned()),
            Error::Protocol(_) => "PROTOCOL".to_owned(),
            Error::Closed => "DEST_UNREACHABLE".to_owned(),
        }
    }

    /// What a person can do.
    pub fn remedy(&self) -> String {
        match self {
            Error::Engine(error) => error.remedy(),
            Error::Dest(status) => service::status::remedy_of(status).unwrap_or_default(),
            Error::Taken { .. } => "wait for that operation to end, or cancel it".to_owned(),
            Error::Findings(_) => "mend what the findings name, then start again".to_owned(),
            Error::Refused(_) | Error::Late { .. } | Error::Differs(_) => {
                "none needed: the coordinator's newest command counts".to_owned()
            }
            Error::Unknown(_) => "check the operation's id and which instance it has as its source".to_owned(),
            Error::InDoubt | Error::NotReplicating | Error::NotPaused(_) | Error::Dial(_) | Error::Closed => {
                "the agents try again by themselves; check the destination agent and the network between them"
                    .to_owned()
            }
            Error::Protocol(_) => "run agents of the same version at both ends".to_owned(),
        }
    }

    /// The error as a reason on the wire.
    pub fn reason(&self) -> proto::v1::Reason {
        proto::v1::Reason { code: self.code(), message: service::status::chain(self), remedy: self.remedy() }
    }
}
