//! Operations as a user drives them: start, wait for a state, complete, cancel, wait for the end.

use crate::{
    cluster::Cluster,
    v1::{self, Kind, Operation, State},
    wait::{self, PATIENCE},
};
use service::status::describe;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// An operation of a cluster.
#[derive(Debug, Clone)]
pub struct Op<'a> {
    cluster: &'a Cluster,
    /// Its id.
    pub id: String,
}

/// Longer than any writer of the tests holds its lock.
pub const GRACE_MS: u64 = 10_000;

/// A request that starts operations; the fields of the message can be changed before it is sent.
pub fn request(kind: Kind, databases: &[&str]) -> v1::StartOperationRequest {
    v1::StartOperationRequest {
        kind: kind.into(),
        source: "west".to_owned(),
        destination: "east".to_owned(),
        databases: databases.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    }
}

/// Which operation a request is about.
pub fn selector(ids: &[&str]) -> Option<v1::OperationSelector> {
    let ids = ids.iter().map(|&id| id.to_owned()).collect();
    Some(v1::OperationSelector { ids, ..Default::default() })
}

impl Cluster {
    /// Starts a move from west to east.
    #[track_caller]
    pub fn start_move(&self, database: &str) -> Op<'_> {
        self.start(request(Kind::Move, &[database]))
    }

    /// Starts a copy from west to east.
    #[track_caller]
    pub fn start_copy(&self, database: &str) -> Op<'_> {
        self.start(request(Kind::Copy, &[database]))
    }

    /// Starts the operation of a request.
    #[track_caller]
    pub fn start(&self, request: v1::StartOperationRequest) -> Op<'_> {
        let answer = self.try_start(request).unwrap_or_else(|status| panic!("start: {}", describe(&status)));
        let first = answer.operations.into_iter().next().expect("a start answers its operations");
        Op { cluster: self, id: first.id }
    }

    /// Sends a start request.
    pub fn try_start(&self, request: v1::StartOperationRequest) -> Result<v1::StartOperationResponse, Status> {
        self.call(self.coordinator().start_operation(request))
    }

    /// An operation that was started some other way.
    pub fn operation(&self, id: impl Into<String>) -> Op<'_> {
        Op { cluster: self, id: id.into() }
    }
}

impl Op<'_> {
    /// The operation as it is now.
    #[track_caller]
    pub fn now(&self) -> Operation {
        wait::until("the coordinator's answer", PATIENCE, || self.look())
    }

    /// The operation as it is now, unless the coordinator is away.
    #[track_caller]
    pub fn look(&self) -> Option<Operation> {
        let request = v1::GetOperationRequest { id: self.id.clone() };
        match self.cluster.call(self.cluster.coordinator().get_operation(request)) {
            Ok(answer) => answer.operation,
            Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) => {
                None
            }
            Err(status) => panic!("get {}: {}", self.id, describe(&status)),
        }
    }

    /// Waits until it is in a state; panics when it ends in another.
    #[track_caller]
    pub fn until(&self, state: State) -> Operation {
        let operation = self.until_it(state.as_str_name(), |operation| operation.state() == state || ended(operation));
        assert_eq!(operation.state(), state, "{}", story(&operation));
        operation
    }

    /// Waits until it is as wanted.
    #[track_caller]
    pub fn until_it(&self, awaited: &str, is_so: impl Fn(&Operation) -> bool) -> Operation {
        self.until_it_within(awaited, PATIENCE, is_so)
    }

    /// Waits so long until it is as wanted.
    #[track_caller]
    pub fn until_it_within(&self, awaited: &str, patience: Duration, is_so: impl Fn(&Operation) -> bool) -> Operation {
        let started = Instant::now();
        // The connection is kept while it lasts; a coordinator that comes back is dialled by itself.
        let mut client = self.cluster.coordinator();
        let mut last = None;
        loop {
            let request = v1::GetOperationRequest { id: self.id.clone() };
            match self.cluster.call(client.get_operation(request)) {
                Ok(answer) => last = answer.operation,
                Err(status) if matches!(status.code(), Code::NotFound | Code::PermissionDenied) => {
                    panic!("get {}: {}", self.id, describe(&status))
                }
                Err(_) => {}
            }
            if let Some(operation) = last.take_if(|operation| is_so(operation)) {
                return operation;
            }
            let story = last.as_ref().map(story).unwrap_or_default();
            assert!(started.elapsed() < patience, "{awaited}: not within {patience:?}; {story}");
            // Finely at first, and never so often that asking slows down what is awaited.
            std::thread::sleep((started.elapsed() / 32).clamp(Duration::from_millis(5), Duration::from_millis(50)));
        }
    }

    /// Waits until it is ready for completion.
    #[track_caller]
    pub fn until_ready(&self) -> Operation {
        self.until(State::ReadyForCompletion)
    }

    /// The same, for one that has much to seed or to catch up with.
    #[track_caller]
    pub fn until_ready_within(&self, patience: Duration) -> Operation {
        self.until_it_within("readiness", patience, |op| op.state() == State::ReadyForCompletion)
    }

    /// Waits until it has ended, however.
    #[track_caller]
    pub fn until_ended(&self) -> Operation {
        self.until_it("the end", ended)
    }

    /// Waits until it has succeeded; panics when it ends otherwise.
    #[track_caller]
    pub fn until_succeeded(&self) -> Operation {
        self.until(State::Succeeded)
    }

    /// Waits until its attempt has an outcome: it has succeeded, or is ready again.
    #[track_caller]
    pub fn until_decided(&self) -> Operation {
        let decided = |op: &Operation| matches!(op.state(), State::Succeeded | State::ReadyForCompletion);
        self.until_it("the end or readiness", decided)
    }

    /// Sees a completion through that something befell: completes once more if its attempt was given up.
    #[track_caller]
    pub fn until_succeeded_after_all(&self) -> Operation {
        if self.until_decided().state() == State::ReadyForCompletion {
            self.complete();
        }
        self.until_succeeded()
    }

    /// Completes it with a generous limit for the freeze. Lag that passes, as after a destination that was away, is waited out
    /// as a user would.
    #[track_caller]
    pub fn complete(&self) -> Operation {
        for _ in 0..3 {
            match self.try_complete(Duration::ZERO) {
                Err(status) if service::status::reason_of(&status).as_deref() == Some("NOT_READY") => {
                    self.until_ready()
                }
                answered => return answered.unwrap_or_else(|status| panic!("complete: {}", describe(&status))),
            };
        }
        self.complete_within(Duration::ZERO)
    }

    /// Completes it; a freeze beyond the limit ends the attempt.
    #[track_caller]
    pub fn complete_within(&self, max_freeze: Duration) -> Operation {
        self.try_complete(max_freeze).unwrap_or_else(|status| panic!("complete: {}", describe(&status)))
    }

    /// Asks for completion.
    pub fn try_complete(&self, max_freeze: Duration) -> Result<Operation, Status> {
        let max_freeze_ms = u64::try_from(max_freeze.as_millis()).unwrap_or(u64::MAX);
        let operations = selector(&[&self.id]);
        // Without a limit for the freeze there is time for a writer that vacuums on a busy machine, too.
        let grace_ms = if max_freeze.is_zero() { GRACE_MS } else { 0 };
        let request = v1::CompleteOperationRequest { operations, max_freeze_ms, grace_ms };
        let answer = self.cluster.call(self.cluster.coordinator().complete_operation(request))?;
        answer.operations.into_iter().next().ok_or_else(|| Status::internal("no operation in the answer"))
    }

    /// Asks for the end.
    pub fn try_cancel(&self) -> Result<Operation, Status> {
        let request = v1::CancelOperationRequest { operations: selector(&[&self.id]) };
        let answer = self.cluster.call(self.cluster.coordinator().cancel_operation(request))?;
        answer.operations.into_iter().next().ok_or_else(|| Status::internal("no operation in the answer"))
    }

    /// Cancels it.
    #[track_caller]
    pub fn cancel(&self) -> Operation {
        self.try_cancel().unwrap_or_else(|status| panic!("cancel: {}", describe(&status)))
    }
}

/// Whether nothing will happen any more.
pub fn ended(operation: &Operation) -> bool {
    matches!(operation.state(), State::Succeeded | State::Failed | State::Cancelled)
}

/// Where an operation stands, for the message of an assertion.
pub fn story(operation: &Operation) -> String {
    let Operation { step, attempt, reason, waiting_for, findings, progress, .. } = operation;
    let state = operation.state().as_str_name();
    format!("{state} ({step}), attempt {attempt}, {reason:?}, waits for {waiting_for:?}, {findings:?}, {progress:?}")
}
