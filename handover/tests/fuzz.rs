//! Role records as an instance may give them back: read or refused, and no event makes a role that was read panic.

use causeway_handover::{
    Attempt, CommandVersion, Position, dest_role, operation,
    source_role::{self, DestAnswer},
};

const SOURCE: &str = r#"{"operation":"0197-a","kind":"move","database":"shop","token":"0123456789abcdef0123456789abcdef",
    "dest_address":"db2:7442","dest_identity":"","log_budget_bytes":0,"incarnation":"1","version":7,"floor":2,"phase":"#;
const DEST: &str = r#"{"operation":"0197-a","kind":"copy","database":"shop","token":"0123456789abcdef0123456789abcdef",
    "source_identity":"","incarnation":"1","source_epoch":3,"version":7,"floor":2,"hook":null,"phase":"#;

fn records(head: &str, phases: &[&str]) -> Vec<Vec<u8>> {
    phases.iter().map(|phase| format!("{head}{phase}}}").into_bytes()).collect()
}

#[test]
fn fuzz_source_roles() {
    use source_role::{Event::*, SourceRole, step};
    let phases = [
        r#""replicating""#,
        r#"{"fencing":{"attempt":3,"saved":"open"}}"#,
        r#"{"fenced":{"attempt":3,"saved":"open","position":"1.2"}}"#,
        r#"{"released":{"attempt":3}}"#,
        r#"{"cleaning_up":{"saved":""}}"#,
    ];
    fuzz::fuzz("roles of a source", &records(SOURCE, &phases), |input| {
        let Ok(role) = serde_json::from_slice::<SourceRole>(input) else { return false };
        for n in [0, 3, u32::MAX] {
            let (n, version) = (Attempt(n), CommandVersion(u64::from(n) * u64::from(n)));
            let position = Position::parse("1.2").expect("a position");
            let events = [
                Fence(version, n),
                FenceDurable(n, position),
                FenceGaveUp(n),
                Mark(version, n),
                Unfence(version, n),
                Reopened(n),
                DestAnswered(n, DestAnswer::Aborted),
                DestAnswered(n, DestAnswer::Promoted),
                Release(version, n),
                ReleaseDone,
                Cleanup(version),
                ForceUnfence(version),
            ];
            for event in &events {
                if let Ok(next) = step(&role, event) {
                    // What is recorded can be read again as it was.
                    let json = serde_json::to_vec(&next.next).expect("a role is JSON");
                    assert_eq!(serde_json::from_slice::<SourceRole>(&json).expect("and is read"), next.next);
                }
            }
        }
        true
    });
}

#[test]
fn fuzz_dest_roles() {
    use dest_role::{DestRole, Event::*, step};
    let phases = [
        r#""seeding""#,
        r#"{"prepared":{"attempt":3,"position":"1.2"}}"#,
        r#"{"primary":{"attempt":3}}"#,
        r#""discarded""#,
    ];
    fuzz::fuzz("roles of a destination", &records(DEST, &phases), |input| {
        let Ok(role) = serde_json::from_slice::<DestRole>(input) else { return false };
        for n in [0, 3, u32::MAX] {
            let (n, version) = (Attempt(n), CommandVersion(u64::from(n) * u64::from(n)));
            let position = Position::parse("1.2").expect("a position");
            let events = [
                SeedLoaded,
                SeedAgain,
                Marker(n, position),
                Abort(Some(version), n),
                Abort(None, n),
                Promote(version, n),
                Discard(version),
                DiscardDone,
                Finish(version),
                Forget(version),
                ForcePromote(version, n),
            ];
            for event in &events {
                if let Ok(next) = step(&role, event) {
                    let json = serde_json::to_vec(&next.next).expect("a role is JSON");
                    assert_eq!(serde_json::from_slice::<DestRole>(&json).expect("and is read"), next.next);
                }
            }
        }
        true
    });
}

/// What a coordinator stored is what `handover` reads, also across the two crates.
#[test]
fn fuzz_states() {
    let samples = [
        r#""queued""#.as_bytes().to_vec(),
        br#"{"completing":{"attempt":1,"max_freeze_ms":1,"grace_ms":1,"retries":5,"step":"cutover"}}"#.to_vec(),
        br#"{"cancelling":{"outcome":"failed","step":"discarding"}}"#.to_vec(),
    ];
    fuzz::fuzz("states of an operation", &samples, |input| {
        serde_json::from_slice::<operation::State>(input).is_ok_and(|state| {
            let json = serde_json::to_vec(&state).expect("a state is JSON");
            serde_json::from_slice::<operation::State>(&json).is_ok_and(|again| again == state)
        })
    });
}
