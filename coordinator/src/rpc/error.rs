//! Every error of the service and its gRPC status: one table.

use std::time::Duration;

use handover::{InstanceName, OperationId, Severity, operation::Illegal};
use proto::convert::BadField;
use service::status::problem;
use tonic::{Code, Status};

use crate::{
    admission::Found,
    adopt, agents,
    auth::{Missing, Refused},
    store,
};

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields that are wrong, all of them.
    #[error("the request is not valid: {}", list(.0, |bad| bad.to_string()))]
    Fields(Vec<BadField>),
    /// The caller lacks rights.
    #[error("{} lacks {}", .0.who, list(&.0.rights, |(right, about)| format!("{right} on {about}")))]
    Denied(Missing),
    /// What the caller proved itself with has run out during a watch.
    #[error("the token that this was asked with has expired")]
    Expired,
    /// No such operations.
    #[error("{0}")]
    OperationNotFound(String),
    /// No such batch.
    #[error("there is no batch {0}")]
    BatchNotFound(String),
    /// No such instance.
    #[error("instance {0} is not known")]
    InstanceNotFound(InstanceName),
    /// Operations that have not ended use the instance.
    #[error("instance {instance} is used by operations that have not ended: {}", list(operations, |id| id.to_string()))]
    InstanceInUse {
        /// The instance.
        instance: InstanceName,
        /// The operations.
        operations: Vec<OperationId>,
    },
    /// The configuration file holds the instance.
    #[error("instance {0} stands in the coordinator's configuration file")]
    InstanceFromConfig(InstanceName),
    /// The instance lacks the agent that the request needs.
    #[error("instance {instance} has no {half}")]
    NoAgent {
        /// The instance.
        instance: InstanceName,
        /// Which agent.
        half: agents::Half,
    },
    /// The database takes part in an operation.
    #[error("database {database} at instance {instance} takes part in operation {operation}")]
    DatabaseBusy {
        /// The instance.
        instance: InstanceName,
        /// The database.
        database: String,
        /// The operation.
        operation: OperationId,
    },
    /// Something stands in the way of a start.
    #[error("the operation cannot start: {}", findings_text(.0))]
    PreflightFailed(Vec<Found>),
    /// The request's id belongs to another request.
    #[error("request id {0} was used for another request")]
    RequestIdReused(String),
    /// The state machine refuses, for at least one of the operations.
    #[error("{}", list(.0, |(id, illegal)| format!("operation {id}: {illegal}")))]
    Illegal(Vec<(OperationId, Illegal)>),
    /// An override that would make two primaries.
    #[error("{0}")]
    TwoPrimaries(String),
    /// A side that is to be forgotten answers.
    #[error("{0} answers and knows the operation: it is not gone")]
    SideAnswers(agents::Party),
    /// An agent.
    #[error(transparent)]
    Agent(#[from] agents::Error),
    /// Nothing is adopted.
    #[error(transparent)]
    Adopt(adopt::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The operation changed faster than the request could be applied.
    #[error("the operation changes all the time")]
    Contended,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing(missing) => Self::Denied(missing),
            Refused::Store(error) => Self::Store(error),
        }
    }
}

impl Error {
    /// Whether it is about this process rather than about the request.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Error::Store(_))
    }
}

impl From<adopt::Error> for Error {
    fn from(error: adopt::Error) -> Self {
        match error {
            adopt::Error::Store(error) => Error::Store(error),
            other => Error::Adopt(other),
        }
    }
}

/// One wrong field.
pub(super) fn bad(field: &str, problem: impl Into<String>) -> BadField {
    BadField { field: field.to_owned(), problem: problem.into() }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let message = error.to_string();
        let soon = Duration::from_millis(500);
        match error {
            Error::Fields(fields) => {
                let problem = problem(Code::InvalidArgument, message).reason("INVALID_FIELDS");
                fields
                    .into_iter()
                    .fold(problem, |problem, bad| problem.field(bad.field, bad.problem))
                    .remedy("correct the fields")
            }
            Error::Denied(missing) => {
                let problem = problem(Code::PermissionDenied, message)
                    .reason("RIGHT_MISSING")
                    .remedy("ask whoever keeps the coordinator's policy file for these rights");
                match missing.rights.first() {
                    Some((right, about)) => problem.meta("right", format!("{right} {about}")),
                    None => problem,
                }
            }
            Error::Expired => problem(Code::Unauthenticated, message)
                .reason("TOKEN_REFUSED")
                .remedy("get a new token, and watch again"),
            Error::OperationNotFound(_) => problem(Code::NotFound, message)
                .reason("OPERATION_NOT_FOUND")
                .remedy("list the operations to find its id; what you may not read is not among them"),
            Error::BatchNotFound(_) => problem(Code::NotFound, message)
                .reason("BATCH_NOT_FOUND")
                .remedy("list the operations to find their batch"),
            Error::InstanceNotFound(_) => {
                problem(Code::NotFound, message).reason("INSTANCE_UNKNOWN").remedy("list the instances, or register it")
            }
            Error::InstanceInUse { operations, .. } => {
                let problem = problem(Code::FailedPrecondition, message)
                    .reason("INSTANCE_IN_USE")
                    .remedy("complete or cancel these operations first");
                operations.iter().fold(problem, |problem, id| {
                    problem.precondition("INSTANCE_IN_USE", id.to_string(), "has not ended")
                })
            }
            Error::InstanceFromConfig(_) => problem(Code::FailedPrecondition, message)
                .reason("INSTANCE_FROM_CONFIG")
                .remedy("change the configuration file and start the coordinator again"),
            Error::NoAgent { instance, half } => problem(Code::FailedPrecondition, message)
                .reason(match half {
                    agents::Half::Source => "NO_SOURCE_AGENT",
                    agents::Half::Dest => "NO_DEST_AGENT",
                })
                .remedy(format!("run a {half} beside {instance} and register its address")),
            Error::DatabaseBusy { operation, .. } => problem(Code::FailedPrecondition, message)
                .reason("DATABASE_BUSY")
                .meta("operation", operation.to_string())
                .remedy(format!("wait until operation {operation} has ended, or cancel it")),
            Error::PreflightFailed(found) => {
                let problem = problem(Code::FailedPrecondition, message)
                    .reason("PREFLIGHT_FAILED")
                    .remedy("do what each finding says, then start again");
                errors(&found).fold(problem, |problem, (database, finding)| {
                    let mut text = format!("{} ({})", finding.message, finding.code);
                    if !finding.remedy.is_empty() {
                        text = format!("{text}; {}", finding.remedy);
                    }
                    problem.precondition(&finding.code, database, text)
                })
            }
            Error::RequestIdReused(_) => problem(Code::AlreadyExists, message)
                .reason("REQUEST_ID_REUSED")
                .remedy("give every request an id of its own"),
            Error::Illegal(refused) => illegal(message, &refused),
            Error::TwoPrimaries(_) => problem(Code::FailedPrecondition, message)
                .reason("WOULD_MAKE_TWO_PRIMARIES")
                .remedy("do nothing: the coordinator ends the operation by itself once both agents can be reached"),
            Error::SideAnswers(_) => problem(Code::FailedPrecondition, message)
                .reason("SIDE_ANSWERS")
                .remedy("cancel or complete the operation in the usual way"),
            Error::Agent(agents::Error::Refused { reason, retryable, .. }) => {
                let code = if retryable { Code::Unavailable } else { Code::FailedPrecondition };
                problem(code, message).reason(reason.code).remedy(reason.remedy)
            }
            Error::Agent(error) => {
                let reason = error.reason();
                problem(Code::Unavailable, message).reason(reason.code).remedy(reason.remedy)
            }
            Error::Adopt(error) => not_adopted(message, &error),
            Error::Store(store::Error::Deposed) => {
                problem(Code::Unavailable, message).reason("NOT_LEADING").remedy("ask again").retry_after(soon)
            }
            Error::Store(store::Error::TooLarge { .. }) => {
                problem(Code::FailedPrecondition, message).reason("STORE_LIMIT")
            }
            Error::Store(error) if error.retryable() => {
                problem(Code::Unavailable, message).reason("STORE_UNAVAILABLE").retry_after(soon)
            }
            Error::Store(_) => problem(Code::Internal, message).reason("STORE_DAMAGED"),
            Error::Contended => {
                problem(Code::Aborted, message).reason("CONTENDED").remedy("try again").retry_after(soon)
            }
        }
        .status()
    }
}

/// Why nothing is adopted.
fn not_adopted(message: String, error: &adopt::Error) -> service::status::Problem {
    let (code, reason, remedy) = match error {
        adopt::Error::Unheard(_) => (
            Code::Unavailable,
            "AGENTS_UNHEARD",
            "start these agents or correct their addresses; remove an instance only if it is gone for ever",
        ),
        adopt::Error::NoInstances => (
            Code::FailedPrecondition,
            "NO_INSTANCES",
            "register the instances first, or give a file of them with --instances",
        ),
        adopt::Error::WrongAgent { .. } => {
            (Code::FailedPrecondition, "WRONG_AGENT", "correct the address in the instance's registration")
        }
        adopt::Error::Alive { .. } => (
            Code::FailedPrecondition,
            "COORDINATOR_ALIVE",
            "stop the other coordinator for good, or use that one; if there is none, wait ten seconds and try again",
        ),
        // Answered as every error of the store.
        adopt::Error::Store(_) => (Code::Internal, "STORE_DAMAGED", ""),
    };
    problem(code, message).reason(reason).remedy(remedy)
}

/// What the state machine refused. The reason is that of the first; each has its own violation.
fn illegal(message: String, refused: &[(OperationId, Illegal)]) -> service::status::Problem {
    let words = |illegal: &Illegal| match illegal {
        Illegal::NotReady { .. } => ("NOT_READY", "wait until the operation is ready for completion"),
        Illegal::TooLate => ("TOO_LATE", "the database is at its destination: start another move to bring it back"),
        Illegal::LastCopy => (
            "LAST_COPY",
            "if the destination is gone for ever, reopen the source with force-unfence; else bring the destination back",
        ),
        Illegal::Ended { .. } => ("ENDED", "nothing is left to do for it"),
        Illegal::Unexpected { .. } => ("WRONG_STATE", "look at the operation's state and step"),
    };
    let (reason, remedy) = refused.first().map_or(("WRONG_STATE", ""), |(_, illegal)| words(illegal));
    let problem = problem(Code::FailedPrecondition, message).reason(reason).remedy(remedy);
    refused.iter().fold(problem, |problem, (id, illegal)| {
        problem.precondition(words(illegal).0, id.to_string(), illegal.to_string())
    })
}

/// The findings that stand in the way. What all databases share is told once, as being about all of them.
fn errors(found: &[Found]) -> impl Iterator<Item = (String, &handover::Finding)> {
    found.iter().enumerate().flat_map(move |(at, of)| {
        of.findings.iter().filter(|finding| finding.severity == Severity::Error).filter_map(move |finding| {
            let shared = found.len() > 1 && found.iter().all(|other| other.findings.contains(finding));
            match (shared, at) {
                (false, _) => Some((of.database.to_string(), finding)),
                (true, 0) => Some(("all databases".to_owned(), finding)),
                (true, _) => None,
            }
        })
    })
}

fn findings_text(found: &[Found]) -> String {
    let texts: Vec<String> =
        errors(found).map(|(database, finding)| format!("{database}: {}", finding.message)).collect();
    texts.join("; ")
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join("; ")
}
