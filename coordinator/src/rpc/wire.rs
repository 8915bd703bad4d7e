//! Records and views as messages.

use handover::operation::{CancelStep, Completing, CompletionStep, HookOutcome, Operation, Reason, State};
use handover::{Attempt, Finding, Kind, Side};
use proto::{convert, v1};

use crate::{
    core::Core,
    driver::View,
    instances::Known,
    progress::Progress,
    store::{Deed, Stored},
};

/// An operation with what is known about it in memory.
pub(super) fn operation(core: &Core, stored: &Stored) -> v1::Operation {
    let view = core.hub.view(stored.id());
    let place = core.hub.place(stored);
    build(stored, view.as_ref(), place)
}

/// An operation from a view.
pub(super) fn from_view(core: &Core, view: &View) -> v1::Operation {
    build(&view.stored, Some(view), core.hub.place(&view.stored))
}

fn build(stored: &Stored, view: Option<&View>, place: u32) -> v1::Operation {
    let record = &stored.record;
    let operation = &record.operation;
    let stored_progress = (record.progress != Progress::default()).then_some(&record.progress);
    let shown = view.and_then(|view| view.progress.as_ref()).or(stored_progress);
    let progress = shown.map(progress);
    let near_cap = progress.as_ref().filter(|progress| !operation.state.ended() && progress.near_cap());
    let (state, status) = state(&operation.state);
    v1::Operation {
        id: operation.id.to_string(),
        batch: operation.batch.clone(),
        kind: convert::kind_to_wire(operation.kind).into(),
        source: operation.source.to_string(),
        destination: operation.destination.to_string(),
        database: operation.database.to_string(),
        state: state.into(),
        status: status.to_owned(),
        step: step(operation, place),
        queue_place: place,
        attempt: operation.attempt.0,
        reason: current_reason(operation).map(reason),
        waiting_for: view
            .map(|view| view.waiting.values().map(|waiting| waiting.why.clone()).collect())
            .unwrap_or_default(),
        findings: operation
            .findings
            .iter()
            .chain(near_cap.map(retained).as_ref())
            .map(convert::finding_to_wire)
            .collect(),
        progress,
        created: Some(timestamp(operation.times.created_ms)),
        started: operation.times.started_ms.map(timestamp),
        ready: operation.times.ready_ms.map(timestamp),
        complete_before: operation.times.deadline_ms.map(timestamp),
        ended: operation.times.ended_ms.map(timestamp),
        version: stored.version.0,
        on_online: operation.hook.as_ref().map(hook),
        max_freeze_ms: record.max_freeze_ms,
        freeze_ms: operation.freeze_ms.unwrap_or(0),
        overrides: operation.overrides.iter().map(used).collect(),
        deeds: record.deeds.iter().map(deed).collect(),
    }
}

fn state(state: &State) -> (v1::State, &'static str) {
    match state {
        State::Queued => (v1::State::Queued, "Pending"),
        State::Preparing => (v1::State::Preparing, "In progress"),
        State::Seeding => (v1::State::Seeding, "In progress"),
        State::CatchingUp => (v1::State::CatchingUp, "In progress"),
        State::Ready => (v1::State::ReadyForCompletion, "Ready for completion"),
        State::Completing(_) => (v1::State::Completing, "Completing"),
        State::Cancelling(_) => (v1::State::Cancelling, "Cancelling"),
        State::Succeeded => (v1::State::Succeeded, "Succeeded"),
        State::Failed => (v1::State::Failed, "Failed"),
        State::Cancelled => (v1::State::Cancelled, "Cancelled"),
    }
}

fn step(operation: &Operation, place: u32) -> String {
    let fixed = match &operation.state {
        State::Queued => return format!("place {place} in the queue of {}", operation.source),
        State::Completing(completing) => return completion_step(operation.kind, completing),
        State::Preparing => "preparing both sides",
        State::Seeding => "seeding",
        State::CatchingUp => "catching up",
        State::Cancelling(cancelling) => match cancelling.step {
            CancelStep::Discarding => "discarding the destination",
            CancelStep::CleaningSource => "cleaning up the source",
            CancelStep::Forgetting => "removing the records",
        },
        State::Ready | State::Succeeded | State::Failed | State::Cancelled => "",
    };
    fixed.to_owned()
}

fn completion_step(kind: Kind, completing: &Completing) -> String {
    let Attempt(n) = completing.attempt;
    match (&completing.step, kind) {
        (CompletionStep::Cutover, Kind::Move) => format!("attempt {n}: fencing the source, promoting the destination"),
        (CompletionStep::Cutover, Kind::Copy) => format!("attempt {n}: marking the end, promoting the destination"),
        (CompletionStep::Aborting { .. }, _) => format!("closing attempt {n} at the destination"),
        (CompletionStep::Unfencing { .. }, Kind::Move) => format!("attempt {n} closed: reopening the source"),
        (CompletionStep::Unfencing { .. }, Kind::Copy) => format!("attempt {n} closed: going on at the source"),
        (CompletionStep::Flipped { released: false, finished: false }, Kind::Move) => {
            "the destination is online; dropping the source, finishing the destination".to_owned()
        }
        (CompletionStep::Flipped { released: false, finished: false }, Kind::Copy) => {
            "the destination is online; releasing the source, finishing the destination".to_owned()
        }
        (CompletionStep::Flipped { released: false, finished: true }, Kind::Move) => {
            "the destination is online; dropping the source".to_owned()
        }
        (CompletionStep::Flipped { released: false, finished: true }, Kind::Copy) => {
            "the destination is online; releasing the source".to_owned()
        }
        (CompletionStep::Flipped { released: true, .. }, _) => {
            "the destination is online; finishing the destination".to_owned()
        }
        (CompletionStep::Forgetting { .. }, _) => "the destination is online; removing the records".to_owned(),
    }
}

/// The reason of the operation, or that of the way back it is on.
fn current_reason(operation: &Operation) -> Option<&Reason> {
    match &operation.state {
        State::Completing(Completing {
            step: CompletionStep::Aborting { reason, .. } | CompletionStep::Unfencing { reason, .. },
            ..
        }) => Some(reason),
        _ => operation.reason.as_ref(),
    }
}

fn reason(reason: &Reason) -> v1::Reason {
    v1::Reason { code: reason.code.clone(), message: reason.message.clone(), remedy: reason.remedy.clone() }
}

fn hook(hook: &HookOutcome) -> v1::Hook {
    v1::Hook { ok: hook.ok, exit_code: hook.exit_code, output: hook.output.clone(), took_ms: hook.took_ms }
}

fn used((what, at_ms): &(String, i64)) -> v1::Override {
    v1::Override { what: what.clone(), at: Some(timestamp(*at_ms)) }
}

fn deed(deed: &Deed) -> v1::Deed {
    v1::Deed { what: deed.what.as_str().to_owned(), by: deed.by.clone(), at: Some(timestamp(deed.at_ms)) }
}

/// The warning before the operation ends by itself.
fn retained(progress: &v1::Progress) -> Finding {
    let (used, cap) = (progress.retained_bytes, progress.retained_budget_bytes);
    Finding::warning(
        Side::Source,
        "LOG_BUDGET_NEAR",
        format!("{used} bytes of log are retained at the source; at {cap} the operation ends"),
        "bring the destination back or complete the operation; or cancel it and start again with a larger log budget",
    )
}

fn progress(progress: &Progress) -> v1::Progress {
    v1::Progress {
        seed_bytes_done: progress.seed_bytes_done,
        seed_bytes_total: progress.seed_bytes_total,
        seed_objects_done: progress.seed_objects_done,
        seed_objects_total: progress.seed_objects_total,
        rows_done: progress.rows_done,
        bytes_per_second: progress.bytes_per_second,
        eta_seconds: progress.eta_seconds,
        log_bytes_applied: progress.log_bytes_applied,
        transactions_applied: progress.transactions_applied,
        lag_bytes: progress.lag_bytes,
        lag_ms: progress.lag_ms,
        retained_bytes: progress.retained_bytes,
        retained_budget_bytes: progress.retained_budget_bytes,
        reconnects: progress.reconnects,
        seed_bytes_sent: progress.seed_bytes_sent,
        object: progress.object.clone(),
        generation: progress.generation,
        observed: progress.observed_ms.map(timestamp),
    }
}

/// A time of the wall clock.
pub(super) fn timestamp(ms: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: i32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
    }
}

/// An instance.
pub(super) fn instance(known: &Known) -> v1::Instance {
    let record = known.record.clone();
    v1::Instance {
        name: record.name.to_string(),
        engine: record.engine,
        source_agent: record.source_agent,
        dest_agent: record.dest_agent,
        transfer_address: record.transfer_address,
        subscription: record.subscription,
        resource_group: record.resource_group,
        region: record.region,
        failover_group: record.failover_group,
        source_identity: record.source_identity,
        dest_identity: record.dest_identity,
        version: known.version,
        from_config: known.from_config,
    }
}
