//! The reader against a real walsender.

use super::{
    LogReader, RawBatch,
    pgoutput::{self, Message},
};
use crate::{
    Error,
    postgres::{
        payload::{LogPayload, messages},
        position::{Lsn, Point},
        testing::Cluster,
    },
};
use std::{collections::HashSet, time::Duration};

const KIB: usize = 1 << 10;

/// A source with a slot.
struct Source {
    cluster: Cluster,
    from: Lsn,
}

impl Source {
    async fn new(tables: &str) -> Self {
        let cluster = Cluster::start("wal_sender_timeout = 5s");
        cluster.run("postgres", tables).await;
        cluster.run("postgres", "CREATE PUBLICATION \"p'ub\" FOR ALL TABLES").await;
        let slot = "SELECT lsn FROM pg_create_logical_replication_slot('slot', 'pgoutput')";
        let from = cluster.value("postgres", slot).await.parse().expect("an LSN");
        Self { cluster, from }
    }

    async fn reader(&self, from: Lsn) -> Result<LogReader, Error> {
        LogReader::start(&self.cluster.config(), "postgres", "slot", "p'ub", from, true).await
    }

    /// Runs statements, and answers a place in the log behind them.
    async fn run(&self, statements: &str) -> Lsn {
        self.cluster.run("postgres", statements).await;
        self.now().await
    }

    /// Takes all replication slots but the reader's, so that no session gets one for a backlog.
    async fn take_slots(&self) {
        let take = "SELECT pg_create_physical_replication_slot('taken' || n) FROM generate_series(1, \
            current_setting('max_replication_slots')::int - 1) n";
        self.cluster.run("postgres", take).await;
    }

    async fn now(&self) -> Lsn {
        self.cluster.value("postgres", "SELECT pg_current_wal_insert_lsn()").await.parse().expect("an LSN")
    }
}

/// Reads up to `until` in pieces, and checks that each continues the one before.
async fn drain(reader: &LogReader, mut after: Point, max: usize, until: Lsn) -> Vec<RawBatch> {
    let mut batches = Vec::new();
    while after < Point::at(until) {
        let batch = tokio::time::timeout(Duration::from_secs(30), reader.batch(after, max, Some(Point::at(until))));
        let batch = batch.await.expect("in time").expect("a batch");
        assert_eq!(batch.from, after);
        assert!(batch.to > after && batch.to <= Point::at(until), "{} {}", batch.to, until);
        after = batch.to;
        batches.push(batch);
    }
    batches
}

/// What the rows of some batches are, as (tag, first column).
fn rows(batches: &[RawBatch]) -> Vec<(char, String)> {
    let mut rows = Vec::new();
    for batch in batches {
        let LogPayload::Changes(changes) = LogPayload::read(batch.payload.clone()).expect("changes") else { panic!() };
        let mut described = HashSet::new();
        for message in messages(&changes) {
            let message = message.expect("whole");
            match pgoutput::read(message).expect("known") {
                Message::Relation { id, .. } => drop(described.insert(id)),
                Message::Row { change, relation } => {
                    assert!(described.contains(&relation), "a piece describes what it touches");
                    let (mut old, mut new) = (Vec::new(), Vec::new());
                    pgoutput::tuples(message, 0, change, &mut old, &mut new).expect("whole");
                    let first = new.first().or(old.first()).map(|value| value.of(message)).unwrap_or_default();
                    let number = first.try_into().map(|bytes| i32::from_be_bytes(bytes).to_string());
                    rows.push((char::from(message[0]), number.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }
    rows
}

fn inserts(range: std::ops::RangeInclusive<i32>) -> Vec<(char, String)> {
    range.map(|n| ('I', n.to_string())).collect()
}

#[tokio::test]
async fn pieces_of_any_size_continue_each_other_and_say_the_same() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY, pad text)").await;
    let mut until = source.from;
    for n in 0..5 {
        let (low, high) = (n * 1000 + 1, n * 1000 + 1000);
        until = source.run(&format!("INSERT INTO t SELECT i, 'pad' FROM generate_series({low}, {high}) i")).await;
    }
    let reader = source.reader(source.from).await.expect("it starts");
    for max in [1, 100, 3 * KIB, 64 * KIB, KIB * KIB] {
        let batches = drain(&reader, Point::at(source.from), max, until).await;
        assert!(rows(&batches) == inserts(1..=5000), "max {max}");
        assert_eq!(batches.iter().map(|batch| batch.transactions).sum::<u64>(), 5);
        assert!(batches.iter().all(|batch| batch.payload.len() <= 2 * max + 400), "max {max}");
    }
    // From the middle of a transaction, by another reader.
    let batches = drain(&reader, Point::at(source.from), 10 * KIB, until).await;
    let cut = batches.iter().position(|batch| batch.to.index > 0).expect("a cut inside");
    let (before, after) = batches.split_at(cut + 1);
    reader.stop().await;
    let reader = source.reader(before[cut].to.lsn).await.expect("it starts");
    let again = drain(&reader, before[cut].to, KIB * KIB, until).await;
    assert!(rows(&again) == rows(after));
    assert!([rows(before), rows(&again)].concat() == inserts(1..=5000));
}

#[tokio::test]
async fn writers_that_interleave_and_roll_back_come_in_commit_order() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY)").await;
    let clients = [source.cluster.client("postgres").await, source.cluster.client("postgres").await];
    let [one, two] = clients.map(|client| client.expect("connect"));
    let reader = source.reader(source.from).await.expect("it starts");
    for (client, statement) in [
        (&one, "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (100)"),
        (&two, "BEGIN; INSERT INTO t VALUES (2); SAVEPOINT b; INSERT INTO t VALUES (3)"),
        (&one, "ROLLBACK TO a; INSERT INTO t VALUES (4)"),
        (&two, "RELEASE b; COMMIT"),
        (&one, "COMMIT"),
        (&two, "BEGIN; INSERT INTO t VALUES (101); ROLLBACK"),
    ] {
        client.batch_execute(statement).await.expect("it runs");
    }
    let until = source.now().await;
    let batches = drain(&reader, Point::at(source.from), KIB, until).await;
    let order: Vec<_> = [2, 3, 1, 4].iter().map(|n: &i32| ('I', n.to_string())).collect();
    assert_eq!(rows(&batches), order);
}

#[tokio::test]
async fn a_marker_is_found_also_on_a_segment_boundary_and_ends_the_log() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY)").await;
    let reader = source.reader(source.from).await.expect("it starts");
    let mut after = Point::at(source.from);
    for round in 1..=3 {
        let fill = format!("INSERT INTO t VALUES ({round}); SELECT pg_switch_wal()");
        source.run(&fill).await;
        let emit = format!("SELECT pg_logical_emit_message(true, 'causeway.fence', 'token {round}')");
        let end = source.run(&emit).await;
        let token = format!("token {round}");
        let found =
            tokio::time::timeout(Duration::from_secs(10), reader.wait_marker("causeway.fence", token.as_bytes()));
        let found = found.await.expect("in time").expect("it comes");
        assert!(found <= end);
        reader.note_end(end);
        let batches = drain(&reader, after, KIB * KIB, end).await;
        assert_eq!(rows(&batches), inserts(round..=round));
        let markers: Vec<_> = batches.iter().flat_map(|batch| &batch.markers).collect();
        assert_eq!((markers.len(), markers[0].end, &markers[0].content[..]), (1, found, token.as_bytes()));
        // The log goes on from behind the extras.
        after = Point::end(end);
        source.run(&format!("INSERT INTO t VALUES ({})", round * 10)).await;
        let now = source.now().await;
        let batch = reader.batch(after, KIB, Some(Point::at(now))).await.expect("a batch");
        assert_eq!(rows(std::slice::from_ref(&batch)), inserts(round * 10..=round * 10));
        after = batch.to;
    }
}

#[tokio::test]
async fn a_walsender_that_dies_and_an_older_place_start_it_again() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY)").await;
    let reader = source.reader(source.from).await.expect("it starts");
    let until = source.run("INSERT INTO t SELECT generate_series(1, 3000)").await;
    let start = Point::at(source.from);
    let first = drain(&reader, start, 4 * KIB, until).await;
    assert!(rows(&drain(&reader, start, 4 * KIB, until).await) == rows(&first), "read again from the beginning");
    let kill = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots";
    source.cluster.run("postgres", kill).await;
    while reader.health().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let until = source.run("INSERT INTO t VALUES (5000)").await;
    let after = first[first.len() - 1].to;
    let error = reader.batch(after, KIB, None).await.expect_err("it is told once");
    assert!(error.retryable(), "{error}");
    assert_eq!(rows(&drain(&reader, after, KIB, until).await), inserts(5000..=5000));
    reader.health().expect("it works again");
    // What was confirmed cannot be had again.
    reader.confirm(until);
    let confirmed = format!("SELECT confirmed_flush_lsn > '{}' FROM pg_replication_slots", after.lsn);
    while source.cluster.value("postgres", &confirmed).await != "t" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = reader.batch(start, KIB, None).await.expect_err("it is gone");
    assert!(matches!(error, Error::LogLost(_)), "{error}");
    reader.stop().await;
    source.cluster.run("postgres", "SELECT pg_drop_replication_slot('slot')").await;
    assert!(matches!(source.reader(until).await, Err(Error::LogLost(_))));
}

#[tokio::test]
async fn a_database_in_which_nothing_happens_confirms_too() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY)").await;
    source.cluster.run("postgres", "CREATE DATABASE other").await;
    let reader = source.reader(source.from).await.expect("it starts");
    source.cluster.run("other", "CREATE TABLE x AS SELECT repeat('x', 100) FROM generate_series(1, 50000)").await;
    let grown = source.now().await;
    let batch = tokio::time::timeout(Duration::from_secs(20), reader.batch(Point::at(source.from), KIB, None));
    let batch = batch.await.expect("in time").expect("a batch");
    assert!(batch.payload.len() == 1 && batch.to.lsn.0 > source.from.0 + (1 << 20) && batch.to.lsn <= grown);
    reader.confirm(batch.to.lsn);
    let confirmed = format!("SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots", batch.to.lsn);
    while source.cluster.value("postgres", &confirmed).await != "t" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // An end that nothing but a keepalive can tell.
    let until = source.now().await;
    let started = std::time::Instant::now();
    drain(&reader, batch.to, KIB, until).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_point_inside_a_transaction_never_confirms_it() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY)").await;
    let reader = source.reader(source.from).await.expect("it starts");
    let until = source.run("INSERT INTO t SELECT generate_series(1, 3000)").await;
    let batch = reader.batch(Point::at(source.from), 4 * KIB, None).await.expect("a batch");
    assert!(batch.to.index > 0);
    reader.confirm(batch.to.lsn);
    reader.stop().await;
    let reader = source.reader(batch.to.lsn).await.expect("it starts");
    let rest = drain(&reader, batch.to, KIB * KIB, until).await;
    assert!([rows(&[batch]), rows(&rest)].concat() == inserts(1..=3000));
}

#[tokio::test]
async fn a_large_row_comes_alone_and_is_held_once() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY, big text)").await;
    let insert = "INSERT INTO t VALUES (1, 'small'), (2, repeat('x', 60000000)), (3, 'small')";
    let until = source.run(insert).await;
    let reader = source.reader(source.from).await.expect("it starts");
    let batches = drain(&reader, Point::at(source.from), 64 * KIB, until).await;
    assert_eq!(rows(&batches), inserts(1..=3));
    let large: Vec<_> = batches.iter().filter(|batch| batch.payload.len() > 1_000_000).collect();
    assert_eq!(large.len(), 1);
    assert!(large[0].payload.len() < 60_001_000 && rows(&[large[0].clone()]).len() == 1);
}

#[tokio::test]
async fn a_slow_reader_holds_the_walsender_up_and_keeps_it_alive() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY, pad text)").await;
    let insert = "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) i";
    let until = source.run(insert).await;
    let reader = source.reader(source.from).await.expect("it starts");
    let first = reader.batch(Point::at(source.from), KIB * KIB, None).await.expect("a batch");
    // Longer than wal_sender_timeout.
    tokio::time::sleep(Duration::from_secs(8)).await;
    reader.health().expect("it lives");
    let held: usize = reader.shared.lock().held();
    assert!(held < 12 << 20, "{held}");
    let rest = drain(&reader, first.to, KIB * KIB, until).await;
    assert_eq!(rows(&rest).len() + rows(&[first]).len(), 100_000);
}

/// Transactions that the walsender gave, in contrast to a session with a copy of the slot.
async fn given_by_the_walsender(source: &Source) -> u64 {
    // The figures come when the process ends.
    let query = "SELECT total_txns FROM pg_stat_replication_slots WHERE slot_name = 'slot'";
    source.cluster.value("postgres", query).await.parse().expect("a number")
}

/// Each a transaction with rows of its own and an end that is rolled back, from `low` on.
async fn transactions(source: &Source, low: i32, count: i32) -> Lsn {
    let one = "CREATE OR REPLACE PROCEDURE fill(low int, count int) LANGUAGE plpgsql AS $$ BEGIN \
        FOR n IN low .. low + count - 1 LOOP \
            INSERT INTO t VALUES (n, repeat('x', 100)); \
            BEGIN INSERT INTO t VALUES (-n); RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END; \
            COMMIT; \
        END LOOP; END $$";
    source.cluster.run("postgres", one).await;
    for low in (low..low + count).step_by(500) {
        source.run(&format!("CALL fill({low}, {})", count.min(500))).await;
        // From here a slot may begin anew.
        source.run("CHECKPOINT").await;
    }
    source.now().await
}

#[tokio::test]
async fn a_long_backlog_is_read_by_a_session_and_the_walsender_goes_on() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY, pad text)").await;
    let until = transactions(&source, 1, 2000).await;
    let reader = source.reader(source.from).await.expect("it starts");
    let batches = drain(&reader, Point::at(source.from), 10 * KIB, until).await;
    assert!(rows(&batches) == inserts(1..=2000), "{:?}", rows(&batches).len());
    assert_eq!(batches.iter().map(|batch| batch.transactions).sum::<u64>(), 2000);
    // What was open at the end of the backlog, and what came behind it.
    let after = batches[batches.len() - 1].to;
    let until = transactions(&source, 2001, 10).await;
    assert!(rows(&drain(&reader, after, KIB, until).await) == inserts(2001..=2010));
    // From the middle again: what is held is passed over.
    let middle = batches[batches.len() / 2].to;
    let mut rest = batches[batches.len() / 2 + 1..].to_vec();
    rest.extend(drain(&reader, after, KIB, until).await);
    assert!(rows(&drain(&reader, middle, KIB * KIB, until).await) == rows(&rest));
    // All of it is confirmed, and nothing is left but the slot.
    reader.confirm(until);
    let left =
        format!("SELECT string_agg(slot_name, ',') FROM pg_replication_slots WHERE confirmed_flush_lsn >= '{until}'");
    while source.cluster.value("postgres", &left).await != "slot" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reader.stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let given = given_by_the_walsender(&source).await;
    assert!(given < 1000, "{given} of 2,010 transactions, some of them twice");
}

#[tokio::test]
async fn large_messages_come_whole_and_are_passed_over_whole_by_a_session_and_by_the_walsender() {
    let source =
        Source::new("CREATE TABLE t (i int PRIMARY KEY, pad text); ALTER TABLE t ALTER pad SET STORAGE EXTERNAL").await;
    let large = "BEGIN; INSERT INTO t VALUES (1, 'a'), (2, repeat('b', 3000000)), (3, 'c'), (4, repeat('d', 9000000));
         SELECT pg_logical_emit_message(true, 'other', repeat('e', 4000000)); INSERT INTO t VALUES (5, 'f'); COMMIT";
    let middle = source.run(large).await;
    let more = (1..=5).fold(large.to_owned(), |all, i| all.replace(&format!("({i},"), &format!("(1{i},")));
    source.run(&more).await;
    let until = source.run("INSERT INTO t VALUES (20, 'g')").await;
    let expected = |first: i32| [inserts(first..=first + 4), inserts(20..=20)].concat();
    for slots_taken in [false, true] {
        if slots_taken {
            source.take_slots().await;
        }
        // The slot stands before all of it: the first transaction is passed over.
        let reader = source.reader(middle).await.expect("it starts");
        let batches = drain(&reader, Point::at(middle), 64 * KIB, until).await;
        assert_eq!(rows(&batches), expected(11));
        reader.stop().await;
        let reader = source.reader(source.from).await.expect("it starts");
        let batches = drain(&reader, Point::at(source.from), 64 * KIB, until).await;
        assert_eq!(rows(&batches), [inserts(1..=5), expected(11)].concat());
        let bytes: usize = batches.iter().map(|batch| batch.payload.len()).sum();
        assert!((24_000_000..24_010_000).contains(&bytes), "each row once, and all of it: {bytes}");
        reader.stop().await;
    }
}

#[tokio::test]
async fn the_slot_follows_while_a_session_reads() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY, pad text)").await;
    let until = transactions(&source, 1, 6000).await;
    let reader = source.reader(source.from).await.expect("it starts");
    let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'slot'";
    let (mut after, mut moved, mut count) = (Point::at(source.from), HashSet::new(), 0);
    while after < Point::at(until) {
        let batch = reader.batch(after, 4 * KIB, Some(Point::at(until))).await.expect("a batch");
        after = batch.to;
        count += rows(&[batch]).len();
        reader.confirm(after.lsn);
        moved.insert(source.cluster.value("postgres", confirmed).await);
        assert!(reader.health().is_ok());
    }
    assert_eq!(count, 6000);
    assert!(moved.len() > 2, "{moved:?}");
}

#[tokio::test]
async fn a_session_that_dies_and_slots_that_are_taken_leave_the_backlog_to_the_walsender() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY, pad text)").await;
    let until = transactions(&source, 1, 6000).await;
    let reader = source.reader(source.from).await.expect("it starts");
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'causeway source backlog'";
    let (mut after, mut batches, mut killed) = (Point::at(source.from), Vec::new(), 0);
    while after < Point::at(until) {
        let batch = reader.batch(after, 4 * KIB, Some(Point::at(until))).await.expect("a batch");
        after = batch.to;
        batches.push(batch);
        if killed == 0 {
            killed = source.cluster.value("postgres", kill).await.parse().expect("a number");
        }
    }
    assert_eq!(killed, 1);
    assert!(rows(&batches) == inserts(1..=6000));
    reader.stop().await;
    source.take_slots().await;
    let reader = source.reader(source.from).await.expect("it starts");
    assert!(rows(&drain(&reader, Point::at(source.from), 64 * KIB, until).await) == inserts(1..=6000));
}

#[tokio::test]
async fn a_transaction_that_stays_open_leaves_the_backlog_to_the_walsender() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY, pad text)").await;
    let open = source.cluster.client("postgres").await.expect("connect");
    open.batch_execute("BEGIN; INSERT INTO t VALUES (0)").await.expect("it runs");
    transactions(&source, 1, 4000).await;
    open.batch_execute("COMMIT").await.expect("it runs");
    let until = transactions(&source, 4001, 10).await;
    let reader = source.reader(source.from).await.expect("it starts");
    let batches = drain(&reader, Point::at(source.from), 64 * KIB, until).await;
    assert!(rows(&batches) == [inserts(1..=4000), inserts(0..=0), inserts(4001..=4010)].concat());
    reader.stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let given = given_by_the_walsender(&source).await;
    assert!(given > 1000, "{given}");
}

#[tokio::test]
async fn a_reader_without_news_lets_the_processor_rest() {
    let source = Source::new("CREATE TABLE t (i int PRIMARY KEY)").await;
    let reader = source.reader(source.from).await.expect("it starts");
    // Of a place that comes, and of one that does not: the server has to be asked for the latter.
    for until in [None, Some(Point::at(Lsn(u64::MAX >> 1)))] {
        let before = processor_ticks();
        let waited =
            tokio::time::timeout(Duration::from_secs(2), reader.batch(Point::at(source.from), KIB, until)).await;
        assert!(waited.is_err(), "there is nothing to read: {waited:?}");
        let ticks = processor_ticks() - before;
        assert!(ticks < 100, "{ticks} of 200 ticks");
    }
}

/// Hundredths of a second that this thread, on which the reader runs too, has used of a processor.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("read the thread's figures");
    let numbers = stat.rsplit_once(')').expect("the name is in brackets").1;
    numbers.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
}
