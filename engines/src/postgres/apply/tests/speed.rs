//! How fast a backlog is applied; run by hand, by `tools` of a bench that has made the servers and the backlog.

use super::super::Applier;
use crate::postgres::{
    PostgresConfig, Setup,
    log::LogReader,
    payload::{LogPayload, messages},
    position::{Lsn, Point},
    sql::Sql,
};
use handover::Epoch;
use std::time::Instant;

/// Reads a slot up to its database's present end, and applies it. Where from and to is in the environment: `SPEED_SOURCE`,
/// `SPEED_DEST` (connection strings), `SPEED_DATABASE`, `SPEED_SLOT`, `SPEED_PUBLICATION`, `SPEED_CONNECTIONS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers with a backlog"]
async fn a_backlog() {
    let value = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("set {name}"));
    let mut setup = Setup::new(value("SPEED_SOURCE"));
    setup.apply_connections = value("SPEED_CONNECTIONS").parse().expect("a number");
    let source = PostgresConfig::new(setup.clone()).expect("a connection string");
    setup.dsn = value("SPEED_DEST");
    let dest = PostgresConfig::new(setup).expect("a connection string");
    let database = value("SPEED_DATABASE");
    let sql = Sql::connect(&source, &database, "speed").await.expect("connect");
    let lsn = async |query: &str| -> Lsn {
        let row = sql.query_one(query, &[]).await.expect("a row");
        row.get::<_, String>(0).parse().expect("an LSN")
    };
    let slot = value("SPEED_SLOT");
    let from =
        lsn(&format!("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{slot}'")).await;
    let until = Point::at(lsn("SELECT pg_current_wal_flush_lsn()::text").await);
    let started = Instant::now();
    let reader = LogReader::start(&source, &database, &slot, &value("SPEED_PUBLICATION"), from, true).await;
    let reader = reader.expect("the log is there");
    let applier = Applier::open(&dest, &database, Epoch(1), Point::at(from)).await.expect("it opens");
    let (mut at, mut changes, mut bytes) = (Point::at(from), 0, 0);
    while at < until {
        let batch = reader.batch(at, 1 << 20, Some(until)).await.expect("a batch");
        let LogPayload::Changes(content) = LogPayload::read(batch.payload).expect("changes") else { panic!() };
        bytes += content.len();
        changes += messages(&content).filter(|message| matches!(message, Ok([b'I' | b'U' | b'D', ..]))).count();
        applier.apply(batch.from, batch.to, content).await.expect("applied");
        at = batch.to;
    }
    applier.flush().await.expect("applied");
    let seconds = started.elapsed().as_secs_f64();
    println!("SPEED {seconds:.2} s, {changes} changes, {:.0} changes/s, {} MB", changes as f64 / seconds, bytes >> 20);
    reader.stop().await;
    applier.close().await;
}
