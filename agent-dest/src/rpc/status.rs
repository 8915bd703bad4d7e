//! What the agent tells about itself, its databases and its operations.

use super::errors;
use crate::session::{Error, Registry, Session};
use engines::source::DatabaseInfo;
use handover::{dest_role::DestRole, operation::HookOutcome};
use proto::{
    convert,
    v1::{Database, DescribeResponse, DestStatus, Hook, KnownOperation, Progress},
};
use service::Timestamp;

pub(super) async fn describe(registry: &Registry) -> Result<DescribeResponse, Error> {
    Ok(DescribeResponse {
        agent: "dest".to_owned(),
        instance: registry.instance().as_str().to_owned(),
        engine: registry.engine().name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: proto::PROTOCOL,
        epoch: registry.epoch().0,
        operations: registry.all().iter().map(|session| known(&session.view().role)).collect(),
        watermark: registry.engine().watermark().await?.0,
    })
}

fn known(role: &DestRole) -> KnownOperation {
    KnownOperation {
        operation: role.operation.as_str().to_owned(),
        database: role.database.as_str().to_owned(),
        kind: convert::kind_to_wire(role.kind).into(),
        phase: role.phase.as_str().to_owned(),
        version: role.version.0,
        floor: role.floor.0,
        attempt: role.phase.attempt().map_or(0, |attempt| attempt.0),
        source_identity: role.source_identity.clone(),
        // The rest is the source's.
        ..KnownOperation::default()
    }
}

pub(super) fn database(registry: &Registry, info: DatabaseInfo) -> Database {
    let operation = registry.holder(&info.name, None);
    Database {
        name: info.name.as_str().to_owned(),
        size_bytes: info.size_bytes,
        state: info.state,
        findings: info.findings.iter().map(convert::finding_to_wire).collect(),
        operation: operation.map(|operation| operation.as_str().to_owned()).unwrap_or_default(),
    }
}

pub(super) fn status(session: &Session, now: Timestamp) -> DestStatus {
    let role = session.view().role;
    let trouble = session.trouble();
    DestStatus {
        phase: role.phase.as_str().to_owned(),
        attempt: role.phase.attempt().map_or(0, |attempt| attempt.0),
        floor: role.floor.0,
        progress: Some(progress(session, now)),
        fatal: trouble.as_ref().is_some_and(|trouble| trouble.fatal),
        trouble: trouble.map(|trouble| errors::reason(&trouble.error)),
        // While it runs the record holds what is to be said after a crash.
        on_online: role.hook.as_ref().filter(|_| !session.hook_runs()).map(hook),
    }
}

fn progress(session: &Session, now: Timestamp) -> Progress {
    let figures = session.figures();
    Progress {
        seed_bytes_done: figures.seed_bytes_done,
        seed_bytes_total: figures.seed_bytes_total,
        seed_objects_done: figures.objects_done,
        seed_objects_total: figures.objects_total,
        rows_done: figures.rows,
        log_bytes_applied: figures.log_bytes,
        transactions_applied: figures.transactions,
        generation: figures.generation,
        observed: Some(timestamp(now)),
        ..Progress::default()
    }
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let millis = at.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos }
}

pub(super) fn hook(outcome: &HookOutcome) -> Hook {
    Hook { ok: outcome.ok, exit_code: outcome.exit_code, output: outcome.output.clone(), took_ms: outcome.took_ms }
}
