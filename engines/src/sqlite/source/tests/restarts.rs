//! An agent that was down: it goes on where it was if that is certain, else the seed is verified.

use super::{
    app::App,
    rig::{Replica, Rig, assert_nothing_lost},
};
use crate::{
    source::{SourceEngine, SourceStream},
    sqlite::disk,
};
use handover::{
    Kind,
    source_role::{Phase, SourceRole},
};
use rusqlite::Connection;

/// Writes one transaction of its own.
fn insert(db: &Connection, count: usize) {
    for _ in 0..count {
        db.execute_batch("INSERT INTO ledger(who, body) VALUES(1, randomblob(3000))").expect("written");
    }
}

/// A database, an application connected to it, and a destination that has everything; the agent is down.
async fn stopped(setup: &str) -> (Rig, handover::source_role::SourceRole, Replica, Connection) {
    let mut rig = Rig::new("PRAGMA journal_mode=wal").await;
    let db = rig.connect();
    db.execute_batch("PRAGMA wal_autocheckpoint=0").expect("set");
    db.execute_batch(setup).expect("set up");
    insert(&db, 30);
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    insert(&db, 5);
    let mark = rig.source.mark(&role, handover::Attempt(1)).await.expect("marked");
    replica.catch_up(&*stream, &mark).await;
    rig.stop(&role).await;
    (rig, role, replica, db)
}

/// Starts the agent again; answers the generation.
async fn finish(mut rig: Rig, role: handover::source_role::SourceRole, mut replica: Replica, db: Connection) -> u64 {
    let before = replica.payload_bytes;
    let stream = rig.start(&role).await;
    let plan = replica.seed(&*stream).await;
    if plan.generation == 1 {
        assert_eq!(replica.payload_bytes, before, "the seed was sent again");
    } else {
        assert!(plan.verify, "what the destination has must be compared");
        let sent = replica.payload_bytes - before;
        let whole = std::fs::metadata(rig.path()).expect("length").len();
        assert!(sent < whole / 2, "{sent} of {whole} bytes were sent again");
    }
    insert(&db, 5);
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
    let count: i64 = db.query_row("SELECT count(*) FROM ledger", [], |r| r.get(0)).expect("counted");
    assert_eq!(replica.ledger().len() as i64, count);
    plan.generation
}

fn reset(db: &Connection) {
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |r| r.get(0)).expect("checkpointed");
    assert_eq!(busy, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_reset_it_goes_on() {
    let (rig, role, replica, db) = stopped("").await;
    insert(&db, 20);
    assert_eq!(finish(rig, role, replica, db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_written_it_goes_on() {
    let (rig, role, replica, db) = stopped("").await;
    assert_eq!(finish(rig, role, replica, db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_frames_that_were_never_read_and_a_reset_it_verifies() {
    let (rig, role, replica, db) = stopped("").await;
    insert(&db, 3);
    reset(&db);
    insert(&db, 3);
    assert_ne!(finish(rig, role, replica, db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_reset_right_behind_it_goes_on() {
    // A longer WAL of before lies behind our frames, so it can be seen that ours were the last.
    let (rig, role, replica, db) = stopped("").await;
    let mut rig = rig;
    let mut replica = replica;
    let stream = rig.start(&role).await;
    replica.seed(&*stream).await;
    reset(&db);
    insert(&db, 2);
    let mark = rig.source.mark(&role, handover::Attempt(1)).await.expect("marked");
    replica.catch_up(&*stream, &mark).await;
    rig.stop(&role).await;
    // Backfilled by somebody, so that the next writer begins the WAL anew, and less long than ours.
    reset(&db);
    insert(&db, 1);
    let generation = finish(rig, role, replica, db).await;
    // Whether SQLite keeps our last frame depends on lengths; what matters is that nothing is missing either way.
    assert!(generation >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_resets_it_verifies() {
    let (rig, role, replica, db) = stopped("").await;
    for _ in 0..2 {
        reset(&db);
        insert(&db, 1);
    }
    assert_ne!(finish(rig, role, replica, db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_journal_size_limit_it_verifies() {
    let (rig, role, replica, db) = stopped("PRAGMA journal_size_limit=0").await;
    insert(&db, 3);
    reset(&db);
    insert(&db, 1);
    assert_ne!(finish(rig, role, replica, db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_connection_closed_it_verifies() {
    let (rig, role, replica, db) = stopped("").await;
    insert(&db, 3);
    db.close().expect("closed");
    assert!(!disk::exists(&disk::beside(&rig.path(), "-wal")).expect("examined"));
    let db = rig.connect();
    assert_ne!(finish(rig, role, replica, db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wal_that_lost_its_end_with_the_power_is_told_from_ours() {
    let (rig, role, replica, db) = stopped("").await;
    // As after a power cut with synchronous=NORMAL: the file without the last frames, and no index. An application
    // that is killed leaves just that.
    let wal = std::fs::read(disk::beside(&rig.path(), "-wal")).expect("read");
    let file = std::fs::read(rig.path()).expect("read");
    let frames = (wal.len() - 32) / 4120;
    db.close().expect("closed");
    std::fs::write(disk::beside(&rig.path(), "-wal"), &wal[..32 + 4120 * (frames - 4)]).expect("written");
    // In place: the incarnation is the same.
    use std::os::unix::fs::FileExt;
    let plain = crate::sqlite::files::open(&rig.path()).expect("open");
    drop(plain);
    std::fs::OpenOptions::new().write(true).open(rig.path()).expect("open").write_all_at(&file, 0).expect("written");
    let db = rig.connect();
    insert(&db, 8);
    assert_ne!(finish(rig, role, replica, db).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_with_the_agent_restarted_again_and_again() {
    let mut rig = Rig::new("PRAGMA journal_mode=wal").await;
    let apps =
        [App::start(&rig.path(), 1, "write pause=200"), App::start(&rig.path(), 2, "write truncate=99 pause=200")];
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let mut stream = stream;
    for _ in 0..6 {
        for _ in 0..5 {
            replica.log(&*stream, None).await.expect("log");
        }
        stream = rig.restart(&role).await;
        replica.seed(&*stream).await;
    }
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    let told = apps.map(App::join);
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_was_interrupted_is_not_sent_again() {
    let mut rig = Rig::new("PRAGMA page_size=4096; PRAGMA journal_mode=wal").await;
    rig.connect()
        .execute_batch(
            "CREATE TABLE big(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 90)
             INSERT INTO big SELECT randomblob(1000000) FROM n; PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .expect("filled");
    for loaded in [false, true] {
        let app = loaded.then(|| App::start(&rig.path(), 1, "write pause=500"));
        let db = rig.connect();
        insert(&db, 3);
        let (role, stream) = rig.begin(Kind::Move).await;
        let mut replica = Replica::new();
        let plan = replica.connect(&*stream).await;
        assert_eq!(plan.parts.len(), 2);
        replica.part(&*stream, &plan, 0, 40 << 20).await;
        replica.part(&*stream, &plan, 1, 3 << 20).await;
        let stream = rig.restart(&role).await;
        let again = replica.seed(&*stream).await;
        let whole: u64 = plan.parts.iter().map(|p| p.bytes).sum();
        if loaded {
            // Its checkpoints may have reset the WAL meanwhile; then pages are compared and not sent.
            assert!(replica.payload_bytes < whole + whole / 5, "{} of {whole} bytes sent", replica.payload_bytes);
        } else {
            assert_eq!((again.generation, &again.parts, &again.header), (plan.generation, &plan.parts, &plan.header));
            assert_eq!(replica.seed_bytes, whole, "every byte was sent once");
        }
        let (fenced, position) = rig.fence(&role, 1).await.expect("fenced");
        replica.catch_up(&*stream, &position).await;
        let told: Vec<_> = app.into_iter().map(App::join).collect();
        replica.assert_same(&rig.path());
        if loaded {
            replica.ledger();
            assert!(!told[0].is_empty());
        }
        let Phase::Fenced { saved, .. } = fenced.phase.clone() else { panic!("{:?}", fenced.phase) };
        let done = SourceRole { phase: Phase::CleaningUp { saved }, ..fenced };
        rig.source.cleanup(&done).await.expect("cleaned");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_lost_everything_gets_everything() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let app = App::start(&rig.path(), 1, "write");
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    for _ in 0..20 {
        replica.log(&*stream, None).await.expect("log");
        stream.confirm(replica.held.log.as_ref().expect("log")).await.expect("confirmed");
    }
    let mut replica = Replica::new();
    let plan = replica.seed(&*stream).await;
    assert!(!plan.verify, "there is nothing to compare");
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    let told = app.join();
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &[told]);
    // A position that nobody ever gave is refused, not obeyed.
    let odd = handover::Position::parse("7.00000001.00000002.7.00000000.00000000").expect("a text");
    assert!(matches!(stream.log(&odd, 1000, None).await, Err(crate::Error::LogLost(_))));
    let malformed = handover::Position::parse("x").expect("a text");
    assert!(matches!(SourceStream::log(&*stream, &malformed, 1000, None).await, Err(crate::Error::Corrupt(_))));
}
