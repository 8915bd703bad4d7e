//! An agent that was down while its fence stood: nobody can have written, so the seed needs no verification, whatever
//! became of the WAL.

use super::rig::{Replica, Rig};
use crate::{
    source::SourceEngine,
    sqlite::{disk, source::fence},
};
use handover::{
    Attempt, Kind, Position,
    source_role::{Phase, SourceRole},
};
use rusqlite::Connection;

fn insert(db: &Connection, count: usize) {
    for _ in 0..count {
        db.execute_batch("INSERT INTO ledger(who, body) VALUES(1, randomblob(3000))").expect("written");
    }
}

struct Down {
    rig: Rig,
    replica: Replica,
    fenced: SourceRole,
    position: Position,
}

/// Fenced with the agent down, and nobody connected any more: the last one took the WAL with it.
async fn down(caught_up: bool) -> Down {
    let mut rig = Rig::new("PRAGMA journal_mode=wal").await;
    let db = rig.connect();
    insert(&db, 10);
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    insert(&db, 20);
    let (fenced, position) = rig.fence(&role, 1).await.expect("fenced");
    if caught_up {
        replica.catch_up(&*stream, &position).await;
    }
    drop(stream);
    rig.stop(&role).await;
    drop(db);
    rig.connect().query_row("SELECT count(*) FROM ledger", [], |_| Ok(())).expect("readable");
    assert!(!disk::exists(&disk::beside(&rig.path(), "-wal")).expect("examined"), "the WAL is to be gone");
    Down { rig, replica, fenced, position }
}

/// Starts the agent with `role`, takes what is missing, opens the source and completes with another attempt.
async fn goes_on(down: Down, role: &SourceRole) -> u64 {
    let Down { mut rig, mut replica, position, .. } = down;
    let before = replica.payload_bytes;
    let stream = rig.start(role).await;
    let plan = replica.connect(&*stream).await;
    if plan.generation == 1 {
        assert!(!plan.verify && replica.held.seeded, "nothing is compared and nothing seeded again");
        assert_eq!(replica.payload_bytes, before);
        replica.catch_up(&*stream, &position).await;
        replica.assert_same(&rig.path());
    } else {
        assert!(plan.verify);
        replica.seed(&*stream).await;
    }
    let next = SourceRole { phase: Phase::Replicating, floor: Attempt(1), ..role.clone() };
    rig.source.unfence(role, &next).await.expect("open again");
    let db = rig.connect();
    insert(&db, 20);
    let (_, position) = rig.fence(&next, 2).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
    let count: i64 = db.query_row("SELECT count(*) FROM ledger", [], |row| row.get(0)).expect("counted");
    assert_eq!(replica.ledger().len() as i64, count);
    plan.generation
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wal_that_is_gone_is_joined_under_the_fence() {
    for caught_up in [true, false] {
        let down = down(caught_up).await;
        let fenced = down.fenced.clone();
        assert_eq!(goes_on(down, &fenced).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_when_the_agent_died_before_it_recorded_the_position() {
    let down = down(true).await;
    let Phase::Fenced { attempt, saved, .. } = down.fenced.phase.clone() else { panic!("{:?}", down.fenced) };
    let fencing = SourceRole { phase: Phase::Fencing { attempt, saved }, ..down.fenced.clone() };
    assert_eq!(goes_on(down, &fencing).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_opens_and_reopens_at_once_joins_before_it_opens() {
    let Down { mut rig, mut replica, fenced, .. } = down(true).await;
    // The stream's thread has hardly begun when the fence is to be lifted, and an application writes right after it.
    let stream = rig.start(&fenced).await;
    let next = SourceRole { phase: Phase::Replicating, floor: Attempt(1), ..fenced.clone() };
    rig.source.unfence(&fenced, &next).await.expect("open again");
    insert(&rig.connect(), 20);
    assert_eq!(replica.connect(&*stream).await.generation, 1);
    let (_, position) = rig.fence(&next, 2).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_restart_under_the_same_fence_joins_again() {
    let mut down = down(true).await;
    for _ in 0..2 {
        let stream = down.rig.start(&down.fenced).await;
        assert_eq!(down.replica.connect(&*stream).await.generation, 1);
        drop(stream);
        down.rig.stop(&down.fenced).await;
    }
    let fenced = down.fenced.clone();
    assert_eq!(goes_on(down, &fenced).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_fence_a_fenced_role_proves_nothing() {
    let down = down(true).await;
    // As by hand, or by an agent that died before it recorded what it had done.
    fence::lift(&down.rig.path(), &|| Ok(())).expect("lifted");
    insert(&down.rig.connect(), 3);
    let fenced = down.fenced.clone();
    assert_eq!(goes_on(down, &fenced).await, 2, "what was written meanwhile has to be found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_reach_the_fence_proves_nothing() {
    // As after a power cut, which took the end of a log that is not synced and that the destination has not got yet.
    let down = down(false).await;
    let spool = down.rig.dir.path().join(".causeway/source/spool").join(down.fenced.operation.as_str());
    for path in disk::list(&spool).expect("listed") {
        if path.extension().is_some_and(|extension| extension == "log") {
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
            let len = file.metadata().expect("length").len();
            file.set_len(len / 2).expect("cut");
        }
    }
    let fenced = down.fenced.clone();
    assert_eq!(goes_on(down, &fenced).await, 2);
}
