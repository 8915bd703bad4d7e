//! What clients meet while a database is moved away under them, superusers included, and what they are told.

use super::{assert_moved, cluster, filled, reason};
use causeway_tests::{DEST, SOURCE, State, wait};
use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_fence_shuts_out_superusers_and_outlives_agent_and_server() {
    let cluster = cluster();
    filled(&cluster, "shop", 5);
    let mut application = cluster.application("shop").start();
    let op = cluster.start_move("shop");
    op.until_ready();

    // The destination cannot prepare, so the source stays fenced.
    cluster.stop(DEST);
    op.complete();
    application.until_fenced();
    let west = cluster.postgres("west");
    let refused = |role: &str| west.try_sql(role, "shop", "SELECT 1").err().map(|refusal| refusal.state);
    assert_eq!(refused("postgres").as_deref(), Some("55000"), "a superuser");
    assert_eq!(refused("app").as_deref(), Some("55000"), "the owner");
    cluster.kill(SOURCE);
    west.kill();
    west.restart();
    assert_eq!(refused("postgres").as_deref(), Some("55000"), "after a crash of agent and server");
    cluster.resume(DEST);
    cluster.restart(SOURCE);
    op.until_succeeded_after_all();
    application.until_commits_at(&cluster.database("east", "shop"), 100);
    assert_eq!(refused("app").as_deref(), Some("3D000"), "dropped");
    assert_moved(&cluster, "shop", &application.finish());
}

#[test]
fn clients_are_told_by_documented_states() {
    let cluster = cluster();
    filled(&cluster, "shop", 1);
    let op = cluster.start_move("shop");
    op.until_ready();
    // One that sits in a transaction, which the fence ends after the grace.
    let mut busy = ledger::postgres::connect(&cluster.database("west", "shop").to_string_lossy()).expect("connect");
    busy.batch_execute("BEGIN; INSERT INTO scratch(touched) VALUES (99)").expect("write");
    // Before the flip the destination is there for nobody, the owner included.
    let early = cluster.postgres("east").try_sql("app", "shop", "SELECT 1").expect_err("it is not open yet");
    assert_eq!(early.state, "53300", "{early}");
    op.complete();
    op.until_succeeded();
    let ended = busy.batch_execute("COMMIT").expect_err("its session was ended");
    assert_eq!(ended.code().map(|code| code.code()), Some("57P01"), "{ended}");
    let late = cluster.postgres("west").try_sql("app", "shop", "SELECT 1").expect_err("it is gone");
    assert_eq!(late.state, "3D000", "{late}");
    let kept = cluster.postgres("east").value("shop", "SELECT count(*) FROM scratch WHERE touched = 99");
    assert_eq!(kept, "0", "what was not committed is not there");
}

/// A backend that is just logging in has passed the check of the closed door and can be seen nowhere yet.
#[test]
fn a_client_that_is_logging_in_is_not_overlooked() {
    let cluster = cluster();
    for role in ["app", "postgres"] {
        filled(&cluster, "shop", 1);
        let op = cluster.start_move("shop");
        op.until_ready();
        let dsn = cluster.server("west").dsn_as(role, "shop");
        let slow = thread::spawn(move || {
            let mut config: postgres::Config = dsn.parse().expect("a connection string");
            let mut client = config.options("-c post_auth_delay=2").connect(postgres::NoTls)?;
            client.batch_execute("INSERT INTO scratch(touched) VALUES (77)")
        });
        // It has been let in and sleeps.
        thread::sleep(Duration::from_millis(300));
        op.complete();
        let acknowledged = slow.join().expect("the client does not panic").is_ok();
        op.until_succeeded_after_all();
        let found = cluster.postgres("east").value("shop", "SELECT count(*) FROM scratch WHERE touched = 77");
        println!("{role}: acknowledged {acknowledged}, found {found}");
        // One that was ended between its commit and the answer has committed without knowing it.
        assert!(!acknowledged || found == "1", "{role}: what was acknowledged is lost");
        cluster.postgres("east").sql("postgres", "DROP DATABASE shop WITH (FORCE)");
    }
}

#[test]
fn a_superuser_who_writes_to_the_replica_is_ended_before_the_flip() {
    let cluster = cluster();
    filled(&cluster, "shop", 1);
    let op = cluster.start_move("shop");
    op.until_ready();
    let dsn = cluster.server("east").dsn("shop");
    // Superusers pass a connection limit of 0.
    let mut intruder = ledger::postgres::connect(&dsn).expect("a superuser gets in");
    intruder.batch_execute("SELECT 1").expect("read");
    op.complete();
    op.until_succeeded();
    let ended = intruder.batch_execute("SELECT 1").expect_err("its session was ended before the flip");
    assert_eq!(ended.code().map(|code| code.code()), Some("57P01"), "{ended}");
}

/// An agent that was killed in a fence opens the database to find its place again, once the destination has closed the attempt;
/// superusers, who pass every limit, get in then. What was acknowledged to them has to move.
#[test]
fn superusers_who_slip_in_when_the_agent_is_back_lose_nothing() {
    let cluster = cluster();
    filled(&cluster, "shop", 1);
    let op = cluster.start_move("shop");
    op.until_ready();
    let stop = AtomicBool::new(false);
    let acknowledged: Vec<i32> = thread::scope(|scope| {
        let knocks = (0..4).map(|n| {
            let (dsn, stop) = (cluster.server("west").dsn("shop"), &stop);
            scope.spawn(move || {
                let mut acknowledged = vec![];
                for touched in (1000 + n..).step_by(4) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let insert = format!("INSERT INTO scratch(touched) VALUES ({touched})");
                    if ledger::postgres::connect(&dsn).is_ok_and(|mut client| client.batch_execute(&insert).is_ok()) {
                        acknowledged.push(touched);
                    }
                }
                acknowledged
            })
        });
        let knocks: Vec<_> = knocks.collect();
        for _ in 0..3 {
            // The destination cannot prepare, so the source is killed in its fence.
            cluster.stop(DEST);
            op.complete();
            wait::until("the fence", wait::PATIENCE, || (!cluster.postgres("west").is_writable("shop")).then_some(()));
            cluster.kill_and_restart(SOURCE);
            cluster.resume(DEST);
            let after = op.until_it("the end or readiness", |op| {
                matches!(op.state(), State::Succeeded | State::ReadyForCompletion)
            });
            if after.state() == State::Succeeded {
                break;
            }
            op.until_ready();
        }
        if op.now().state() != State::Succeeded {
            op.complete();
            op.until_succeeded();
        }
        stop.store(true, Ordering::Relaxed);
        knocks.into_iter().flat_map(|knock| knock.join().expect("it does not panic")).collect()
    });
    let found = cluster.postgres("east").column("shop", "SELECT touched FROM scratch WHERE touched >= 1000");
    let found: HashSet<i32> = found.iter().map(|touched| touched.parse().expect("a number")).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|touched| !found.contains(touched)).collect();
    println!("{} acknowledged, {} found", acknowledged.len(), found.len());
    assert!(acknowledged.len() > 20 && lost.is_empty(), "lost: {lost:?}");
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
}

#[test]
fn a_prepared_transaction_stops_the_fence_and_the_source_serves_on() {
    let cluster = cluster();
    filled(&cluster, "shop", 1);
    let mut application = cluster.application("shop").start();
    let op = cluster.start_move("shop");
    op.until_ready();
    cluster.postgres("west").sql("shop", "BEGIN; INSERT INTO scratch(touched) VALUES (5); PREPARE TRANSACTION 'open'");
    op.complete_within(Duration::from_secs(5));
    let ready =
        op.until_it("readiness with a reason", |op| op.state() == State::ReadyForCompletion && op.reason.is_some());
    println!("{ready:?}");
    assert!(["BUSY", "FREEZE_EXCEEDED"].contains(&reason(&ready).as_str()), "{ready:?}");
    application.until_more_commits(50);
    cluster.postgres("west").sql("shop", "COMMIT PREPARED 'open'");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.database("east", "shop"), 50);
    let kept = cluster.postgres("east").value("shop", "SELECT count(*) FROM scratch WHERE touched = 5");
    assert_eq!(kept, "1", "what was prepared and then committed has moved");
    assert_moved(&cluster, "shop", &application.finish());
}

#[test]
fn a_freeze_beyond_its_limit_ends_the_attempt_and_the_source_goes_on() {
    let cluster = cluster();
    filled(&cluster, "shop", 5);
    let mut application = cluster.application("shop").interleaved().start();
    let op = cluster.start_move("shop");
    op.until_ready();
    cluster.stop(DEST);
    // Above the lag with which it may be called ready: a smaller limit would refuse the attempt before any fence.
    op.complete_within(Duration::from_secs(3));
    application.until_fenced();
    op.until_it("the attempt is given up", |op| !op.step.is_empty() && !op.waiting_for.is_empty());
    assert!(!cluster.postgres("west").is_writable("shop"), "the source opened without the destination's word");
    cluster.resume(DEST);
    let ready = op.until_ready();
    assert_eq!(reason(&ready), "FREEZE_EXCEEDED", "{ready:?}");
    application.until_more_commits(100);
    op.until_ready();
    op.complete();
    let moved = op.until_succeeded();
    assert!(moved.attempt >= 2, "{moved:?}");
    application.until_commits_at(&cluster.database("east", "shop"), 100);
    assert_moved(&cluster, "shop", &application.finish());
}

#[test]
fn the_first_query_at_the_destination_has_statistics() {
    let cluster = cluster();
    filled(&cluster, "shop", 5);
    let op = cluster.start_move("shop");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    let started = Instant::now();
    let analyzed = || {
        let query = "SELECT count(*) FROM pg_stats WHERE tablename = 'filler' AND attname = 'tag'";
        (cluster.postgres("east").value("shop", query) == "1").then_some(())
    };
    wait::until("statistics of the moved tables", wait::PATIENCE, analyzed);
    println!("statistics {} ms after the end", started.elapsed().as_millis());
    let plan = cluster.postgres("east").column("shop", "EXPLAIN SELECT * FROM filler WHERE tag = 5").join("\n");
    assert!(plan.contains("filler_tag"), "{plan}");
}
