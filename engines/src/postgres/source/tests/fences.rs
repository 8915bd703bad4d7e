//! The fence: nobody writes behind it, whoever crashes, and it can be lifted.

use super::rig::{Rig, SHOP, extras, has, read_log};
use crate::{
    Error,
    host::RealHost,
    postgres::{payload::Extra, testing::bin},
    source::SourceEngine as _,
};
use handover::{
    Attempt, Kind,
    source_role::{Event, Phase, step},
};
use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

const TABLES: &str = "CREATE TABLE t(id serial PRIMARY KEY, v text); ALTER TABLE t OWNER TO app;
    CREATE UNLOGGED TABLE u(a int); INSERT INTO u VALUES (1); CREATE SEQUENCE restarted; SELECT nextval('restarted')";
const GRACE: Duration = Duration::from_millis(300);

async fn refused(rig: &Rig) -> bool {
    rig.cluster.client(SHOP).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_behind_a_fence() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (stream, seed) = rig.seeded().await;
    let acknowledged = Arc::new(std::sync::Mutex::new(vec![]));
    let mut writers = vec![];
    for writer in 0..8 {
        let client = rig.cluster.client(SHOP).await.expect("connect");
        let acknowledged = acknowledged.clone();
        writers.push(tokio::spawn(async move {
            for number in 0.. {
                let value = format!("w{writer}-{number}.");
                if client.execute("INSERT INTO t(v) VALUES ($1)", &[&value]).await.is_err() {
                    return;
                }
                acknowledged.lock().expect("held for a moment").push(value);
            }
        }));
    }
    while acknowledged.lock().expect("held for a moment").len() < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.cluster.run(SHOP, "SELECT setval('restarted', 1000, false)").await;
    let end = rig.fence(1, GRACE).await.expect("fence");
    for writer in writers {
        writer.await.expect("it was ended");
    }
    assert!(refused(&rig).await, "a superuser is shut out too");
    let batches = read_log(&*stream, seed.plan.log_resume.clone(), &end).await;
    let log: Vec<u8> = batches.iter().flat_map(|batch| batch.payload.to_vec()).collect();
    let text = String::from_utf8_lossy(&log);
    for value in acknowledged.lock().expect("held for a moment").iter() {
        assert!(text.contains(value), "{value} was acknowledged");
    }
    let (extras, _) = extras(&batches);
    let restarted = extras.iter().any(|(extra, _)| match extra {
        Extra::Sequences(all) => all.iter().any(|s| s.name == "restarted" && s.last_value == 1000 && !s.is_called),
        _ => false,
    });
    assert!(restarted);
    assert!(extras.iter().any(|(extra, raw)| matches!(extra, Extra::Unlogged { first: true, .. }) && raw.len() == 10));
    // What follows is nothing, and the source is not behind.
    let more = tokio::time::timeout(Duration::from_millis(300), stream.log(&end, 1 << 20, None)).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(stream.backlog(&end).await.expect("measure").bytes, 0);

    rig.unfence(1).await;
    rig.cluster.run(SHOP, "INSERT INTO t(v) VALUES ('between')").await;
    let mut on = stream.log(&end, 1 << 20, None).await.expect("the log goes on behind the marker");
    assert_eq!(on.from, end);
    while !has(&on.payload, "between") {
        on = stream.log(&on.to, 1 << 20, None).await.expect("the log goes on");
    }
    let second = rig.fence(2, GRACE).await.expect("fence again");
    read_log(&*stream, on.to, &second).await;
    rig.release(2).await.expect("release");
    rig.source.release(&rig.role(), "east").await.expect("release again");
    assert!(rig.cluster.column("postgres", "SELECT datname FROM pg_database WHERE datname = 'shop'").await.is_empty());
    rig.source.remove_role(&rig.role().operation, rig.role().version).await.expect("forget");
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// A backend that is past the check when the door closes cannot be seen yet, and its client is served all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_under_way_is_waited_for() {
    for user in ["postgres", "app"] {
        let mut rig = Rig::new(TABLES).await;
        rig.begin(Kind::Move).await;
        let (stream, seed) = rig.seeded().await;
        let login = std::process::Command::new(bin("psql"))
            .args(["-h", "127.0.0.1", "-p", &rig.cluster.port().to_string(), "-U", user, "-d", SHOP])
            .args(["-c", "INSERT INTO t(v) VALUES ('late login')"])
            .env("PGOPTIONS", "-c post_auth_delay=2")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run psql");
        // It is under way once it holds its lock on the database.
        let held = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.objid WHERE l.locktype = 'object'
             AND l.classid = 'pg_database'::regclass AND d.datname = 'shop'";
        while rig.cluster.value("postgres", held).await == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let end = rig.fence(1, Duration::from_millis(50)).await.expect("fence");
        let batches = read_log(&*stream, seed.plan.log_resume.clone(), &end).await;
        let log: Vec<u8> = batches.iter().flat_map(|batch| batch.payload.to_vec()).collect();
        let done = tokio::task::spawn_blocking(|| login.wait_with_output().expect("it ends")).await.expect("it ends");
        assert_eq!(has(&log, "late login"), done.status.success(), "{user}: acknowledged and carried, or neither");
        assert!(refused(&rig).await);
    }
}

#[tokio::test]
async fn a_prepared_transaction_hinders_and_the_database_is_open_again() {
    let mut rig = Rig::with("max_prepared_transactions = 5", TABLES).await;
    rig.begin(Kind::Move).await;
    let (_stream, _) = rig.seeded().await;
    rig.cluster.run("postgres", "ALTER DATABASE shop CONNECTION LIMIT 77").await;
    rig.cluster.run(SHOP, "BEGIN; INSERT INTO t(v) VALUES ('p'); PREPARE TRANSACTION 'held'").await;
    let busy = rig.fence(1, GRACE).await.expect_err("it cannot be ended");
    assert!(matches!(&busy, Error::Busy(why) if why.contains("held")), "{busy}");
    let limit = "SELECT datconnlimit || datallowconn::text FROM pg_database WHERE datname = 'shop'";
    assert_eq!(rig.cluster.value("postgres", limit).await, "77true");
    rig.cluster.run(SHOP, "COMMIT PREPARED 'held'").await;
    rig.fence(2, GRACE).await.expect("fence");
    rig.unfence(2).await;
    assert_eq!(rig.cluster.value("postgres", limit).await, "77true");
}

/// The grace is for those who are in the middle of something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_ends_within_the_grace_is_carried() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (stream, seed) = rig.seeded().await;
    let slow = rig.cluster.client(SHOP).await.expect("connect");
    let endless = rig.cluster.client(SHOP).await.expect("connect");
    let slow = tokio::spawn(async move {
        slow.batch_execute("BEGIN; INSERT INTO t(v) VALUES ('in time'); SELECT pg_sleep(0.5); COMMIT").await
    });
    let endless = tokio::spawn(async move {
        endless.batch_execute("BEGIN; INSERT INTO t(v) VALUES ('too late'); SELECT pg_sleep(60); COMMIT").await
    });
    let writing = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = 'shop'";
    while rig.cluster.value("postgres", writing).await != "2" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    let end = rig.fence(1, Duration::from_secs(2)).await.expect("fence");
    assert!(started.elapsed() >= Duration::from_secs(2));
    slow.await.expect("joined").expect("it came to its end");
    endless.await.expect("joined").expect_err("it was ended");
    let batches = read_log(&*stream, seed.plan.log_resume.clone(), &end).await;
    let log: Vec<u8> = batches.iter().flat_map(|batch| batch.payload.to_vec()).collect();
    assert!(has(&log, "in time") && !has(&log, "too late"));
}

/// The fence is in the catalog: neither the agent's end nor the server's lifts it, and a new agent can.
#[tokio::test]
async fn a_fence_outlives_agent_and_server() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (stream, _) = rig.seeded().await;
    let end = rig.fence(1, GRACE).await.expect("fence");
    drop(stream);
    rig.cluster.crash();
    rig.cluster.up();
    assert!(refused(&rig).await, "fenced without an agent, after a restart");
    rig.restart().await;
    assert_eq!(rig.source.roles().await.expect("read"), [rig.role()]);
    let stream = rig.open().await;
    stream.health().await.expect("a fenced database is no trouble");
    assert!(refused(&rig).await);
    rig.unfence(1).await;
    rig.cluster.run(SHOP, "INSERT INTO t(v) VALUES ('again')").await;
    let held = crate::source::Held { generation: 1, seeded: true, log: Some(end.clone()), parts: vec![] };
    let plan = stream.plan(&held).await.expect("plan");
    assert_eq!((plan.generation, &plan.log_resume), (1, &end));
    let mut batch = stream.log(&end, 1 << 20, None).await.expect("the log goes on");
    while !has(&batch.payload, "again") {
        batch = stream.log(&batch.to, 1 << 20, None).await.expect("the log goes on");
    }
    rig.fence(2, GRACE).await.expect("fence again");
    rig.cleanup().await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
    rig.cluster.run(SHOP, "INSERT INTO t(v) VALUES ('serves')").await;
}

/// Dropping the call anywhere is what a kill of the agent does: afterwards the record says what the catalog says.
#[tokio::test]
async fn a_crash_at_any_step_of_the_fence_leaves_what_the_record_says() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let mut attempt = 0;
    for ms in (0..).map(|step: u64| step * step / 2) {
        attempt += 1;
        let (stream, _) = {
            rig.cluster.run(SHOP, "INSERT INTO t(v) VALUES ('x')").await;
            rig.seeded_or_resumed().await
        };
        stream.settle().await.expect("settle");
        let idle = rig.cluster.client(SHOP).await.expect("connect");
        let event = Event::Fence(rig.version(), Attempt(attempt));
        let mut fencing = step(&rig.role(), &event).expect("can be fenced").next;
        let fenced =
            tokio::time::timeout(Duration::from_millis(ms), rig.source.fence(&mut fencing, Duration::ZERO)).await;
        drop((stream, idle));
        rig.restart().await;
        let found = rig.source.roles().await.expect("read").remove(0);
        assert_eq!(refused(&rig).await, matches!(found.phase, Phase::Fencing { .. }), "after {ms} ms");
        let aborted = step(&found, &Event::DestAnswered(Attempt(attempt), handover::source_role::DestAnswer::Aborted));
        rig.role = Some(found.clone());
        if let (Phase::Fencing { .. }, Ok(aborted)) = (&found.phase, aborted) {
            let next = step(&aborted.next, &Event::Reopened(Attempt(attempt))).expect("fenced").next;
            rig.source.unfence(&aborted.next, &next).await.expect("unfence");
            rig.role = Some(next);
        }
        assert!(!refused(&rig).await, "after {ms} ms");
        if let Ok(fenced) = fenced {
            fenced.expect("fence");
            break;
        }
    }
    rig.cleanup().await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_superseded_agent_closes_nothing() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (stream, _) = rig.seeded().await;
    let config = crate::postgres::PostgresConfig::new(rig.setup.clone()).expect("the settings are good");
    let newer = crate::postgres::PostgresSource::new(config, Arc::new(RealHost));
    newer.take_over().await.expect("take over from a silent one");
    assert!(rig.fence(1, GRACE).await.is_err());
    assert!(rig.source.cleanup(&rig.role()).await.is_err());
    assert!(!refused(&rig).await);
    drop(stream);
}
