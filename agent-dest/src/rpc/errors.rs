//! How every refusal looks on the wire, as one table.

use crate::session::Error;
use handover::dest_role::Refusal;
use proto::v1::Reason;
use service::status::{Problem, problem};
use std::time::Duration;
use tonic::{Code, Status};

/// Soon enough for an agent that comes back, late enough not to be a burden.
const RETRY_SOON: Duration = Duration::from_millis(500);
/// People need longer to free a disk.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// The status of a refusal.
pub(super) fn status(error: Error) -> Status {
    let (code, reason, remedy) = look(&error);
    let status = problem(code, service::status::chain(&error)).reason(reason);
    let status = if remedy.is_empty() { status } else { status.remedy(remedy) };
    details(status, &error).status()
}

/// The same for a status message, where the trouble of an operation is shown.
pub(super) fn reason(error: &Error) -> Reason {
    let (_, code, remedy) = look(error);
    Reason { code: code.to_owned(), message: service::status::chain(error), remedy }
}

fn details(status: Problem, error: &Error) -> Problem {
    match error {
        Error::Field(bad) => status.field(bad.field.clone(), bad.problem.clone()),
        Error::NotCoordinator { .. } => status.meta("right", "command"),
        Error::OtherIdentity { .. } => status.meta("right", "replicate"),
        Error::Closing | Error::Occupied => status.retry_after(RETRY_SOON),
        Error::Engine(error) if error.code() == "DISK_FULL" => status.retry_after(RETRY_LATER),
        // The coordinator raises its own version above this one, if the command is its newest.
        Error::Refused(Refusal::StaleVersion { known, .. }) | Error::Late { watermark: known, .. } => {
            status.meta("known", known.to_string())
        }
        Error::NameHeld { by, .. } => status.meta("operation", by.as_str()),
        _ => status,
    }
}

fn look(error: &Error) -> (Code, &'static str, String) {
    let (code, reason, remedy) = match error {
        Error::Engine(error) => return (agent::rpc::code(error), error.code(), error.remedy()),

        Error::Unknown(_) => (Code::NotFound, "OPERATION_UNKNOWN", "list what the agent knows with Describe"),
        Error::Late { .. } => (Code::Aborted, "STALE_VERSION", "give the command with the operation's present version"),
        Error::NameHeld { .. } => {
            (Code::FailedPrecondition, "OPERATION_EXISTS", "wait for that operation to end, or cancel it")
        }
        Error::OtherRequest { .. } => {
            (Code::FailedPrecondition, "OPERATION_EXISTS", "give every operation an id of its own")
        }
        Error::Refused(refusal) => match refusal {
            Refusal::StaleVersion { .. } => {
                (Code::Aborted, "STALE_VERSION", "give the command with the operation's present version")
            }
            Refusal::StaleAttempt { .. } => (Code::Aborted, "STALE_ATTEMPT", "begin a new attempt"),
            Refusal::NotPrepared { .. } => (
                Code::FailedPrecondition,
                "NOT_PREPARED",
                "fence or mark the source for the attempt, then promote again",
            ),
            Refusal::WrongPhase { .. } => (Code::FailedPrecondition, "WRONG_PHASE", "see the phase with GetStatus"),
        },
        Error::Field(_) => (Code::InvalidArgument, "BAD_FIELD", ""),

        Error::NotCoordinator { .. } => (
            Code::PermissionDenied,
            "NOT_COORDINATOR",
            "call with the coordinator's certificate, or add the identity with --coordinator-identity",
        ),
        Error::BadToken => (Code::Unauthenticated, "BAD_TOKEN", ""),
        Error::OtherIdentity { .. } => (
            Code::PermissionDenied,
            "IDENTITY_NOT_ALLOWED",
            "register the source instance with the identity of its source agent's certificate",
        ),

        Error::Protocol { .. } => {
            (Code::FailedPrecondition, "WRONG_PROTOCOL", "run agents of the same version at both ends")
        }
        Error::EngineDiffers { .. } => {
            (Code::FailedPrecondition, "WRONG_ENGINE", "choose a destination instance of the source's engine")
        }
        Error::SourceChanged(_) => (
            Code::FailedPrecondition,
            "SOURCE_CHANGED",
            "cancel the operation and start a new one for the present database",
        ),
        Error::StaleEpoch { .. } => (Code::Aborted, "STALE_EPOCH", "stop the older source agent"),
        Error::NotReplicating { .. } => {
            (Code::FailedPrecondition, "NOT_REPLICATING", "none needed: the coordinator decides")
        }
        Error::WrongGeneration { .. } => {
            (Code::FailedPrecondition, "WRONG_GENERATION", "begin the lane again with the present plan")
        }
        Error::SupersededLane => (Code::Aborted, "SUPERSEDED_LANE", "none needed: the newer stream goes on"),
        Error::BadCrc(_) => {
            (Code::DataLoss, "BAD_CRC", "none needed: it is sent again; if it happens often, check memory and network")
        }
        Error::BadFrame(_) => (Code::InvalidArgument, "BAD_FRAME", "run agents of the same version at both ends"),
        Error::Closing => (Code::Unavailable, "SHUTTING_DOWN", "try again shortly"),
        Error::Occupied => (Code::Unavailable, "OCCUPIED", "try again shortly"),
        Error::Panicked => (Code::Internal, "INTERNAL", "report this with the agent's log"),
        // Nobody reads it: the stream is gone.
        Error::Broken => (Code::Cancelled, "BROKEN", ""),
    };
    (code, reason, remedy.to_owned())
}

/// What came wrong from tonic's decoder or from the network, in the session's words.
pub(super) fn inbound(status: &Status) -> Error {
    if service::status::is_transport(status) {
        return Error::Broken;
    }
    match status.code() {
        // tonic's words for a message that is no protobuf of this kind, and for one that is too long.
        Code::Internal | Code::OutOfRange | Code::InvalidArgument | Code::Unimplemented => {
            Error::BadFrame(format!("a frame cannot be read: {}", status.message()))
        }
        _ => Error::Broken,
    }
}
