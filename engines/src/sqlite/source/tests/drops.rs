//! Dropping what was moved, and leaving no trace of what was not.

use super::{
    app::App,
    rig::{GRACE, Rig},
};
use crate::{
    Error,
    source::SourceEngine,
    sqlite::{
        source::release::{Step, drop_database},
        tombstone::{self, Note},
    },
};
use handover::{
    Attempt, Kind,
    source_role::{Phase, SourceRole},
};
use rusqlite::ErrorCode;

fn releasing(role: &SourceRole) -> SourceRole {
    SourceRole { phase: Phase::Releasing { attempt: Attempt(1) }, ..role.clone() }
}

async fn fenced(setup: &str) -> (Rig, SourceRole) {
    let rig = Rig::new(setup).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    stream.plan(&Default::default()).await.expect("planned");
    let (role, _) = rig.fence(&role, 1).await.expect("fenced");
    (rig, role)
}

fn assert_dropped(rig: &Rig) {
    let note = tombstone::read(&rig.path()).expect("read").expect("a tombstone");
    assert_eq!((note.operation.as_str(), note.moved_to.as_str()), ("op-1", "east"));
    assert_eq!(rig.files(), [".causeway", "shop.db"]);
    let db = rig.connect();
    let refused = db.execute_batch("CREATE TABLE t(a)").expect_err("refused");
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::ReadOnly));
    db.query_row("SELECT moved_to FROM causeway_moved", [], |_| Ok(())).expect("a note for people");
    assert!(!rig.dir.path().join(".causeway/source/spool").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_database_leaves_a_tombstone() {
    for setup in ["PRAGMA journal_mode=wal", "PRAGMA journal_mode=delete", "PRAGMA journal_mode=persist"] {
        let (rig, role) = fenced(setup).await;
        // Stale applications are still connected.
        let stale = rig.connect();
        stale.query_row("SELECT count(*) FROM ledger", [], |_| Ok(())).expect("readable");
        for _ in 0..2 {
            rig.source.release(&releasing(&role), "east").await.expect("released");
            assert_dropped(&rig);
        }
        assert!(stale.execute_batch("INSERT INTO ledger(who) VALUES(1)").is_err());
        let listed = rig.source.databases().await.expect("listed");
        assert_eq!((listed.len(), listed[0].state.as_str()), (1, "tombstone"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_can_be_interrupted_and_repeated() {
    for step in [Step::Fenced, Step::Checkpointed, Step::Unlinked, Step::Buried, Step::UnlinkedAgain] {
        let (rig, role) = fenced("PRAGMA journal_mode=wal").await;
        rig.source.end_stream(&role.operation).await.expect("closed");
        let note = Note { operation: "op-1".into(), moved_to: "east".into(), moved_at_ms: 1 };
        let interrupted = drop_database(&rig.config, &rig.source.store, &releasing(&role), &note, &|done| {
            if done == step { Err(Error::Internal("interrupted".into())) } else { Ok(()) }
        });
        assert!(interrupted.is_err());
        // In between nobody can write, old name or new: not into the fenced file and not into an empty one.
        let between = rig.connect().execute_batch("INSERT INTO ledger(who) VALUES(1); CREATE TABLE mine(a)");
        assert!(between.is_err(), "{step:?} left a database that takes writes");
        rig.source.release(&releasing(&role), "east").await.expect("released");
        assert_dropped(&rig);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_reader_makes_the_drop_wait_and_it_stays_fenced() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    rig.connect().execute_batch("PRAGMA wal_autocheckpoint=0; INSERT INTO ledger(who) VALUES(1)").expect("written");
    let (role, stream) = rig.begin(Kind::Move).await;
    stream.plan(&Default::default()).await.expect("planned");
    let reader = App::start(&rig.path(), 1, "read");
    reader.wait_for("ready");
    let (role, _) = rig.fence(&role, 1).await.expect("fenced");
    let pending = rig.source.release(&releasing(&role), "east").await;
    assert!(matches!(pending, Err(Error::Busy(ref why)) if why.contains("drop pending")), "{pending:?}");
    assert!(rig.connect().execute_batch("INSERT INTO ledger(who) VALUES(1)").is_err());
    reader.kill();
    rig.source.release(&releasing(&role), "east").await.expect("released");
    assert_dropped(&rig);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_fenced_is_never_dropped() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (role, _) = rig.begin(Kind::Move).await;
    assert!(rig.source.release(&releasing(&role), "east").await.is_err());
    rig.connect().execute_batch("INSERT INTO ledger(who) VALUES(1)").expect("as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_operation_leaves_no_trace() {
    for (setup, fence) in
        [("PRAGMA journal_mode=wal", false), ("PRAGMA journal_mode=wal", true), ("PRAGMA journal_mode=delete", true)]
    {
        let rig = Rig::new(setup).await;
        let before = rig.files();
        let content = |rig: &Rig| {
            let mut bytes = std::fs::read(rig.path()).expect("read");
            bytes[24..28].fill(0);
            bytes[92..100].fill(0);
            bytes
        };
        let was = content(&rig);
        let (mut role, stream) = rig.begin(Kind::Move).await;
        stream.plan(&Default::default()).await.expect("planned");
        let mut saved = String::new();
        if fence {
            role = rig.fence(&role, 1).await.expect("fenced").0;
            let Phase::Fenced { saved: recorded, .. } = &role.phase else { panic!("{:?}", role.phase) };
            saved = recorded.clone();
        }
        role.phase = Phase::CleaningUp { saved };
        rig.source.put_role(&role).await.expect("recorded");
        for _ in 0..2 {
            rig.source.cleanup(&role).await.expect("cleaned");
        }
        rig.source.remove_role(&role.operation, role.version).await.expect("removed");
        assert_eq!(rig.files(), before);
        assert!(content(&rig) == was, "the file is not as it was");
        assert!(!rig.dir.path().join(".causeway/source/spool").exists());
        assert!(rig.source.roles().await.expect("roles").is_empty());
        rig.connect().execute_batch("INSERT INTO ledger(who) VALUES(1)").expect("as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_ended_leaves_its_source_as_it_was() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let before = rig.files();
    let (role, stream) = rig.begin(Kind::Copy).await;
    stream.plan(&Default::default()).await.expect("planned");
    rig.source.mark(&role, Attempt(1)).await.expect("marked");
    rig.source.release(&releasing(&role), "east").await.expect("released");
    assert_eq!(rig.files(), before);
    rig.connect().execute_batch("INSERT INTO ledger(who) VALUES(1)").expect("as it was");
    let _ = GRACE;
}
