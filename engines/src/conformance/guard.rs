//! Locks, records and names: what keeps late or doubled agents harmless.

use super::rig::{Rig, superseded};
use handover::{
    CommandVersion, DatabaseName, Kind, OperationId,
    dest_role::{self, DestRole},
    source_role::{self},
};
use std::time::Duration;

/// A cancel at any moment leaves nothing at either side, and a source that serves.
pub async fn a_cancel_leaves_no_trace(rig: &mut Rig) {
    for stage in 0..4 {
        rig.begin(Kind::Move).await;
        if stage > 0 {
            let mut pipe = rig.connect().await;
            if stage > 1 {
                pipe.seed().await;
                pipe.catch_up().await;
            }
            if stage > 2 {
                rig.fence(1).await;
            }
        }
        let version = rig.version();
        let discarding = DestRole { phase: dest_role::Phase::Discarding, ..rig.dest_role() };
        rig.dest.put_role(&discarding).await.expect("record the discard");
        rig.dest.discard(&discarding).await.expect("discard");
        rig.dest.discard(&discarding).await.expect("discard again");
        let step = source_role::step(&rig.role(), &source_role::Event::Cleanup(version)).expect("clean up at any time");
        rig.source.put_role(&step.next).await.expect("record the cleanup");
        rig.source.cleanup(&step.next).await.expect("clean up");
        rig.source.cleanup(&step.next).await.expect("clean up again");
        rig.source.remove_role(&step.next.operation, version).await.expect("forget at the source");
        rig.dest.remove_role(&step.next.operation, version).await.expect("forget at the destination");
        assert_eq!(rig.harness.leftovers(), Vec::<String>::new(), "stage {stage}");
        assert!(rig.harness.write(&format!("after {stage}"), Some("1")).await, "stage {stage}");
    }
}

/// An agent that was taken over and wakes up changes nothing.
pub async fn a_superseded_source_writes_nothing(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    let old = rig.source.clone();
    rig.restart_source().await;
    let role = rig.role();
    assert!(superseded(old.heartbeat().await), "it finds out by its next heartbeat");
    assert!(superseded(old.put_role(&role).await));
    assert!(superseded(old.remove_role(&role.operation, CommandVersion(99)).await));
    let version = rig.version();
    let fence = source_role::Event::Fence(version, handover::Attempt(1));
    let mut fencing = source_role::step(&role, &fence).expect("can be fenced").next;
    assert!(old.fence(&mut fencing, Duration::from_millis(200)).await.is_err());
    assert!(old.cleanup(&role).await.is_err());
    assert!(rig.harness.write("serves", Some("1")).await, "nothing was fenced");
    assert_eq!(rig.source.roles().await.expect("read the records"), [role]);
    drop(pipe);
}

/// The same at the destination.
pub async fn a_superseded_destination_writes_nothing(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Move).await;
    pipe.replica.sync().await.expect("sync");
    let old = rig.dest.clone();
    rig.restart_dest().await;
    let role = rig.dest_role();
    assert!(superseded(old.heartbeat().await));
    assert!(superseded(old.put_role(&role).await));
    let primary = DestRole { phase: dest_role::Phase::Primary { attempt: handover::Attempt(1) }, ..role.clone() };
    assert!(superseded(old.promote(&primary).await), "a superseded agent must not flip");
    assert!(old.discard(&role).await.is_err());
    assert!(pipe.replica.sync().await.is_err(), "its open replica makes nothing durable");
    assert!(!rig.harness.write_at_dest("x", "1").await, "nothing was opened");
    assert_eq!(rig.dest.roles().await.expect("read the records"), [role]);
}

/// What was removed with a version is known for ever.
pub async fn the_watermark_only_rises(rig: &mut Rig) {
    let operation = OperationId::parse("never-began").expect("an id");
    rig.source.remove_role(&operation, CommandVersion(7)).await.expect("forget an unknown one");
    rig.source.remove_role(&operation, CommandVersion(5)).await.expect("again, later but older");
    rig.dest.remove_role(&operation, CommandVersion(8)).await.expect("forget an unknown one");
    rig.restart_source().await;
    rig.restart_dest().await;
    assert_eq!(rig.source.watermark().await.expect("read it"), CommandVersion(7));
    assert_eq!(rig.dest.watermark().await.expect("read it"), CommandVersion(8));
}

/// A destination that has the name says so before and when it matters.
pub async fn a_taken_name_is_found(rig: &mut Rig) {
    let pipe = rig.replicate(Kind::Copy).await;
    let mark = rig.source.mark(&rig.role(), handover::Attempt(1)).await.expect("mark");
    pipe.catch_up_to(&mark).await;
    rig.promote(&pipe, 1, &mark).await;
    rig.finish(1).await;
    let name = rig.harness.database();
    let facts = rig.source.preflight(&name, Kind::Copy, None).await.expect("examine the source");
    let findings = rig.dest.preflight(&name, &facts.requirements, None).await.expect("judge it");
    assert!(findings.iter().any(|f| f.code == "NAME_TAKEN"), "{findings:?}");
    let version = rig.version();
    let role = DestRole {
        operation: OperationId::parse("second").expect("an id"),
        version,
        phase: dest_role::Phase::Seeding,
        ..rig.dest_role()
    };
    assert!(rig.dest.prepare(&role).await.is_err(), "a name that is taken cannot be reserved");
}

/// Bad input is a finding or a clear error.
pub async fn unknown_databases_are_findings(rig: &mut Rig) {
    let name = DatabaseName::parse("nobody's database").expect("a name");
    let facts = rig.source.preflight(&name, Kind::Move, None).await.expect("an answer all the same");
    assert!(facts.findings.iter().any(|f| f.code == "DATABASE_NOT_FOUND"), "{:?}", facts.findings);
    let garbage = bytes::Bytes::from_static(b"\xff\x00garbage");
    assert!(rig.dest.preflight(&name, &garbage, None).await.is_err(), "requirements that nobody can read");
}
