//! Errors of this agent as gRPC statuses: one table.

use crate::session::Error;
use handover::source_role::Refusal;
use proto::convert::BadField;
use service::status::{chain, problem};
use tonic::{Code, Status};

/// The table.
pub fn status(error: Error) -> Status {
    let code = match &error {
        Error::Unknown(_) => Code::NotFound,
        Error::Late { .. } => Code::Aborted,
        Error::Taken { .. } | Error::Differs(_) | Error::Findings(_) => Code::FailedPrecondition,
        Error::Refused(Refusal::StaleVersion { .. } | Refusal::StaleAttempt { .. }) => Code::Aborted,
        Error::Refused(Refusal::WrongPhase { .. } | Refusal::WrongKind { .. }) => Code::FailedPrecondition,
        Error::InDoubt
        | Error::NotReplicating
        | Error::NotPaused(_)
        | Error::Dial(_)
        | Error::Closed
        | Error::Dest(_) => Code::Unavailable,
        Error::Protocol(_) => Code::Internal,
        Error::Engine(error) => agent::rpc::code(error),
    };
    let mut answer = problem(code, chain(&error)).reason(error.code()).remedy(error.remedy());
    // The coordinator raises its own version above this one, if the command is its newest.
    if let Error::Refused(Refusal::StaleVersion { known, .. }) | Error::Late { watermark: known, .. } = &error {
        answer = answer.meta("known", known.to_string());
    }
    if let Error::Findings(findings) = &error {
        for finding in findings {
            answer = answer.precondition(&finding.code, "source", format!("{}; {}", finding.message, finding.remedy));
        }
    }
    answer.status()
}

/// A request with fields that are not what they should be.
pub fn bad_field(bad: BadField) -> Status {
    problem(Code::InvalidArgument, bad.to_string()).reason("BAD_FIELD").field(bad.field, bad.problem).status()
}
