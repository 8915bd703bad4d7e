//! Every pair of records, and what goes on from it.

use super::*;
use handover::{CommandVersion, DatabaseName, OperationId, operation::actions};

const SOURCES: [&str; 7] = ["", "replicating", "fencing", "fenced", "releasing", "released", "cleaning up"];
const DESTS: [&str; 7] = ["", "seeding", "replica", "prepared", "primary", "discarding", "discarded"];

fn known(phase: &str, kind: Kind) -> Option<Remembered> {
    let in_attempt = matches!(phase, "fencing" | "fenced" | "releasing" | "released" | "prepared" | "primary");
    let discarded = matches!(phase, "discarding" | "discarded");
    (!phase.is_empty()).then(|| Remembered {
        operation: OperationId::parse("o").expect("an id"),
        database: DatabaseName::parse("shop").expect("a name"),
        kind,
        phase: phase.to_owned(),
        attempt: Attempt(if in_attempt { 3 } else { 0 }),
        floor: Attempt(if discarded { u32::MAX } else { 2 }),
        version: CommandVersion(9),
        dest_address: String::new(),
        source_identity: String::new(),
        log_budget_bytes: 0,
        heard_ago: None,
    })
}

fn of(kind: Kind, source: &str, dest: &str) -> Result<Rebuilt, Conflict> {
    rebuild(kind, known(source, kind).as_ref(), known(dest, kind).as_ref(), 1000, 300)
}

/// What is done next, in short.
fn next(kind: Kind, source: &str, dest: &str) -> String {
    let Ok(Rebuilt { state, attempt }) = of(kind, source, dest) else { return "refused".to_owned() };
    let mut operation = crate::fixture::operation(kind, state);
    operation.attempt = attempt;
    actions(&operation).iter().map(|action| format!("{action:?}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn nothing_irreversible_follows_but_from_what_is_decided() {
    for kind in [Kind::Move, Kind::Copy] {
        for source in SOURCES {
            for dest in DESTS.iter().filter(|dest| !(source.is_empty() && dest.is_empty())) {
                let next = next(kind, source, dest);
                // The source is dropped only after a flip: the destination says so, or the source has begun to.
                let flipped = *dest == "primary" || source == "releasing";
                assert!(!next.contains("Release") || flipped, "{kind} {source} {dest}: {next}");
                // It is cleaned, and with it opened, only after the destination has decided.
                let decided = *dest == "primary" || source == "cleaning up";
                assert!(!next.contains("CleanSource") || decided, "{kind} {source} {dest}: {next}");
                assert!(!next.contains("Unfence"), "{kind} {source} {dest}: {next}");
                // A closed source is not left alone.
                let closed = matches!(source, "fencing" | "fenced");
                assert!(!closed || !next.contains("Observe"), "{kind} {source} {dest}: {next}");
                // No new attempt is begun, and the destination's record is forgotten only if the source has none.
                assert!(!next.contains("CutOver"), "{kind} {source} {dest}: {next}");
                assert!(!next.contains("ForgetDest") || source.is_empty(), "{kind} {source} {dest}: {next}");
            }
        }
    }
}

#[test]
fn it_goes_on_where_it_was() {
    let table = [
        ("replicating", "seeding", "Observe"),
        ("replicating", "replica", "Observe"),
        ("replicating", "", "Observe"),
        ("fencing", "replica", "AbortDest(3)"),
        ("fenced", "prepared", "AbortDest(3)"),
        ("fenced", "", "AbortDest(3)"),
        ("fenced", "primary", "Release(3) Finish"),
        ("releasing", "primary", "Release(3) Finish"),
        ("released", "primary", "Finish"),
        ("releasing", "seeding", "Release(3) Finish"),
        ("cleaning up", "primary", "CleanSource"),
        ("", "primary", "ForgetDest"),
        ("", "seeding", "Discard"),
        ("fenced", "discarding", "Discard"),
        ("replicating", "discarded", "Discard"),
        ("cleaning up", "discarded", "Discard"),
        ("cleaning up", "", "CleanSource"),
        ("replicating", "primary", "refused"),
        ("upside down", "replica", "refused"),
    ];
    for (source, dest, wanted) in table {
        assert_eq!(next(Kind::Move, source, dest), wanted, "{source:?} {dest:?}");
    }
    // A copy's source is open all the time.
    assert_eq!(next(Kind::Copy, "replicating", "primary"), "Release(3) Finish");
    assert_eq!(next(Kind::Copy, "replicating", "prepared"), "AbortDest(3)");
}

#[test]
fn the_next_attempt_is_above_all_that_anybody_heard_of() {
    for (source, dest, attempt) in
        [("replicating", "replica", 2), ("fenced", "replica", 3), ("replicating", "discarded", 2)]
    {
        assert_eq!(of(Kind::Move, source, dest).expect("no conflict").attempt, Attempt(attempt), "{source} {dest}");
    }
}
