//! Databases with a rollback journal.

use super::{
    app::App,
    rig::{Replica, Rig, assert_nothing_lost},
};
use crate::{Error, source::SourceEngine};
use handover::{
    Attempt, Kind,
    source_role::{Phase, SourceRole},
};
use std::time::Duration;

const DELETE: &str = "PRAGMA journal_mode=delete";

async fn move_under(rig: &mut Rig, scripts: &[&str], restart: bool) {
    let apps: Vec<_> = scripts.iter().enumerate().map(|(i, s)| App::start(&rig.path(), i as u32 + 1, s)).collect();
    for app in &apps {
        app.wait_acknowledged(3);
    }
    let (role, mut stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    let plan = replica.connect(&*stream).await;
    replica.part(&*stream, &plan, 0, 1 << 19).await;
    if restart {
        stream = rig.restart(&role).await;
    }
    replica.seed(&*stream).await;
    for _ in 0..3 {
        replica.log(&*stream, None).await.expect("log");
    }
    if restart {
        stream = rig.restart(&role).await;
        replica.seed(&*stream).await;
    }
    let (fenced, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    let mut told: Vec<_> = apps.into_iter().map(App::join).collect();
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &told);
    assert_eq!(replica.held.generation, 1);

    // An aborted attempt: it opens again, goes on, and is fenced a second time.
    let next = SourceRole { phase: Phase::Replicating, floor: Attempt(1), ..fenced.clone() };
    rig.source.unfence(&fenced, &next).await.expect("open again");
    let app = App::start(&rig.path(), 9, scripts[0]);
    app.wait_acknowledged(20);
    let (_, position) = rig.fence(&role, 2).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    told.push(app.join());
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move() {
    move_under(&mut Rig::new(DELETE).await, &["write pause=500", "write pause=500"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_with_restarts_of_the_agent() {
    move_under(&mut Rig::new("PRAGMA journal_mode=truncate").await, &["write pause=500"], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_under_vacuum() {
    move_under(&mut Rig::new("PRAGMA page_size=1024").await, &["write vacuum=40 pause=500", "write rollback=3"], false)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_come_back_after_a_shrink_are_sent_again() {
    let rig = Rig::new(DELETE).await;
    let (role, stream) = rig.begin(Kind::Copy).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let db = rig.connect();
    let fill = "CREATE TABLE big(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300)
                INSERT INTO big SELECT zeroblob(3000) FROM n";
    for attempt in 1..4 {
        db.execute_batch(fill).expect("filled");
        let mark = rig.source.mark(&role, Attempt(attempt * 2)).await.expect("marked");
        replica.catch_up(&*stream, &mark).await;
        replica.assert_same(&rig.path());
        db.execute_batch("DROP TABLE big; VACUUM").expect("emptied");
        let mark = rig.source.mark(&role, Attempt(attempt * 2 + 1)).await.expect("marked");
        replica.catch_up(&*stream, &mark).await;
        replica.assert_same(&rig.path());
    }
    replica.ledger();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_does_not_end_makes_it_busy() {
    let rig = Rig::new(DELETE).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    for script in ["hold", "read"] {
        // A reader hinders the commit of a fence here, as it hinders everybody's.
        let app = App::start(&rig.path(), 1, script);
        app.wait_for("ready");
        let phase = Phase::Fencing { attempt: Attempt(1), saved: String::new() };
        let mut fencing = SourceRole { phase, ..role.clone() };
        let busy = rig.source.fence(&mut fencing, Duration::from_millis(200)).await;
        assert!(matches!(busy, Err(Error::Busy(_))), "{script}: {busy:?}");
        app.kill();
        rig.connect().execute_batch("INSERT INTO ledger(who) VALUES(1)").expect("open as before");
    }
    let (_, position) = rig.fence(&role, 2).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
    assert_eq!(replica.ledger().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_to_wal_makes_the_seed_be_verified() {
    let rig = Rig::new(DELETE).await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let app = App::start(&rig.path(), 1, "write sql:PRAGMA+journal_mode=wal");
    app.wait_acknowledged(20);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let plan = loop {
        assert!(std::time::Instant::now() < until, "nobody noticed");
        match stream.plan(&replica.held).await {
            Ok(plan) if plan.generation > 1 => break plan,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(plan.verify);
    replica.seed(&*stream).await;
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    let told = app.join();
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &[told]);
}

#[test]
fn a_page_of_which_two_images_were_sent_is_sent_a_third_time() {
    use crate::sqlite::source::hashes::{Hashes, hash};
    let dir = tempfile::tempdir().expect("a directory");
    let hashes = Hashes::open(dir.path(), 1, false).expect("open");
    let (a, b) = (hash(b"a"), hash(b"b"));
    hashes.seeded(3, &[a, a, a]).expect("noted");
    hashes.seeded(4, &[a, b]).expect("noted");
    let known = hashes.get(3, 3).expect("read");
    assert_eq!(known[..2], [a, a]);
    assert!(known[2] != a && known[2] != b, "it is not known which one arrived");
    hashes.seeded(5, &[b]).expect("noted");
    assert_ne!(hashes.get(5, 1).expect("read"), [b]);
    hashes.logged(5, &[b]).expect("noted");
    assert_eq!(hashes.get(5, 1).expect("read"), [b]);
    // A newer agent begins with a copy.
    let newer = Hashes::open(dir.path(), 2, true).expect("open");
    hashes.logged(3, &[b]).expect("noted");
    assert_eq!(newer.get(3, 1).expect("read"), [a]);
    newer.truncate(4).expect("cut");
    assert_eq!(newer.get(3, 2).expect("read"), [a, 0]);
}
