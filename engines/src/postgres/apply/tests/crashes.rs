//! What stays when something dies in the middle.

use super::{super::Applier, rig::Pair};
use crate::{Error, postgres::position::Point};
use handover::Epoch;
use std::time::Duration;

const TABLES: &str = "CREATE TABLE acc (id int PRIMARY KEY, n int NOT NULL, pad text); CREATE TABLE hist (acc int, n int); \
    CREATE TABLE uni (id int PRIMARY KEY, v int UNIQUE); INSERT INTO acc SELECT i, 0, 'pad' FROM generate_series(1, 5000) i; \
    INSERT INTO uni SELECT i, i FROM generate_series(1, 100) i";

/// Writers side by side, whose transactions overlap, with savepoints, and some that are rolled back.
async fn writers(pair: &Pair, writers: u32, transactions: u32) {
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let client = pair.source.client("postgres").await.expect("connect");
        tasks.push(tokio::spawn(async move {
            for n in 0..transactions {
                let (one, two) = ((writer * 7919 + n * 31) % 5000 + 1, (writer * 104_729 + n * 17) % 5000 + 1);
                let (one, two) = (one.min(two), one.max(two));
                let end = if n % 7 == 3 { "ROLLBACK" } else { "COMMIT" };
                let statements = format!(
                    "BEGIN; UPDATE acc SET n = n + 1 WHERE id = {one}; INSERT INTO hist VALUES ({one}, {n}); SAVEPOINT s; \
                     UPDATE acc SET n = n + 10 WHERE id = {two}; INSERT INTO hist VALUES ({two}, {n}); \
                     {} TO s; DELETE FROM hist WHERE ctid = (SELECT min(ctid) FROM hist WHERE acc = {one}); {end}",
                    if n % 3 == 0 { "ROLLBACK" } else { "RELEASE s; SAVEPOINT s; ROLLBACK" }
                );
                // Deadlocks are the writers' own affair.
                if client.batch_execute(&statements).await.is_err() {
                    client.batch_execute("ROLLBACK").await.expect("it rolls back");
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("it ends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_writers_lose_and_gain_nothing() {
    let mut pair = Pair::new(TABLES, true).await;
    let end = {
        writers(&pair, 6, 150).await;
        pair.now().await
    };
    pair.max = 3000;
    pair.feed(end).await.expect("applied");
    pair.catch_up().await.expect("applied");
    pair.assert_same().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_killed_in_mid_apply_has_everything_once() {
    let mut pair = Pair::new(TABLES, true).await;
    pair.max = 20_000;
    writers(&pair, 4, 100).await;
    // A transaction that is cut, with rows that would be there twice if they were applied twice.
    pair.run("INSERT INTO hist SELECT i % 10, i % 3 FROM generate_series(1, 60000) i").await;
    pair.run("UPDATE acc SET n = n + 1; DELETE FROM hist WHERE n = 1; UPDATE uni SET v = v + 1000; UPDATE acc SET id = id + 10000 WHERE id < 100").await;
    writers(&pair, 4, 100).await;
    pair.run("TRUNCATE hist").await;
    pair.run("INSERT INTO hist SELECT i % 10, i % 3 FROM generate_series(1, 60000) i").await;
    writers(&pair, 4, 50).await;
    let until = pair.now().await;
    let mut inside = 0;
    for kill in 0..8_u64 {
        let fed = tokio::time::timeout(Duration::from_millis(60 + 45 * kill), pair.feed(until)).await;
        assert!(!matches!(fed, Ok(Err(_))), "{fed:?}");
        pair.dest.kill();
        pair.dest.up();
        // What the killed applier answers is that it failed, and it may be tried again.
        let error = pair.applier.durable().await.expect_err("its server is gone");
        assert!(error.retryable(), "{error}");
        pair.reopen().await.expect("it opens again");
        inside += u32::from(pair.at.index > 0);
    }
    pair.feed(until).await.expect("applied");
    pair.catch_up().await.expect("applied");
    pair.assert_same().await;
    println!("{inside} of 8 resumed inside a transaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_be_durable_is_not_sent_again() {
    let mut pair = Pair::new(TABLES, true).await;
    pair.run("INSERT INTO hist SELECT i, i FROM generate_series(1, 1000) i").await;
    pair.catch_up().await.expect("applied");
    let durable = pair.applier.durable().await.expect("durable");
    assert_eq!(durable, pair.at);
    pair.dest.kill();
    pair.dest.up();
    pair.reopen().await.expect("it opens again");
    assert_eq!(pair.at, durable);
    // A piece that is held is passed over; a hole is refused.
    pair.applier.apply(Point::default(), durable, bytes::Bytes::new()).await.expect("held");
    let later = Point::at(crate::postgres::position::Lsn(durable.lsn.0 + 100));
    pair.applier.apply(later, later, bytes::Bytes::new()).await.expect("queued");
    assert!(matches!(pair.applier.flush().await, Err(Error::Gap { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_applier_whose_replica_was_taken_over_changes_nothing() {
    let mut pair = Pair::new(TABLES, true).await;
    pair.run("INSERT INTO hist VALUES (1, 1)").await;
    pair.catch_up().await.expect("applied");
    // As if its sessions had been spared: the row of the checkpoint alone has to stop it.
    pair.dest.run("postgres", "UPDATE causeway.checkpoint SET epoch = 7").await;
    pair.run("INSERT INTO hist VALUES (2, 2)").await;
    let error = pair.catch_up().await.expect_err("it is superseded");
    assert!(matches!(error, Error::Superseded { ours: 1, newer: 7 }), "{error}");
    assert_eq!(pair.dest.value("postgres", "SELECT count(*) FROM hist").await, "1");
    let older = Applier::open(&pair.dest.config(), "postgres", Epoch(6), Point::default()).await;
    assert!(matches!(older.err(), Some(Error::Superseded { ours: 6, newer: 7 })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_row_passes() {
    let schema = "CREATE TABLE big (id int PRIMARY KEY, b text, n int); CREATE TABLE bigfull (b text, n int)";
    let mut pair = Pair::new(schema, true).await;
    pair.run("INSERT INTO big VALUES (1, repeat('x', 60000000), 1), (2, 'small', 2)").await;
    pair.run("UPDATE big SET n = 5 WHERE id = 1; UPDATE big SET id = 3 WHERE id = 1; UPDATE big SET b = b || 'y' WHERE id = 3").await;
    pair.run("INSERT INTO bigfull VALUES (repeat('x', 20000000), 1); UPDATE bigfull SET n = 2; DELETE FROM bigfull")
        .await;
    pair.catch_up().await.expect("applied");
    let size = "SELECT string_agg(id || ' ' || n || ' ' || length(b), ', ' ORDER BY id) FROM big";
    assert_eq!(pair.dest.value("postgres", size).await, pair.source.value("postgres", size).await);
    assert_eq!(pair.dest.value("postgres", "SELECT count(*) FROM bigfull").await, "0");
}
