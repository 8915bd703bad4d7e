//! Errors of engines as gRPC codes: one table for both agents.

use engines::Error;
use tonic::Code;

/// The code with which an agent answers a call that its engine failed.
pub fn code(error: &Error) -> Code {
    match error {
        Error::NoDatabase(_) => Code::NotFound,
        Error::Busy(_)
        | Error::NameTaken(_)
        | Error::Unsupported { .. }
        | Error::Incarnation(_)
        | Error::LogLost(_)
        | Error::Budget { .. } => Code::FailedPrecondition,
        Error::Corrupt(_) => Code::DataLoss,
        Error::Gap { .. } => Code::OutOfRange,
        Error::DiskFull(_) => Code::ResourceExhausted,
        Error::Io { .. } | Error::PointLost(_) | Error::Database { transient: true, .. } => Code::Unavailable,
        // The guard around the engine lets nobody see that the lock is lost.
        Error::Superseded { .. } => Code::Aborted,
        Error::Misuse(_) | Error::Internal(_) | Error::Database { transient: false, .. } => Code::Internal,
    }
}
