//! Fencing: against open writers, old readers, crashes, stale connections, and other agents.

use super::{
    app::App,
    rig::{Replica, Rig, assert_nothing_lost},
};
use crate::{
    Error,
    host::RealHost,
    source::SourceEngine,
    sqlite::{source::SqliteSource, store::Half, store::Store},
};
use handover::{
    Attempt, Kind,
    source_role::{Phase, SourceRole},
};
use rusqlite::{Connection, ErrorCode};
use std::{sync::Arc, time::Duration};

const WAL: &str = "PRAGMA journal_mode=wal";

fn insert(db: &Connection) -> Result<(), ErrorCode> {
    db.execute_batch("INSERT INTO ledger(who) VALUES(1)").map_err(|e| e.sqlite_error_code().expect("a code"))
}

fn fencing(role: &SourceRole, attempt: u32) -> SourceRole {
    SourceRole { phase: Phase::Fencing { attempt: Attempt(attempt), saved: String::new() }, ..role.clone() }
}

async fn unfence(rig: &Rig, fenced: &SourceRole) {
    let next = SourceRole { phase: Phase::Replicating, floor: Attempt(1), ..fenced.clone() };
    rig.source.unfence(fenced, &next).await.expect("open again");
    rig.source.unfence(fenced, &next).await.expect("open again, twice");
    assert_eq!(rig.source.roles().await.expect("roles"), [next]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_does_not_end_makes_it_busy_and_leaves_it_open() {
    let rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let app = App::start(&rig.path(), 1, "hold");
    app.wait_for("ready");
    let begin = std::time::Instant::now();
    let busy = rig.source.fence(&mut fencing(&role, 1), Duration::from_millis(300)).await;
    assert!(matches!(busy, Err(Error::Busy(_))), "{busy:?}");
    assert!(begin.elapsed() >= Duration::from_millis(300) && begin.elapsed() < Duration::from_secs(3));
    app.kill();
    insert(&rig.connect()).expect("open as before");
    let (_, position) = rig.fence(&role, 2).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
    assert_eq!(replica.ledger().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_ends_within_the_grace_is_waited_for() {
    let rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let db = rig.connect();
    db.execute_batch("BEGIN IMMEDIATE; INSERT INTO ledger(who) VALUES(1)").expect("begun");
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        db.execute_batch("COMMIT").expect("committed");
        insert(&db)
    });
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    let after = writer.join().expect("joined");
    assert!(after.is_ok() || after == Err(ErrorCode::ReadOnly));
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
    assert_eq!(replica.ledger().len(), 1 + usize::from(after.is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_does_not_hinder_it_and_everybody_is_refused() {
    let rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let reader = App::start(&rig.path(), 1, "read");
    reader.wait_for("ready");
    let (before, impatient) = (rig.connect(), rig.connect());
    impatient.busy_timeout(Duration::ZERO).expect("set");
    insert(&before).expect("written");
    insert(&impatient).expect("written");
    let (fenced, position) = rig.fence(&role, 1).await.expect("fenced");
    assert_eq!(insert(&before), Err(ErrorCode::ReadOnly));
    assert_eq!(insert(&impatient), Err(ErrorCode::ReadOnly));
    assert_eq!(insert(&rig.connect()), Err(ErrorCode::ReadOnly));
    let count: i64 = rig.connect().query_row("SELECT count(*) FROM ledger", [], |r| r.get(0)).expect("readable");
    assert_eq!(count, 2);

    // The same call again, with the reply lost: the same position.
    let mut again = fencing(&role, 1);
    let twice = rig.source.fence(&mut again, Duration::from_secs(1)).await.expect("fenced");
    replica.catch_up(&*stream, &twice).await;
    assert!(matches!(&again.phase, Phase::Fencing { saved, .. } if saved.contains("\"write_version\":2")));
    drop((position, fenced));
    replica.assert_same(&rig.path());
    assert_eq!(replica.ledger().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_ends_before_the_fence_and_goes_on_after_it_is_lifted() {
    let rig = Rig::new(WAL).await;
    let app = App::start(&rig.path(), 1, "write pause=300");
    app.wait_acknowledged(20);
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let (fenced, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    let mut told = vec![app.join()];
    replica.assert_same(&rig.path());
    let beyond = tokio::time::timeout(Duration::from_millis(300), stream.log(&position, 1 << 20, None)).await;
    assert!(beyond.is_err(), "log was given beyond the fence: {beyond:?}");
    assert_eq!(stream.backlog(&position).await.expect("backlog").bytes, 0);

    let stale = rig.connect();
    assert_eq!(insert(&stale), Err(ErrorCode::ReadOnly));
    unfence(&rig, &fenced).await;
    assert_eq!(insert(&stale), Err(ErrorCode::ReadOnly), "SQLite remembers; if it ever forgets, tell so in the docs");
    let again = App::start(&rig.path(), 2, "write truncate=30");
    again.wait_acknowledged(100);
    let (_, position) = rig.fence(&role, 2).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    told.push(again.join());
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &told);
    assert_eq!(stream.plan(&replica.held).await.expect("planned").generation, 1, "no new seed was needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_survives_everybody_and_can_be_lifted_with_nobody_connected() {
    let mut rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    stream.plan(&Default::default()).await.expect("planned");
    let (fenced, _) = rig.fence(&role, 1).await.expect("fenced");
    rig.stop(&role).await;
    // The last connection checkpoints the fence into the main file and removes the WAL.
    rig.connect().execute_batch("SELECT count(*) FROM ledger; PRAGMA wal_checkpoint(TRUNCATE)").expect("read");
    assert!(!rig.files().contains(&"shop.db-wal".to_owned()), "{:?}", rig.files());
    assert_eq!(std::fs::read(rig.path()).expect("read")[18], 3);
    assert_eq!(insert(&rig.connect()), Err(ErrorCode::ReadOnly));

    rig.source = SqliteSource::new(rig.config.clone(), Arc::new(RealHost));
    rig.source.take_over().await.expect("the lock");
    unfence(&rig, &fenced).await;
    insert(&rig.connect()).expect("open again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_right_after_the_commit_leaves_one_position() {
    let mut rig = Rig::new(WAL).await;
    let app = App::start(&rig.path(), 1, "write");
    app.wait_acknowledged(20);
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let mut lost = fencing(&role, 1);
    rig.source.fence(&mut lost, Duration::from_secs(5)).await.expect("fenced");
    // The agent dies before it records Fenced; what it recorded has all that is needed to open again.
    let stream = rig.restart(&role).await;
    let recorded = rig.source.roles().await.expect("roles").remove(0);
    assert_eq!(recorded, lost);
    let mut again = recorded.clone();
    let position = rig.source.fence(&mut again, Duration::from_secs(5)).await.expect("still fenced");
    // The application may have been the last to close the WAL meanwhile; then the seed is verified.
    replica.seed(&*stream).await;
    replica.catch_up(&*stream, &position).await;
    let told = app.join();
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &[told]);
    unfence(&rig, &recorded).await;
    insert(&rig.connect()).expect("open again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_fenced_gives_nothing_beyond_the_position() {
    let mut rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    insert(&rig.connect()).expect("written");
    let (fenced, position) = rig.fence(&role, 1).await.expect("fenced");
    // The tail reads the frame of the fence itself, but does not give it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stream = rig.restart(&fenced).await;
    replica.connect(&*stream).await;
    replica.catch_up(&*stream, &position).await;
    let beyond = tokio::time::timeout(Duration::from_millis(200), stream.log(&position, 1 << 20, None)).await;
    assert!(beyond.is_err(), "log was given beyond the fence: {beyond:?}");
    unfence(&rig, &fenced).await;
    insert(&rig.connect()).expect("open again");
    let (_, position) = rig.fence(&role, 2).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
    assert_eq!((replica.ledger().len(), replica.held.generation), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn truncating_checkpoints_do_not_fight_with_the_fence() {
    let rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let mut told = vec![];
    for attempt in 1..6 {
        let app = App::start(&rig.path(), attempt, "write truncate=2");
        app.wait_acknowledged(30);
        let (fenced, position) = rig.fence(&role, attempt).await.expect("fenced");
        replica.catch_up(&*stream, &position).await;
        told.push(app.join());
        replica.assert_same(&rig.path());
        let next = SourceRole { floor: Attempt(attempt), phase: Phase::Replicating, ..fenced.clone() };
        rig.source.unfence(&fenced, &next).await.expect("open again");
    }
    assert_nothing_lost(&replica.ledger(), &told);
    assert_eq!(replica.held.generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_superseded_fences_nothing() {
    let rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    stream.plan(&Default::default()).await.expect("planned");
    // It gives no sign of life, as if it were stopped, until another one has taken over.
    let newer = Arc::new(Store::new(rig.dir.path(), Half::Source, Duration::from_millis(200), Arc::new(RealHost)));
    newer.take_over().await.expect("taken over");
    let refused = rig.source.fence(&mut fencing(&role, 1), Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");
    insert(&rig.connect()).expect("open");
    let role = SourceRole { phase: Phase::CleaningUp { saved: String::new() }, ..role };
    assert!(matches!(rig.source.cleanup(&role).await, Err(Error::Superseded { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_superseded_while_it_waits_for_a_writer_fences_nothing() {
    for setup in [WAL, "PRAGMA journal_mode=delete"] {
        let rig = Rig::new(setup).await;
        let (role, stream) = rig.begin(Kind::Move).await;
        stream.plan(&Default::default()).await.expect("planned");
        let db = rig.connect();
        db.execute_batch("BEGIN IMMEDIATE; INSERT INTO ledger(who) VALUES(1)").expect("begun");
        let (source, mut role) = (rig.source.clone(), fencing(&role, 1));
        let waiting = tokio::spawn(async move { source.fence(&mut role, Duration::from_secs(10)).await });
        // The role is recorded, so all that is left to it is the lock.
        while !rig
            .source
            .roles()
            .await
            .expect("roles")
            .iter()
            .any(|r| matches!(&r.phase, Phase::Fencing { saved, .. } if !saved.is_empty()))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let newer = Arc::new(Store::new(rig.dir.path(), Half::Source, Duration::from_millis(200), Arc::new(RealHost)));
        newer.take_over().await.expect("taken over");
        db.execute_batch("COMMIT").expect("committed");
        let refused = waiting.await.expect("joined");
        assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");
        insert(&rig.connect()).expect("open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_fence_is_left_alone() {
    let rig = Rig::new(WAL).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    stream.plan(&Default::default()).await.expect("planned");
    let db = rig.connect();
    let mut page: Vec<u8> =
        db.query_row("SELECT data FROM sqlite_dbpage WHERE pgno=1", [], |r| r.get(0)).expect("page");
    page[18] = 3;
    db.execute("UPDATE sqlite_dbpage SET data=?1 WHERE pgno=1", [page]).expect("fenced");
    let refused = rig.source.fence(&mut fencing(&role, 1), Duration::from_secs(1)).await;
    assert_eq!(refused.expect_err("refused").code(), "UNSUPPORTED_HEADER");
    let role = SourceRole { phase: Phase::CleaningUp { saved: String::new() }, ..role };
    rig.source.cleanup(&role).await.expect("cleaned");
    assert_eq!(insert(&rig.connect()), Err(ErrorCode::ReadOnly), "not ours to lift");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_exclusive_mode_makes_it_busy() {
    let rig = Rig::new(WAL).await;
    let role = rig.role(Kind::Move).await;
    // It came after the preflight. Later it could not have: beside our connections nobody gets the database for himself.
    let app = App::start(&rig.path(), 1, "write sql:PRAGMA+locking_mode=exclusive");
    app.wait_acknowledged(5);
    rig.source.begin(&role).await.expect("begun");
    let stream = rig.source.open(&role).await.expect("open");
    let busy = stream.plan(&Default::default()).await;
    assert!(matches!(busy, Err(Error::Busy(_))), "{busy:?}");
    let busy = rig.source.fence(&mut fencing(&role, 1), Duration::from_millis(300)).await;
    assert!(matches!(busy, Err(Error::Busy(_))), "{busy:?}");
    let len = app.acknowledged().len();
    app.wait_acknowledged(len + 5);
    app.kill();
    stream.plan(&Default::default()).await.expect("planned");
}
