//! The form scripts rely on, from fixed messages.

use super::*;

/// A move of shop that is being seeded.
pub(crate) fn wire_operation() -> v1::Operation {
    let mut operation = v1::Operation {
        id: "0197a1b2-0000-7000-8000-000000000001".into(),
        batch: "0197a1b2-0000-7000-8000-000000000000".into(),
        source: "west".into(),
        destination: "east".into(),
        database: "shop".into(),
        status: "In progress".into(),
        version: 7,
        created: Some(prost_types::Timestamp { seconds: 1_750_000_000, nanos: 250_000_000 }),
        started: Some(prost_types::Timestamp { seconds: 1_750_000_001, nanos: 0 }),
        progress: Some(v1::Progress {
            seed_bytes_done: 30_198_988,
            seed_bytes_total: 67_108_864,
            seed_objects_done: 2,
            seed_objects_total: 5,
            bytes_per_second: 125_829_120,
            eta_seconds: Some(1),
            generation: 1,
            ..Default::default()
        }),
        findings: vec![finding(v1::Severity::Warning, "HOOK_NOT_SET")],
        ..Default::default()
    };
    operation.set_kind(v1::Kind::Move);
    operation.set_state(v1::State::Seeding);
    operation
}

/// The same as scripts see it.
pub(crate) fn operation() -> Operation {
    Operation::from(&wire_operation())
}

/// A finding with this severity and code.
pub(crate) fn finding(severity: v1::Severity, code: &str) -> v1::Finding {
    v1::Finding {
        severity: severity.into(),
        side: "dest".into(),
        code: code.into(),
        message: "no backup is taken when the database comes online".into(),
        remedy: "give the agent --on-online".into(),
    }
}

#[test]
fn json_has_the_api_s_names_words_and_rfc_3339_times() {
    let json = serde_json::to_value(operation()).unwrap();
    for (field, wanted) in [
        ("kind", "\"move\""),
        ("state", "\"seeding\""),
        ("created", "\"2025-06-15T15:06:40.25Z\""),
        ("ended", "null"),
        ("reason", "null"),
        ("queue_place", "0"),
        ("waiting_for", "[]"),
        ("version", "7"),
    ] {
        assert_eq!(json[field].to_string(), wanted, "{field}");
    }
    assert_eq!(json["progress"]["seed_bytes_total"], 67_108_864);
    assert_eq!(json["findings"][0]["severity"], "warning");
}

#[test]
fn every_field_of_the_api_is_there() {
    // Names from the .proto files themselves, so that a new field is not forgotten here.
    let of = |value: serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let instance = Instance::from(&v1::Instance::default());
    let database = Database::from(&v1::Database::default());
    let used = Override::from(&v1::Override::default());
    let operation = operation();
    let mirrored = [
        ("Operation", of(serde_json::to_value(&operation).unwrap())),
        ("Progress", of(serde_json::to_value(&operation.progress).unwrap())),
        ("Finding", of(serde_json::to_value(&operation.findings[0]).unwrap())),
        ("Override", of(serde_json::to_value(used).unwrap())),
        ("Instance", of(serde_json::to_value(instance).unwrap())),
        ("Database", of(serde_json::to_value(database).unwrap())),
    ];
    let text = include_str!("../../../proto/causeway/v1/operation.proto");
    for (message, mut fields) in mirrored {
        let (_, rest) = text.split_once(&format!("message {message} {{")).unwrap();
        let (body, _) = rest.split_once("\n}").unwrap();
        let lines = body.lines().filter_map(|line| line.split("//").next()?.split_once('='));
        let mut wanted: Vec<String> =
            lines.filter_map(|(left, _)| left.split_whitespace().last().map(str::to_owned)).collect();
        wanted.sort();
        fields.sort();
        assert_eq!(fields, wanted, "{message}");
    }
}

#[test]
fn states_are_words() {
    let mut wire = wire_operation();
    for (state, wanted) in [
        (v1::State::Queued, "queued"),
        (v1::State::CatchingUp, "catching_up"),
        (v1::State::ReadyForCompletion, "ready_for_completion"),
        (v1::State::Cancelled, "cancelled"),
    ] {
        wire.set_state(state);
        assert_eq!(Operation::from(&wire).state, wanted);
    }
}
