//! One operation in words: a line of progress, all its details, and what to do next.

use jiff::Timestamp;

use super::{Look, Output};
use crate::{
    units,
    view::{DatabaseFindings, Operation, Progress},
};

/// Where it stands within its state, in a few words.
pub(super) fn progress(operation: &Operation) -> String {
    let figures = operation.progress.as_ref();
    let mut parts: Vec<String> = match operation.state.as_str() {
        "queued" if operation.queue_place > 0 => vec![format!("place {} in the queue", operation.queue_place)],
        "seeding" => figures.map(seed).unwrap_or_default(),
        "catching_up" => {
            let lag = figures.map(lag).unwrap_or_default();
            Some("catching up".to_owned()).into_iter().chain(lag).collect()
        }
        "ready_for_completion" => {
            let mut parts = figures.map(lag).unwrap_or_default();
            parts.extend(operation.complete_before.map(|until| format!("until {}", short(until))));
            parts.extend(operation.reason.as_ref().map(|reason| format!("last attempt: {}", reason.code)));
            parts
        }
        "succeeded" if operation.freeze_ms > 0 => vec![format!("freeze {} ms", units::count(operation.freeze_ms))],
        "failed" | "cancelled" => operation.reason.iter().map(|reason| reason.code.clone()).collect(),
        "cancelling" => {
            let reason = operation.reason.iter().map(|reason| reason.code.clone());
            reason.chain(step(operation)).collect()
        }
        // Its status is but "In progress", as while seeding.
        "preparing" => step(operation).into_iter().chain(Some("preparing".to_owned())).take(1).collect(),
        _ => step(operation).into_iter().collect(),
    };
    if operation.findings.iter().any(|finding| finding.code == "LOG_BUDGET_NEAR") {
        parts.push("retained log near its cap".to_owned());
    }
    if !operation.waiting_for.is_empty() {
        parts.push(format!("waits for {}", operation.waiting_for.join(", ")));
    }
    parts.join(" · ")
}

fn step(operation: &Operation) -> Option<String> {
    (!operation.step.is_empty()).then(|| operation.step.clone())
}

fn seed(p: &Progress) -> Vec<String> {
    let mut parts = Vec::new();
    if p.seed_bytes_total > 0 {
        parts.push(format!("seeding {} %", percent(p)));
        parts.push(format!("{} of {}", units::bytes(p.seed_bytes_done), units::bytes(p.seed_bytes_total)));
    }
    if p.rows_done > 0 {
        parts.push(format!("{} rows", units::count(p.rows_done)));
    }
    if p.bytes_per_second > 0 {
        parts.push(units::rate(p.bytes_per_second));
    }
    parts.extend(p.eta_seconds.map(|s| format!("ETA {}", units::seconds(s))));
    if p.reconnects > 0 {
        parts.push(format!("{} reconnects", p.reconnects));
    }
    parts
}

fn lag(p: &Progress) -> Vec<String> {
    let mut parts = vec![format!("lag {}, {}", units::bytes(p.lag_bytes), units::ms(p.lag_ms))];
    if p.transactions_applied > 0 {
        parts.push(format!("{} txn applied", units::count(p.transactions_applied)));
    }
    parts
}

fn percent(p: &Progress) -> u64 {
    match p.seed_bytes_total {
        0 => 0,
        total => (u128::from(p.seed_bytes_done.min(total)) * 100 / u128::from(total)) as u64,
    }
}

/// One line about an operation, without its id.
pub fn line(operation: &Operation) -> String {
    let status = match operation.status.as_str() {
        "" => operation.state.clone(),
        status => status.to_owned(),
    };
    match progress(operation) {
        words if words.is_empty() => status,
        words => format!("{status} · {words}"),
    }
}

/// Everything that is known of an operation, for people.
pub fn details(output: &Output, operation: &Operation) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{} {value}\n", output.paint(Look::Faint, format!("{name:<12}"))));
        }
    };
    let status = match operation.state.as_str() {
        "succeeded" | "ready_for_completion" => Look::Good,
        "failed" => Look::Bad,
        "cancelled" | "cancelling" => Look::Warn,
        _ => Look::Accent,
    };
    put("Operation", output.paint(Look::Strong, &operation.id));
    put(
        "What",
        format!("{} {} from {} to {}", operation.kind, operation.database, operation.source, operation.destination),
    );
    put("Status", format!("{} ({})", output.paint(status, &operation.status), operation.state));
    put("Detail", progress(operation));
    if let Some(reason) = &operation.reason {
        put("Reason", format!("{}: {}", reason.code, reason.message));
        put("Remedy", reason.remedy.clone());
    }
    if let Some(p) = operation.progress.as_ref() {
        put("Seed", figures_of_seed(p));
        put("Log", figures_of_log(p));
    }
    if operation.attempt > 0 {
        put("Attempts", operation.attempt.to_string());
    }
    if operation.freeze_ms > 0 {
        put("Freeze", format!("{} ms", units::count(operation.freeze_ms)));
    }
    for (name, moment) in [
        ("Created", operation.created),
        ("Started", operation.started),
        ("Ready", operation.ready),
        ("Deadline", operation.complete_before.filter(|_| operation.ended.is_none())),
        ("Ended", operation.ended),
    ] {
        put(name, moment.map(short).unwrap_or_default());
    }
    if let Some(hook) = &operation.on_online {
        let outcome = if hook.ok { "ok".to_owned() } else { format!("failed with exit code {}", hook.exit_code) };
        put("Hook", format!("on_online {outcome}, took {}", units::ms(hook.took_ms)));
        hook.output.lines().for_each(|line| put("", line.to_owned()));
    }
    for deed in &operation.deeds {
        let at = deed.at.map(|at| format!(" at {}", short(at))).unwrap_or_default();
        let what = match deed.what.as_str() {
            "start" => "Started by",
            "complete" => "Completed by",
            "cancel" => "Cancelled by",
            _ => "Forced by",
        };
        put(what, format!("{}{at}", deed.by));
    }
    for used in &operation.overrides {
        let at = used.at.map(|at| format!(" at {}", short(at))).unwrap_or_default();
        put("Override", format!("{}{at}", output.paint(Look::Warn, &used.what)));
    }
    put("Batch", operation.batch.clone());
    if !operation.findings.is_empty() {
        let head = if operation.state == "succeeded" { "To redo afterwards" } else { "Findings" };
        let found = [DatabaseFindings { database: head.to_owned(), findings: operation.findings.clone() }];
        text.push_str(&super::findings(&found, |look, text| output.paint(look, text)));
    }
    text
}

fn figures_of_seed(p: &Progress) -> String {
    let mut parts = vec![format!("{} of {}", units::bytes(p.seed_bytes_done), units::bytes(p.seed_bytes_total))];
    if p.seed_objects_total > 0 {
        parts.push(format!("{} of {} parts", p.seed_objects_done, p.seed_objects_total));
    }
    if p.seed_bytes_sent > 0 {
        parts.push(format!("{} sent", units::bytes(p.seed_bytes_sent)));
    }
    if p.generation > 1 {
        parts.push(format!("generation {}", p.generation));
    }
    parts.join(", ")
}

fn figures_of_log(p: &Progress) -> String {
    let mut parts = vec![
        format!("{} applied", units::bytes(p.log_bytes_applied)),
        format!("{} transactions", units::count(p.transactions_applied)),
    ];
    if p.retained_bytes > 0 {
        let budget = match p.retained_budget_bytes {
            0 => String::new(),
            bytes => format!(" of {}", units::bytes(bytes)),
        };
        parts.push(format!("{}{budget} retained at the source", units::bytes(p.retained_bytes)));
    }
    if p.reconnects > 0 {
        parts.push(format!("{} reconnects", p.reconnects));
    }
    parts.join(", ")
}

/// A moment to the second, RFC 3339 in UTC.
pub(super) fn short(moment: Timestamp) -> String {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}

/// What a person does next about operations of one kind between two instances, as a command.
pub fn next_step(verb: &str, operations: &[Operation]) -> String {
    let Some(first) = operations.first() else { return String::new() };
    let names: Vec<String> =
        operations.iter().map(|operation| format!("--database {}", quoted(&operation.database))).collect();
    let Operation { kind, source, destination, .. } = first;
    format!("causeway {kind} {verb} --source {source} --dest {destination} {}", names.join(" "))
}

/// As a POSIX shell takes it.
fn quoted(name: &str) -> String {
    match name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}
