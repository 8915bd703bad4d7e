//! The log: up to a mark, with its budget, and with DDL noticed.

use super::rig::{Rig, SHOP, extras, has, read_log};
use crate::{
    Error,
    postgres::{OnDdl, payload::Extra, position::Point},
    source::{Held, LogBatch, SourceEngine as _, SourceStream},
};
use handover::{Attempt, Kind, Position};
use std::time::Duration;

const TABLES: &str = "CREATE TABLE t(id int PRIMARY KEY, v text); CREATE SEQUENCE s; SELECT nextval('s');
    CREATE UNLOGGED TABLE u(a int); SELECT lo_create(70001); SELECT lo_create(70002)";

#[tokio::test]
async fn a_mark_is_one_consistent_point() {
    let mut rig = Rig::new(TABLES).await;
    let role = rig.begin(Kind::Copy).await;
    let (stream, seed) = rig.seeded().await;
    rig.cluster
        .run(SHOP, "INSERT INTO t VALUES (1, 'before'); INSERT INTO u VALUES (1); SELECT lo_put(70001, 0, 'before')")
        .await;
    rig.cluster.run(SHOP, "SELECT lo_unlink(70002); SELECT setval('s', 77, false)").await;
    // A transaction that is open at the mark belongs behind it. It has not written yet, else the mark would wait for it.
    let open = rig.cluster.client(SHOP).await.expect("connect");
    open.batch_execute("BEGIN; SELECT * FROM t").await.expect("read");
    let end = rig.source.mark(&role, Attempt(1)).await.expect("mark");
    open.batch_execute(
        "INSERT INTO t VALUES (2, 'behind'); INSERT INTO u VALUES (2); SELECT lo_put(70001, 0, 'behind'); COMMIT",
    )
    .await
    .expect("write");
    let batches = read_log(&*stream, seed.plan.log_resume.clone(), &end).await;
    let all: Vec<u8> = batches.iter().flat_map(|batch| batch.payload.to_vec()).collect();
    assert!(has(&all, "before") && !has(&all, "behind"));
    let (extras, _) = extras(&batches);
    let sequences = extras.iter().find_map(|(extra, _)| match extra {
        Extra::Sequences(sequences) => Some(sequences.clone()),
        _ => None,
    });
    let sequence = &sequences.expect("sequences are told")[0];
    assert_eq!((sequence.last_value, sequence.is_called), (77, false));
    assert!(extras.iter().any(|(extra, _)| *extra == Extra::LargeObjectList(vec![70001])));
    let unlogged = extras.iter().find(|(extra, _)| matches!(extra, Extra::Unlogged { .. })).expect("it is told");
    assert_eq!(unlogged.1.len(), 2 + 4 + 4, "one row");
    assert!(matches!(extras.last(), Some((Extra::Catalog(lines), _)) if lines.len() > 5));

    // The same again, from the middle; then the mark is given up and the log goes on behind it.
    let again = read_log(&*stream, batches[batches.len() - 2].from.clone(), &end).await;
    let payloads = |batches: &[crate::source::LogBatch]| -> Vec<_> {
        batches.iter().map(|batch| (batch.from.clone(), batch.to.clone(), batch.payload.clone())).collect()
    };
    assert_eq!(payloads(&again), payloads(&batches[batches.len() - 2..]));
    let on = stream.log(&end, 1 << 20, None).await.expect("read log");
    assert_eq!(on.from, end);
    assert!(Point::read(&on.to).expect("a point") > Point::read(&end).expect("a point"));
    let mut on = on;
    while !has(&on.payload, "behind") {
        on = stream.log(&on.to, 1 << 20, None).await.expect("read log");
    }
    let second = rig.source.mark(&role, Attempt(2)).await.expect("mark again");
    read_log(&*stream, on.to, &second).await;
    rig.release(2).await.expect("release");
    rig.source.remove_role(&role.operation, role.version).await.expect("forget");
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_mark_that_died_with_its_server_is_told_and_taken_again() {
    let mut rig = Rig::new(TABLES).await;
    let role = rig.begin(Kind::Copy).await;
    let (stream, seed) = rig.seeded().await;
    let end = rig.source.mark(&role, Attempt(1)).await.expect("mark");
    rig.cluster.crash();
    rig.cluster.up();
    let held = Held { seeded: true, ..seed.held(Some(seed.plan.log_resume.clone())) };
    let lost = until_end(&*stream, &held, &end).await;
    assert!(matches!(lost, Err(Error::PointLost(_))), "{lost:?}");
    rig.cluster.run(SHOP, "INSERT INTO t VALUES (1, 'later')").await;
    let second = rig.source.mark(&role, Attempt(1)).await.expect("mark again");
    let batches = until_end(&*stream, &held, &second).await.expect("the new mark is read");
    assert!(batches.iter().any(|batch| has(&batch.payload, "later")));
    assert!(matches!(extras(&batches).0.last(), Some((Extra::Catalog(_), _))));
}

/// The log up to a mark, as the agent reads it: each error that may pass, such as that of a session which died, leads to a plan
/// and another try.
async fn until_end(stream: &dyn SourceStream, held: &Held, end: &Position) -> Result<Vec<LogBatch>, Error> {
    let mut tries = 0;
    loop {
        let read = async {
            let (mut at, mut batches) = (stream.plan(held).await?.log_resume, vec![]);
            while at != *end {
                let batch = stream.log(&at, 1 << 20, Some(end)).await?;
                at = batch.to.clone();
                batches.push(batch);
            }
            Ok::<_, Error>(batches)
        };
        match read.await {
            Err(error) if error.retryable() && !matches!(error, Error::PointLost(_)) && tries < 100 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other,
        }
    }
}

#[tokio::test]
async fn at_the_cap_the_stream_ends() {
    let mut rig = Rig::new(TABLES).await;
    rig.setup.log_budget_bytes = 4 << 20;
    rig.restart().await;
    rig.begin(Kind::Move).await;
    let (stream, seed) = rig.seeded().await;
    stream.health().await.expect("there is nothing to retain yet");
    let backlog = stream.backlog(&seed.plan.log_resume).await.expect("measure");
    assert_eq!(backlog.budget_bytes, 4 << 20);
    rig.cluster.run(SHOP, "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 10000) n").await;
    assert!(matches!(stream.health().await, Err(Error::Budget { .. })));
    assert!(matches!(stream.log(&seed.plan.log_resume, 1 << 20, None).await, Err(Error::Budget { .. })));
}

#[tokio::test]
async fn a_slot_that_the_server_gave_up_is_over_budget() {
    let mut rig = Rig::with("max_slot_wal_keep_size = 1MB\nmin_wal_size = 32MB\nmax_wal_size = 32MB", TABLES).await;
    rig.begin(Kind::Move).await;
    let (stream, _) = rig.seeded().await;
    for _ in 0..3 {
        rig.cluster.run(SHOP, "SELECT pg_switch_wal(); INSERT INTO u VALUES (1); UPDATE t SET v = ''; CREATE TEMP TABLE x AS SELECT txid_current(); SELECT pg_switch_wal()").await;
    }
    rig.cluster.run(SHOP, "CHECKPOINT").await;
    let ended = stream.health().await.expect_err("the slot is lost");
    assert_eq!((ended.code(), ended.retryable()), ("SLOT_INVALIDATED", false), "{ended}");
}

#[tokio::test]
async fn a_disk_that_fills_lowers_the_cap() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    rig.disk.tell(Some(1 << 30)).await;
    let (stream, seed) = rig.seeded().await;
    let budget = |backlog: crate::source::Backlog| backlog.budget_bytes;
    let cap = budget(stream.backlog(&seed.plan.log_resume).await.expect("measure"));
    assert!((204 << 20..256 << 20).contains(&cap), "a fifth of a gigabyte: {cap}");
    rig.disk.tell(None).await;
    assert_eq!(budget(stream.backlog(&seed.plan.log_resume).await.expect("measure")), 10 << 30, "bytes alone");
    // Somebody else fills it.
    rig.disk.tell(Some(1 << 20)).await;
    rig.cluster.run(SHOP, "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 10000) n").await;
    assert!(matches!(stream.health().await, Err(Error::Budget { .. })));
}

#[tokio::test]
async fn a_lost_slot_begins_a_new_generation() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (stream, seed) = rig.seeded().await;
    drop(stream);
    rig.restart().await;
    rig.cluster.run("postgres", &format!("SELECT pg_drop_replication_slot('{}')", rig.names().slot)).await;
    let stream = rig.open().await;
    let plan = stream.plan(&seed.held(None)).await.expect("plan");
    assert_eq!(plan.generation, 2);
    drop(stream);
    // The server restarts before that seed is sent: the snapshot is gone, the slot is not.
    rig.cluster.crash();
    rig.cluster.up();
    let stream = rig.open().await;
    let plan = stream.plan(&Held { generation: 2, ..Held::default() }).await.expect("plan");
    assert_eq!(plan.generation, 3);
}

#[tokio::test]
async fn a_whole_seed_needs_no_snapshot() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let stream = rig.open().await;
    let seed = super::rig::Seed::read(&*stream, &Held::default()).await;
    drop(stream);
    rig.cluster.crash();
    rig.cluster.up();
    let stream = rig.open().await;
    // All parts are there, and its indexes are still being built.
    let held = Held { seeded: false, ..seed.held(None) };
    assert_eq!(stream.plan(&held).await.expect("plan"), seed.plan);
    stream.seed_done().await.expect("nothing is missing");
    rig.cluster.run(SHOP, "INSERT INTO t VALUES (1, 'logged')").await;
    let log = tokio::time::timeout(Duration::from_secs(10), stream.log(&seed.plan.log_resume, 1 << 20, None));
    log.await.expect("log arrives").expect("read log");
}

#[tokio::test]
async fn with_the_other_policy_ddl_ends_the_operation() {
    let mut rig = Rig::new(TABLES).await;
    rig.setup.on_ddl = OnDdl::Cancel;
    rig.restart().await;
    rig.begin(Kind::Move).await;
    let (stream, seed) = rig.seeded().await;
    rig.cluster.run(SHOP, "CREATE TEMP TABLE x(a int); INSERT INTO t VALUES (1, 'a')").await;
    let batch = stream.log(&seed.plan.log_resume, 1 << 20, None).await.expect("temporary tables pass");
    rig.cluster.run(SHOP, "ALTER TABLE t ADD x float DEFAULT random()").await;
    let mut at = batch.to;
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.log(&at, 1 << 20, None)).await.expect("log arrives")
        {
            Ok(batch) => at = batch.to,
            Err(error) => break error,
        }
    };
    assert!(error.code() == "DDL" && error.to_string().contains("public.t"), "{error}");
    assert!(stream.health().await.is_err_and(|error| error.code() == "DDL"));
    rig.cleanup().await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_neighbours_write_is_not_lag() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (stream, seed) = rig.seeded().await;
    rig.cluster.run(SHOP, "INSERT INTO t VALUES (1, 'a')").await;
    let batch = stream.log(&seed.plan.log_resume, 1 << 20, None).await.expect("read log");
    let before = stream.backlog(&seed.plan.log_resume).await.expect("measure");
    assert!(before.bytes > 0 && before.oldest_ms > 0, "{before:?}");
    rig.cluster.run("postgres", "CREATE TABLE noise AS SELECT n FROM generate_series(1, 20000) n").await;
    for _ in 0..50 {
        let backlog = stream.backlog(&batch.to).await.expect("measure");
        if backlog.bytes == 0 {
            assert_eq!(backlog.oldest_ms, 0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?}", stream.backlog(&batch.to).await);
}
