//! Completing and cancelling: a step of the state machine for each operation, all or none.

use handover::operation::{Event, step};
use proto::v1;

use super::{error::Error, fields::Fields, select::Selection, wire};
use crate::{
    auth::{Caller, Reader},
    core::Core,
    store::{self, Done, Record, Stored},
};

/// Longest freeze that may be asked for: whoever accepts an hour of it does not need this service.
const MAX_FREEZE_MS: u64 = 3_600_000;
/// Tries against changes that the driver makes meanwhile. It makes one now and then, not one after another.
const TRIES: u32 = 20;

pub(super) async fn complete(
    core: &Core,
    caller: &Caller,
    request: v1::CompleteOperationRequest,
) -> Result<v1::CompleteOperationResponse, Error> {
    let mut fields = Fields::default();
    let default = |value: u64, default: std::time::Duration| match value {
        0 => u64::try_from(default.as_millis()).unwrap_or(MAX_FREEZE_MS),
        value => value,
    };
    let max_freeze_ms = default(request.max_freeze_ms, core.limits.max_freeze);
    if max_freeze_ms > MAX_FREEZE_MS {
        fields.wrong("max_freeze_ms", format!("give at most {MAX_FREEZE_MS} ms, or 0 for the coordinator's default"));
    }
    if request.grace_ms > max_freeze_ms {
        let problem = format!("it must not exceed max_freeze_ms, which is {max_freeze_ms}");
        fields.wrong("grace_ms", problem);
    }
    // A default grace gives way to a short freeze.
    let grace_ms = default(request.grace_ms, core.limits.grace).min(max_freeze_ms);
    let selection = Selection::read(fields, request.operations)?;
    let operations =
        decide(core, caller, &selection, Done::Complete, |_| Event::Complete { max_freeze_ms, grace_ms }).await?;
    note(caller, &operations, "completion asked for");
    Ok(v1::CompleteOperationResponse { operations })
}

pub(super) async fn cancel(
    core: &Core,
    caller: &Caller,
    request: v1::CancelOperationRequest,
) -> Result<v1::CancelOperationResponse, Error> {
    let selection = Selection::read(Fields::default(), request.operations)?;
    let operations = decide(core, caller, &selection, Done::Cancel, |now_ms| Event::Cancel { now_ms }).await?;
    note(caller, &operations, "cancel asked for");
    Ok(v1::CancelOperationResponse { operations })
}

fn note(caller: &Caller, operations: &[v1::Operation], what: &str) {
    for operation in operations {
        tracing::info!(operation = operation.id, by = %caller, database = operation.database, "{what}");
    }
}

async fn decide(
    core: &Core,
    caller: &Caller,
    selection: &Selection,
    done: Done,
    event: impl Fn(i64) -> Event,
) -> Result<Vec<v1::Operation>, Error> {
    let mut reader = Reader::new(caller);
    selection.permit(core, caller, &mut reader).await?;
    for _ in 0..TRIES {
        let before = selection.load(core, &mut reader).await?;
        let now_ms = core.now_ms();
        let mut after: Vec<Record> = Vec::with_capacity(before.len());
        let mut illegal = Vec::new();
        for stored in &before {
            match step(stored.operation(), &event(now_ms)) {
                Ok(next) if next == *stored.operation() => after.push(stored.record.clone()),
                Ok(next) => after.push(stored.record.advanced(next, now_ms).done(done, caller.name(), now_ms)),
                Err(refused) => illegal.push((stored.id().clone(), refused)),
            }
        }
        if !illegal.is_empty() {
            return Err(Error::Illegal(illegal));
        }
        let changes: Vec<(&Stored, &Record)> =
            before.iter().zip(&after).filter(|(before, after)| before.record != **after).collect();
        let version = if changes.is_empty() { None } else { Some(core.records.update(&changes).await) };
        let version = match version {
            None => None,
            Some(Ok(version)) => Some(version),
            Some(Err(store::Error::Conflict { .. })) => continue,
            Some(Err(error)) => return Err(error.into()),
        };
        let operations = before.iter().zip(after).map(|(before, record)| {
            let changed = version.filter(|_| before.record != record);
            wire::operation(core, &Stored { version: changed.unwrap_or(before.version), record })
        });
        return Ok(operations.collect());
    }
    Err(Error::Contended)
}
