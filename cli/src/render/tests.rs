//! What people and scripts see, from fixed messages.

use jiff::Timestamp;
use proto::v1;

use super::*;
use crate::view::{
    DatabaseFindings, Operations,
    tests::{finding, operation, wire_operation},
};

fn now() -> Timestamp {
    "2025-06-15T15:11:45Z".parse().unwrap()
}

#[test]
fn a_table_has_a_line_an_operation() {
    let output = Output::plain(Format::Table);
    let table = operations(&output, &[operation()], now());
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(
        lines[0].iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
        ["ID", "KIND", "SOURCE", "DEST", "DATABASE", "STATUS", "DETAIL", "AGE"]
    );
    assert_eq!(lines[1][0], "0197a1b2-0000-7000-8000-000000000001");
    assert_eq!(
        lines[1][1..6].iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
        ["move", "west", "east", "shop", "In progress"]
    );
    assert_eq!(lines[1][6].trim(), "seeding 44 % · 28.8 MiB of 64.0 MiB · 120 MiB/s · ETA 1 s");
    assert_eq!(lines[1][7].trim(), "5 min 4 s");
    assert!(table.lines().all(|line| line == line.trim_end()));
}

#[test]
fn empty_lists_say_so() {
    let output = Output::plain(Format::Table);
    assert_eq!(operations(&output, &[], now()), "no operations");
    assert_eq!(databases(&output, &[]), "no databases");
    assert!(instances(&output, &[]).contains("causeway instance register"));
}

#[test]
fn each_state_says_what_matters_in_it() {
    let told = |state: v1::State, change: fn(&mut v1::Operation)| {
        let mut wire = wire_operation();
        wire.set_state(state);
        wire.status = "X".to_owned();
        change(&mut wire);
        line(&(&wire).into())
    };
    assert_eq!(told(v1::State::Queued, |o| o.queue_place = 2), "X · place 2 in the queue");
    assert_eq!(
        told(v1::State::ReadyForCompletion, |o| {
            o.progress = Some(v1::Progress { lag_bytes: 2048, lag_ms: 12, ..Default::default() });
            o.complete_before = o.created;
        }),
        "X · lag 2.00 KiB, 12 ms · until 2025-06-15T15:06:40Z"
    );
    assert_eq!(told(v1::State::Completing, |o| o.step = "fencing".into()), "X · fencing");
    assert_eq!(
        told(v1::State::Cancelling, |o| o.waiting_for = vec!["source agent west".into()]),
        "X · waits for source agent west"
    );
    assert_eq!(told(v1::State::Succeeded, |o| o.freeze_ms = 1234), "X · freeze 1,234 ms");
    let failed = |o: &mut v1::Operation| o.reason = Some(v1::Reason { code: "DISK_FULL".into(), ..Default::default() });
    assert_eq!(told(v1::State::Failed, failed), "X · DISK_FULL");
}

#[test]
fn details_leave_nothing_out() {
    let mut shop = operation();
    shop.reason = Some(crate::view::Reason {
        code: "FREEZE_EXCEEDED".into(),
        message: "the freeze would have been longer than 2 s".into(),
        remedy: "complete again, with a larger --max-freeze".into(),
    });
    let text = details(&Output::plain(Format::Table), &shop);
    for wanted in [
        "Operation    0197a1b2-0000-7000-8000-000000000001",
        "What         move shop from west to east",
        "Status       In progress (seeding)",
        "Reason       FREEZE_EXCEEDED: the freeze would have been longer than 2 s",
        "Remedy       complete again, with a larger --max-freeze",
        "Seed         28.8 MiB of 64.0 MiB, 2 of 5 parts",
        "Created      2025-06-15T15:06:40Z",
        "! warning HOOK_NOT_SET",
        "remedy: give the agent --on-online",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
}

#[test]
fn findings_come_errors_first_with_their_remedies() {
    let all: Vec<DatabaseFindings> = vec![
        (&v1::DatabaseFindings {
            database: "shop".into(),
            findings: vec![finding(v1::Severity::Warning, "LATER"), finding(v1::Severity::Error, "NAME_TAKEN")],
        })
            .into(),
        (&v1::DatabaseFindings { database: "crm".into(), findings: vec![] }).into(),
    ];
    let text = findings(&all, |_, text| text);
    let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word} is not in\n{text}"));
    assert!(
        at("✗ error NAME_TAKEN") < at("! warning LATER") && at("! warning LATER") < at("✓ nothing stands in the way")
    );
    assert_eq!(text.matches("remedy: ").count(), 2);
}

#[test]
fn json_and_yaml_say_the_same() {
    let value = Operations { operations: vec![operation()] };
    let json: serde_json::Value = serde_json::from_str(&structured(Format::Json, &value)).unwrap();
    let yaml: serde_json::Value = serde_norway::from_str(&structured(Format::Yaml, &value)).unwrap();
    assert_eq!(json, yaml);
    assert_eq!(json["operations"][0]["progress"]["eta_seconds"], 1);
}

#[test]
fn the_next_step_can_be_pasted() {
    let mut odd = operation();
    odd.database = "it's mine".to_owned();
    assert_eq!(
        next_step("complete", &[operation(), odd]),
        r"causeway move complete --source west --dest east --database shop --database 'it'\''s mine'"
    );
}
