//! Why a command or a lane is refused.

use handover::{CommandVersion, DatabaseName, Epoch, OperationId, dest_role::Refusal};
use proto::convert::BadField;
use std::sync::Arc;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a command or a lane is refused. `rpc::errors` says how each looks on the wire.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    #[error("no operation {0} is known here")]
    Unknown(OperationId),
    #[error(
        "command version {given} for an operation that is not known here is not newer than {watermark}, with which one was forgotten"
    )]
    Late { given: CommandVersion, watermark: CommandVersion },
    #[error("operation {by} already holds the database {database:?} here")]
    NameHeld { database: DatabaseName, by: OperationId },
    #[error("operation {operation} is known here with another {field}")]
    OtherRequest { operation: OperationId, field: &'static str },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Engine(Arc<engines::Error>),
    #[error("{0}")]
    Field(#[from] BadField),

    #[error("only the coordinator may do this ({allowed}), not {caller}")]
    NotCoordinator { caller: String, allowed: String },
    #[error("the token is not that of the operation")]
    BadToken,
    #[error("the operation's source agent is {expected}, not {caller}")]
    OtherIdentity { caller: String, expected: String },

    #[error("the source agent speaks version {given} of the transfer protocol, this one {ours}")]
    Protocol { given: u32, ours: u32 },
    #[error("the source's engine is {given:?}, this one's is {ours:?}")]
    EngineDiffers { given: String, ours: &'static str },
    #[error("the source database is not the one with which the operation began: its {0} differs")]
    SourceChanged(&'static str),
    #[error("a source agent of epoch {known} has spoken already, this one is of epoch {given}")]
    StaleEpoch { given: Epoch, known: Epoch },
    #[error("the destination is {phase}: {what} cannot be taken")]
    NotReplicating { phase: &'static str, what: &'static str },
    #[error("the lane is for generation {given} of the plan, the destination works on {held}")]
    WrongGeneration { given: u64, held: u64 },
    #[error("a newer stream has taken this lane over")]
    SupersededLane,
    #[error("{0} arrived damaged: its checksum is wrong")]
    BadCrc(&'static str),
    #[error("{0}")]
    BadFrame(String),
    #[error("this agent is shutting down")]
    Closing,
    #[error("the operation is being acted upon by another command")]
    Occupied,
    #[error("the task of a command panicked")]
    Panicked,
    /// The other side is gone; nobody reads an answer.
    #[error("the stream broke")]
    Broken,
}

impl From<engines::Error> for Error {
    fn from(error: engines::Error) -> Self {
        Error::Engine(Arc::new(error))
    }
}

impl Error {
    pub(super) fn frame(text: impl Into<String>) -> Self {
        Error::BadFrame(text.into())
    }

    /// Whether waiting does not cure it: the operation has to be cancelled.
    pub(super) fn fatal(&self) -> bool {
        match self {
            Error::SourceChanged(_) => true,
            Error::Engine(error) => matches!(
                **error,
                engines::Error::Corrupt(_)
                    | engines::Error::Incarnation(_)
                    | engines::Error::Unsupported { .. }
                    | engines::Error::NameTaken(_)
            ),
            _ => false,
        }
    }

    /// Whether it tells of trouble with the transfer, to be seen in the status, rather than of a caller's mistake or of
    /// the usual course of things.
    pub(super) fn is_trouble(&self) -> bool {
        match self {
            Error::SourceChanged(_) | Error::BadCrc(_) | Error::Protocol { .. } | Error::EngineDiffers { .. } => true,
            // A gap is how a stream starts again.
            Error::Engine(error) => !matches!(**error, engines::Error::Gap { .. }),
            _ => false,
        }
    }
}
