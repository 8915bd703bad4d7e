//! Whole moves, with applications that do what applications do.

use super::{
    app::App,
    rig::{Replica, Rig, assert_nothing_lost},
};
use crate::source::SourceEngine;
use handover::Kind;
use std::time::Duration;

/// Moves a database under two applications and compares. Answers the replica.
async fn move_under(rig: &Rig, scripts: &[&str], transactions: usize) -> Replica {
    let apps: Vec<_> = scripts.iter().enumerate().map(|(i, s)| App::start(&rig.path(), i as u32 + 1, s)).collect();
    for app in &apps {
        app.wait_acknowledged(5);
    }
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    let count = |apps: &[App]| apps.iter().map(|a| a.acknowledged().len()).sum::<usize>();
    while count(&apps) < transactions {
        assert!(std::time::Instant::now() < until, "only {} transactions", count(&apps));
        replica.log(&*stream, None).await.expect("log");
        stream.confirm(replica.held.log.as_ref().expect("log")).await.expect("confirmed");
    }
    assert_eq!(replica.held.generation, 1);
    stream.settle().await.expect("settled");
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    let acknowledged: Vec<_> = apps.into_iter().map(App::join).collect();
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &acknowledged);
    let plan = stream.plan(&replica.held).await.expect("planned");
    assert_eq!(plan.generation, 1, "the log was never lost");
    assert!(replica.transactions > 0);
    replica
}

macro_rules! moves {
    ($($name:ident: $setup:expr, $transactions:expr, [$($script:expr),+];)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let rig = Rig::new($setup).await;
            move_under(&rig, &[$($script),+], $transactions).await;
        }
    )+};
}

moves! {
    plain: "PRAGMA journal_mode=wal", 3000, ["write", "write"];
    small_pages: "PRAGMA page_size=512; PRAGMA journal_mode=wal", 1500, ["write", "write pause=300"];
    large_pages: "PRAGMA page_size=65536; PRAGMA journal_mode=wal", 800, ["write pause=3000", "write pause=3000"];
    auto_vacuum: "PRAGMA auto_vacuum=full; PRAGMA journal_mode=wal", 1500, ["write", "write"];
    truncating: "PRAGMA journal_mode=wal", 1500, ["write truncate=50 pause=200", "write"];
    restarting: "PRAGMA journal_mode=wal", 1500, ["write restart=30 pause=200", "write full=41 passive=7"];
    vacuuming: "PRAGMA journal_mode=wal", 800, ["write vacuum=100 pause=200", "write"];
    reopening: "PRAGMA journal_mode=wal", 1000, ["write reopen=7 pause=100"];
    spilling: "PRAGMA journal_mode=wal", 600, ["write spill=5 rollback=10 pause=300", "write rollback=3 pause=300"];
    long_wal: "PRAGMA journal_mode=wal", 4000, ["write sql:PRAGMA+wal_autocheckpoint=0", "write sql:PRAGMA+wal_autocheckpoint=0"];
    relaxed: "PRAGMA journal_mode=wal", 4000, ["write sql:PRAGMA+synchronous=normal pause=1000", "write sql:PRAGMA+synchronous=off pause=1000"];
    size_limit: "PRAGMA journal_mode=wal", 1500, ["write sql:PRAGMA+journal_size_limit=20000 truncate=70", "write restart=31"];
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wal_stays_short_while_the_agent_rotates_it() {
    let rig = Rig::with("PRAGMA journal_mode=wal", |c| c.rotate_frames = 500).await;
    move_under(&rig, &["write sql:PRAGMA+wal_autocheckpoint=0"], 4000).await;
    let wal = std::fs::metadata(rig.dir.path().join("shop.db-wal")).expect("a WAL").len();
    // Without it, it would have all 40,000 frames or so; how close it stays depends on how busy the machine is.
    assert!(wal < 12_000 * 4120, "the WAL has {wal} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_bytes() {
    let rig = Rig::new("PRAGMA journal_mode=delete; VACUUM").await;
    {
        // There is no pragma for it: an empty database with the field set keeps it.
        let db = rig.connect();
        db.execute_batch("DROP TABLE ledger; DROP TABLE junk; VACUUM").expect("emptied");
        db.close().expect("closed");
        let mut bytes = std::fs::read(rig.path()).expect("read");
        bytes[20] = 32;
        bytes.truncate(4096);
        bytes[28..32].copy_from_slice(&1u32.to_be_bytes());
        bytes[32..40].fill(0);
        bytes[100..4096].fill(0);
        bytes[100] = 13;
        bytes[105..107].copy_from_slice(&4064u16.to_be_bytes());
        std::fs::write(rig.path(), bytes).expect("written");
        rig.connect()
            .execute_batch(
                "PRAGMA journal_mode=wal; CREATE TABLE ledger(id INTEGER PRIMARY KEY AUTOINCREMENT, who, body);
                 CREATE TABLE junk(id INTEGER PRIMARY KEY, body)",
            )
            .expect("made");
    }
    let replica = move_under(&rig, &["write"], 500).await;
    assert_eq!(std::fs::read(replica.path()).expect("read")[20], 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_killed_loses_nothing_it_was_told() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let mut told = vec![];
    for round in 0..8 {
        let app = App::start(&rig.path(), round + 1, "write spill=3 truncate=20");
        app.wait_acknowledged(20 + round as usize * 7);
        told.push(app.kill());
        // The next one recovers what the dead one left, and goes on.
    }
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &told);
    assert_eq!(stream.plan(&replica.held).await.expect("planned").generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_hold_stalls_no_checkpoint() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (_, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let db = rig.connect();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        db.execute_batch("INSERT INTO ledger(who) VALUES(1)").expect("written");
        let begin = std::time::Instant::now();
        let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0)).expect("checkpointed");
        assert_eq!(busy, 0);
        slowest = slowest.max(begin.elapsed());
    }
    // A hold that stood still would stall it for the whole busy timeout of 10 s.
    assert!(slowest < Duration::from_secs(1), "a checkpoint took {slowest:?}");
    let mark = rig.source.mark(&rig.role(Kind::Copy).await, handover::Attempt(1)).await.expect("marked");
    replica.catch_up(&*stream, &mark).await;
    assert_eq!(replica.ledger().len(), 100);
    assert_eq!(stream.plan(&replica.held).await.expect("planned").generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_ends_at_its_mark_and_the_source_goes_on() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let app = App::start(&rig.path(), 1, "write");
    app.wait_acknowledged(10);
    let (role, stream) = rig.begin(Kind::Copy).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let before = app.acknowledged();
    let mark = rig.source.mark(&role, handover::Attempt(1)).await.expect("marked");
    replica.catch_up(&*stream, &mark).await;
    assert_ne!(replica.last_commit, 0, "a mark is at the end of a transaction");
    let beyond = tokio::time::timeout(Duration::from_millis(200), stream.log(&mark, 1 << 20, Some(&mark))).await;
    assert!(beyond.is_err(), "log was given beyond the mark");
    let ids = replica.ledger();
    assert!(before.iter().all(|id| ids.contains(id)));
    let len = app.acknowledged().len();
    app.wait_acknowledged(len + 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_of_retained_log_ends_the_stream_and_lets_go() {
    let rig = Rig::with("PRAGMA journal_mode=wal", |c| {
        c.log_budget_bytes = 1 << 20;
        c.spool_segment_bytes = 128 << 10;
    })
    .await;
    let app = App::start(&rig.path(), 1, "write");
    let (_, stream) = rig.begin(Kind::Move).await;
    let plan = stream.plan(&Default::default()).await.expect("planned");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let error = loop {
        assert!(std::time::Instant::now() < until);
        match stream.log(&plan.log_start, 1000, None).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(e) => break e,
        }
    };
    assert_eq!(error.code(), "LOG_BUDGET_EXCEEDED");
    assert!(matches!(stream.plan(&Default::default()).await, Err(crate::Error::Budget { .. })));
    let len = app.acknowledged().len();
    app.wait_acknowledged(len + 10);
    app.kill();
    // Nothing of ours hinders it any more.
    let mode: String = rig.connect().query_row("PRAGMA journal_mode=DELETE", [], |r| r.get(0)).expect("answered");
    assert_eq!(mode, "delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_does_not_drop_the_locks_of_the_tail() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (role, stream) = rig.begin(Kind::Move).await;
    stream.plan(&Default::default()).await.expect("planned");
    for _ in 0..3 {
        rig.source.databases().await.expect("listed");
        rig.source.preflight(&rig.name, Kind::Move, Some(&role.operation)).await.expect("examined");
    }
    // Asked of the kernel: newer SQLites notice lost locks by other means, but an application may have an older one.
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata(rig.path()).expect("examined").ino();
    let locks = std::fs::read_to_string("/proc/locks").expect("read");
    let ours =
        |line: &&str| line.contains(&format!(" {} ", std::process::id())) && line.contains(&format!(":{inode} "));
    let shared = locks.lines().filter(ours).any(|line| line.contains("POSIX") && line.contains("READ"));
    assert!(shared, "the tail's lock on the database file is gone: {locks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_replaced_is_another_one() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let plan = stream.plan(&Default::default()).await.expect("planned");
    std::fs::copy(rig.path(), rig.dir.path().join("restored")).expect("copied");
    std::fs::rename(rig.dir.path().join("restored"), rig.path()).expect("renamed");
    let fenced = rig.fence(&role, 1).await;
    assert!(matches!(fenced, Err(crate::Error::Incarnation(_))), "{fenced:?}");
    let log = stream.log(&plan.log_start, 1000, None).await;
    assert!(matches!(log, Err(crate::Error::Incarnation(_))), "{log:?}");
    assert!(matches!(rig.source.open(&role).await.err(), Some(crate::Error::Incarnation(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wal_that_is_taken_away_makes_the_seed_be_verified() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    // As a restore in place would: everything stops, WAL and index go, the file is overwritten.
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(crate::sqlite::disk::beside(&rig.path(), suffix)).expect("removed");
    }
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while stream.seed_done().await.is_ok() {
        assert!(std::time::Instant::now() < until, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let app = App::start(&rig.path(), 1, "write");
    app.wait_acknowledged(50);
    let plan = replica.seed(&*stream).await;
    assert!(plan.generation > 1 && plan.verify);
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    let told = app.join();
    replica.assert_same(&rig.path());
    assert_nothing_lost(&replica.ledger(), &[told]);
}
