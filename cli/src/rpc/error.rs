//! From a gRPC status to what the user reads and the exit code a script gets.

use service::status;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    exit::Exit,
    failure::{Detail, Failure},
};

/// The reason of a start that a preflight stands in the way of.
const PREFLIGHT_FAILED: &str = "PREFLIGHT_FAILED";

/// Whether the connection broke, so that it is unknown whether the call was carried out.
pub(super) fn was_lost(status: &Status) -> bool {
    status::is_transport(status) && status::retryable(status)
}

/// Whether no coordinator leads just now, so that none has carried the call out; or, if it was passed on to one that is gone,
/// that is as unknown as after a loss, and calls are idempotent.
pub(super) fn awaits_leader(status: &Status) -> bool {
    let reason = status::reason_of(status);
    reason.is_some_and(|reason| ["NO_LEADER", "NOT_LEADING", "LEADER_UNREACHABLE"].contains(&reason.as_str()))
}

/// What the user reads.
pub(super) fn failure(doing: &str, status: &Status) -> Failure {
    let details = status.get_error_details();
    let mut lines = Vec::new();
    for field in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        lines.push(Detail { subject: field.field.clone(), problem: field.description.clone() });
    }
    for violation in details.precondition_failure().iter().flat_map(|failed| &failed.violations) {
        lines.push(Detail { subject: violation.subject.clone(), problem: violation.description.clone() });
    }
    if let Some(omitted) = details.error_info().and_then(|info| info.metadata.get("omitted")) {
        lines.push(Detail { subject: "and more".to_owned(), problem: format!("{omitted} further ones are not shown") });
    }
    let reason = status::reason_of(status).unwrap_or_default();
    let mut remedy = status::remedy_of(status).unwrap_or_default();
    if remedy.is_empty() && status.code() == Code::Unimplemented {
        remedy = "check that --coordinator names a coordinator, of this program's version".to_owned();
    }
    let message = match (status::is_transport(status), status.message()) {
        (true, _) | (_, "") => first_line(&status::describe(status)),
        (false, message) => message.to_owned(),
    };
    let mut failure = Failure::new(exit(status, &reason), doing, message).reason(reason).remedy(remedy);
    failure.details = lines;
    failure
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn exit(status: &Status, reason: &str) -> Exit {
    if reason == PREFLIGHT_FAILED {
        return Exit::Failed;
    }
    match status.code() {
        Code::Ok => Exit::Ok,
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::Unavailable | Code::DeadlineExceeded | Code::Unimplemented => Exit::Unreachable,
        Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists | Code::ResourceExhausted => Exit::Refused,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
        Code::Cancelled | Code::Unknown | Code::Internal if status::is_transport(status) => Exit::Unreachable,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_exit() {
        for (code, wanted) in [
            (Code::InvalidArgument, Exit::Usage),
            (Code::Unavailable, Exit::Unreachable),
            (Code::DeadlineExceeded, Exit::Unreachable),
            (Code::Unimplemented, Exit::Unreachable),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::Aborted, Exit::Refused),
            (Code::AlreadyExists, Exit::Refused),
            (Code::ResourceExhausted, Exit::Refused),
            (Code::NotFound, Exit::NotFound),
            (Code::PermissionDenied, Exit::Denied),
            (Code::Unauthenticated, Exit::Denied),
            (Code::Internal, Exit::Failed),
            (Code::DataLoss, Exit::Failed),
        ] {
            assert_eq!(failure("x", &Status::new(code, "y")).exit, wanted, "{code:?}");
        }
    }

    #[test]
    fn a_rich_error_is_told_whole() {
        let status = status::problem(Code::FailedPrecondition, "shop is still being seeded")
            .reason("NOT_READY")
            .remedy("wait until it is ready for completion")
            .precondition("NOT_READY", "operation 0197", "seeding, 45 %")
            .status();
        let failure = failure("complete the move of shop", &status);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(
            failure.to_string(),
            "complete the move of shop: shop is still being seeded\n  operation 0197: seeding, 45 %\n  reason: NOT_READY\n  \
             remedy: wait until it is ready for completion"
        );
    }

    #[test]
    fn findings_end_with_one_and_fields_with_two() {
        let findings = status::problem(Code::FailedPrecondition, "findings").reason(PREFLIGHT_FAILED).status();
        assert_eq!(failure("start", &findings).exit, Exit::Failed);
        let field = status::problem(Code::InvalidArgument, "bad").field("databases[1]", "given twice").status();
        let told = failure("start", &field);
        assert_eq!(told.exit, Exit::Usage);
        assert_eq!(told.details, [Detail { subject: "databases[1]".into(), problem: "given twice".into() }]);
    }
}
