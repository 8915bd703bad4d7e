//! The connection against a real server.

use super::{CopyChunk, Wire};
use crate::postgres::{PostgresConfig, Setup, sql::Sql, testing::Cluster};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::fs;

async fn wire(cluster: &Cluster) -> Wire {
    let mut wire = Wire::connect(&cluster.config(), "postgres", "wire test", false).await.expect("it connects");
    wire.query("prepare", "SET search_path = public").await.expect("set");
    wire
}

async fn chunks(wire: &mut Wire, max: usize) -> Vec<CopyChunk> {
    let mut chunks = vec![wire.copy_chunk(max).await.expect("a chunk")];
    while !chunks[chunks.len() - 1].last {
        chunks.push(wire.copy_chunk(max).await.expect("a chunk"));
    }
    chunks
}

#[tokio::test]
async fn queries_answer_text_rows_and_errors_leave_the_session_usable() {
    let cluster = Cluster::start("");
    let mut wire = wire(&cluster).await;
    let rows = wire.query("ask", "SELECT 1, NULL, 'ä'; SELECT 'second', 2, 3").await.expect("rows");
    assert_eq!(rows[0], [Some("1".to_owned()), None, Some("ä".to_owned())]);
    assert_eq!(rows[1][0].as_deref(), Some("second"));
    let error = wire.query("ask", "SELECT 'hunter2'::int").await.expect_err("no number");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!error.retryable());
    let pid = wire.query("ask", "SELECT pg_backend_pid()").await.expect("the session goes on");
    assert_eq!(pid[0][0].as_deref(), Some(wire.backend_pid().to_string().as_str()));
}

#[tokio::test]
async fn a_dropped_query_breaks_the_connection_instead_of_confusing_it() {
    let cluster = Cluster::start("");
    let mut wire = wire(&cluster).await;
    let slow = wire.query("sleep", "SELECT 'late' FROM pg_sleep(0.2)");
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), slow).await.is_err());
    assert!(wire.query("ask", "SELECT 1").await.expect_err("unknown state").retryable());
}

#[tokio::test]
async fn copy_brings_whole_rows_out_and_in_again() {
    let cluster = Cluster::start("");
    let mut wire = wire(&cluster).await;
    let make = "CREATE TABLE t AS SELECT i, repeat('x', i % 300) AS pad FROM generate_series(1, 20000) i; \
                CREATE TABLE u (LIKE t); CREATE TABLE empty (LIKE t); CREATE TABLE none (); \
                INSERT INTO none DEFAULT VALUES; INSERT INTO none DEFAULT VALUES";
    wire.query("make", make).await.expect("made");
    for (format, binary) in [("binary", true), ("text", false)] {
        wire.copy_out("read", &format!("COPY t TO STDOUT (FORMAT {format})")).await.expect("it starts");
        let chunks = chunks(&mut wire, 10_000).await;
        assert_eq!(chunks.iter().map(|chunk| chunk.rows).sum::<u64>(), 20_000);
        assert!(chunks.len() > 200 && chunks.iter().all(|chunk| chunk.payload.len() <= 10_000));
        wire.query("empty", "TRUNCATE u").await.expect("emptied");
        wire.copy_in("write", &format!("COPY u FROM STDIN (FORMAT {format})"), binary).await.expect("it starts");
        for chunk in chunks {
            wire.copy_write(chunk.payload).await.expect("written");
        }
        assert_eq!(wire.copy_finish().await.expect("it ends"), 20_000);
        let differ = "SELECT count(*) FROM (TABLE t EXCEPT ALL TABLE u) d";
        assert_eq!(wire.query("compare", differ).await.expect("compared")[0][0].as_deref(), Some("0"));
    }
    wire.copy_out("read", "COPY empty TO STDOUT (FORMAT binary)").await.expect("it starts");
    assert_eq!(chunks(&mut wire, 100).await, [CopyChunk { last: true, ..CopyChunk::default() }]);
    wire.copy_out("read", "COPY none TO STDOUT (FORMAT binary)").await.expect("it starts");
    let none = chunks(&mut wire, 100).await;
    assert_eq!((none[0].rows, &none[0].payload[..]), (2, &[0, 0, 0, 0][..]));
}

#[tokio::test]
async fn a_row_larger_than_a_chunk_comes_alone() {
    let cluster = Cluster::start("");
    let mut wire = wire(&cluster).await;
    let rows = "SELECT repeat('y', n) FROM (VALUES (10), (30000000), (10), (10)) v (n)";
    wire.copy_out("read", &format!("COPY ({rows}) TO STDOUT (FORMAT binary)")).await.expect("it starts");
    let mut sizes = vec![];
    loop {
        let chunk = wire.copy_rows(65_536).await.expect("a chunk");
        sizes.push((chunk.rows, chunk.payload.len()));
        if chunk.last {
            break;
        }
    }
    assert_eq!(sizes, [(1, 16), (1, 30_000_006), (2, 32)]);
}

#[tokio::test]
async fn a_row_larger_than_a_chunk_is_cut() {
    let cluster = Cluster::start("");
    let mut wire = wire(&cluster).await;
    // The first row comes in one message with the header; one is just as large as a chunk, one by a byte larger.
    let make = "CREATE TABLE t AS SELECT i, repeat('y', n) AS pad FROM \
                (VALUES (1, 300000), (2, 10), (3, 65522), (4, 65523), (5, 3000000), (6, 10)) v (i, n); CREATE TABLE u (LIKE t)";
    wire.query("make", make).await.expect("made");
    for (format, binary) in [("binary", true), ("text", false)] {
        for max in [65_536, 100] {
            wire.copy_out("read", &format!("COPY t TO STDOUT (FORMAT {format})")).await.expect("it starts");
            let chunks = chunks(&mut wire, max).await;
            assert_eq!(chunks.iter().map(|chunk| chunk.rows).sum::<u64>(), 6);
            assert!(
                chunks.iter().all(|chunk| chunk.payload.len() <= max + 24),
                "nothing is collected beyond the size asked for"
            );
            assert_eq!(chunks.iter().filter(|chunk| chunk.rows > 1).count(), 0, "large rows keep small ones apart");
            wire.query("empty", "TRUNCATE u").await.expect("emptied");
            wire.copy_in("write", &format!("COPY u FROM STDIN (FORMAT {format})"), binary).await.expect("it starts");
            for chunk in chunks {
                wire.copy_write(chunk.payload).await.expect("written");
            }
            assert_eq!(wire.copy_finish().await.expect("it ends"), 6);
            let differ = "SELECT count(*) FROM (TABLE t EXCEPT ALL TABLE u) d";
            assert_eq!(wire.query("compare", differ).await.expect("compared")[0][0].as_deref(), Some("0"));
        }
    }
}

#[tokio::test]
async fn a_copy_that_fails_leaves_nothing_and_a_usable_session() {
    let cluster = Cluster::start("");
    let mut wire = wire(&cluster).await;
    wire.query("make", "CREATE TABLE t (i int PRIMARY KEY)").await.expect("made");
    let mut rows = BytesMut::new();
    for _ in 0..2 {
        rows.put_slice(&[0, 1, 0, 0, 0, 4, 0, 0, 0, 7]);
    }
    wire.copy_in("write", "COPY t FROM STDIN (FORMAT binary)", true).await.expect("it starts");
    wire.copy_write(rows.freeze()).await.expect("sent");
    let error = wire.copy_finish().await.expect_err("a duplicate");
    assert!(error.to_string().contains("23505"), "{error}");
    assert_eq!(wire.query("count", "SELECT count(*) FROM t").await.expect("rows")[0][0].as_deref(), Some("0"));
    // A bad row is told before gigabytes are sent for nothing.
    wire.copy_in("write", "COPY t FROM STDIN (FORMAT binary)", true).await.expect("it starts");
    let bad = Bytes::from(vec![9; 1 << 20]);
    let mut sent = 0;
    while wire.copy_write(bad.clone()).await.is_ok() {
        sent += 1;
        assert!(sent < 1000);
    }
    wire.query("ask", "SELECT 1").await.expect("the session goes on");
    assert!(wire.copy_out("read", "COPY absent TO STDOUT").await.is_err());
    wire.copy_out("read", "COPY (SELECT 1 / (3 - i) FROM generate_series(1, 5) i) TO STDOUT").await.expect("it starts");
    assert!(wire.copy_chunk(1 << 20).await.is_err());
    wire.query("ask", "SELECT 1").await.expect("the session goes on");
}

#[tokio::test]
async fn every_way_to_log_in_works_with_tls_and_without() {
    let cluster = Cluster::start("");
    let data = cluster.dir().join("data");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("made");
    fs::write(data.join("server.crt"), made.cert.pem()).expect("written");
    fs::write(data.join("server.key"), made.signing_key.serialize_pem()).expect("written");
    let own = "chown postgres:postgres server.*; chmod 600 server.key";
    std::process::Command::new("sh").args(["-c", own]).current_dir(&data).status().expect("sh runs");
    cluster.run(
        "postgres",
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'sesame ä'; \
         CREATE ROLE clear LOGIN PASSWORD 'sesame'; SET password_encryption = md5; CREATE ROLE md5 LOGIN PASSWORD 'sesame'",
    )
    .await;
    let rules = "local all all trust\nhost all postgres all trust\nhost all scram all scram-sha-256\nhost all md5 all md5\nhost all clear all password\n";
    fs::write(data.join("pg_hba.conf"), rules).expect("written");
    cluster.run("postgres", "ALTER SYSTEM SET ssl = on").await;
    cluster.run("postgres", "SELECT pg_reload_conf()").await;
    let ca = cluster.dir().join("ca.pem");
    fs::write(&ca, made.cert.pem()).expect("written");
    let connect = |dsn: String, ca: Option<&std::path::Path>| {
        let mut setup = Setup::new(dsn);
        setup.ca = ca.map(Into::into);
        async move { Wire::connect(&PostgresConfig::new(setup)?, "postgres", "login test", false).await }
    };
    let dsn = |host: &str, user: &str, password: &str, mode: &str| {
        format!("host={host} port={} user={user} password='{password}' sslmode={mode}", cluster.port())
    };
    for (user, password) in [("scram", "sesame ä"), ("md5", "sesame"), ("clear", "sesame")] {
        for (mode, encrypted) in [("disable", "f"), ("prefer", "t"), ("require", "t")] {
            let ca = (mode == "require").then_some(&*ca);
            let mut wire = connect(dsn("127.0.0.1", user, password, mode), ca).await.expect("it logs in");
            let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            assert_eq!(wire.query("ask", ssl).await.expect("a row")[0][0].as_deref(), Some(encrypted), "{user} {mode}");
        }
        let error = connect(dsn("127.0.0.1", user, "wrong", "prefer"), None).await.err().expect("refused");
        assert!(!error.retryable() && !error.to_string().contains("wrong"), "{error}");
    }
    // By name, and bound to the certificate.
    let bound = dsn("localhost", "scram", "sesame ä", "require") + " channel_binding=require hostaddr=127.0.0.1";
    connect(bound, Some(&ca)).await.expect("it logs in");
    // Another certificate than the one we trust.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    fs::write(&ca, other.cert.pem()).expect("written");
    let stranger = dsn("localhost", "scram", "sesame ä", "require");
    assert!(connect(stranger.clone(), Some(&ca)).await.is_err());
    let config = PostgresConfig::new(Setup { ca: Some(ca), ..Setup::new(stranger) }).expect("good settings");
    let told = Sql::connect_first(&config, "postgres", "login test").await.err().expect("refused");
    assert_eq!(told.code(), "POSTGRES_TLS", "{told}");
}
