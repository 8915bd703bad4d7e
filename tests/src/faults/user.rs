//! The user of a cell's operation, who goes on whatever happens: starts it, completes or cancels it when it is ready, and
//! completes it again when an attempt was given up.

use super::What;
use crate::{
    cluster::Cluster,
    operation::{Op, ended, request, story},
    v1::{GetOperationRequest, Kind, Operation, StartOperationRequest, State},
};
use service::status::describe;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(30);
/// The freeze that a source which takes [`FENCE_DELAY`] for its fence exceeds.
const TOO_SHORT: Duration = Duration::from_millis(1500);
/// See [`TOO_SHORT`].
pub const FENCE_DELAY: Duration = Duration::from_millis(4500);

/// What the user wants, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The journey.
    pub what: What,
    /// The database.
    pub database: &'a str,
    /// The freeze accepted, unless it is to be exceeded.
    pub max_freeze: Duration,
    /// Until when everything has to have ended.
    pub deadline: Instant,
}

/// How it ended.
#[derive(Debug)]
pub struct Seen {
    /// The operation.
    pub operation: Operation,
    /// When its completion was asked for first, in microseconds since 1970; 0 if never.
    pub completed_us: u64,
}

/// Sees an operation to its end; says where it stands if it does not end.
pub fn drive(cluster: &Cluster, wish: &Wish<'_>) -> Result<Seen, String> {
    let op = start(cluster, wish)?;
    let (mut completed_us, mut refused) = (0, String::new());
    let mut last = None;
    while Instant::now() < wish.deadline {
        last = look(cluster, &op).or(last);
        match &last {
            Some(operation) if ended(operation) => return Ok(Seen { operation: operation.clone(), completed_us }),
            Some(operation) if operation.state() == State::ReadyForCompletion => {
                let asked = match wish.what {
                    What::Cancel => op.try_cancel(),
                    What::Retry if operation.attempt == 0 => op.try_complete(TOO_SHORT),
                    What::Move | What::Copy | What::Retry => {
                        if completed_us == 0 {
                            completed_us = ledger::history::now_us();
                        }
                        op.try_complete(wish.max_freeze)
                    }
                };
                refused = asked.err().map(|status| describe(&status)).unwrap_or_default();
            }
            _ => {}
        }
        thread::sleep(LOOK);
    }
    let story = last.as_ref().map(story).unwrap_or_default();
    Err(format!("it has not ended: {story} (the last refusal: {refused:?})"))
}

/// The operation as it is, if the coordinator tells: here it may fail in every way in which a connection can.
fn look(cluster: &Cluster, op: &Op<'_>) -> Option<Operation> {
    let request = GetOperationRequest { id: op.id.clone() };
    cluster.call(cluster.coordinator().get_operation(request)).ok()?.operation
}

/// Starts it, as often as it takes: the request's id makes that one operation.
fn start<'a>(cluster: &'a Cluster, wish: &Wish<'_>) -> Result<Op<'a>, String> {
    let kind = if wish.what == What::Copy { Kind::Copy } else { Kind::Move };
    loop {
        let request = StartOperationRequest { request_id: "faults".to_owned(), ..request(kind, &[wish.database]) };
        match cluster.try_start(request) {
            Ok(answer) => {
                let first = answer.operations.into_iter().next().ok_or("a start without an operation")?;
                return Ok(cluster.operation(first.id));
            }
            Err(status) if Instant::now() > wish.deadline => return Err(format!("start: {}", describe(&status))),
            Err(_) => thread::sleep(LOOK),
        }
    }
}
