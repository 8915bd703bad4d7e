//! Figures, and what takes too long or too much disk for every run: `cargo test -p causeway-engines measure -- --ignored`.

use super::{
    app::App,
    rig::{Replica, Rig},
};
use crate::source::SourceEngine;
use handover::{
    Attempt, Kind,
    source_role::{Phase, SourceRole},
};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn the_freeze_under_load() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let mut took = vec![];
    let (mut written, begin) = (0, Instant::now());
    for attempt in 1..=30 {
        let app = App::start(&rig.path(), 1, "write pause=1000");
        app.wait_acknowledged(150);
        stream.settle().await.expect("settled");
        let mut fencing =
            SourceRole { phase: Phase::Fencing { attempt: Attempt(attempt), saved: String::new() }, ..role.clone() };
        let (last, begin) = (app.acknowledged().len(), Instant::now());
        let position = rig.source.fence(&mut fencing, Duration::from_secs(5)).await.expect("fenced");
        took.push(begin.elapsed());
        replica.catch_up(&*stream, &position).await;
        written += app.join().len() - last;
        let next = SourceRole { phase: Phase::Replicating, floor: Attempt(attempt), ..fencing.clone() };
        rig.source.unfence(&fencing, &next).await.expect("open again");
    }
    took.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    println!(
        "fence call: median {:.2} ms, maximum {:.2} ms; {written} transactions got in during 30 calls; whole run {:.1} s",
        ms(took[15]),
        ms(took[29]),
        begin.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement; 1.2 GB on disk, over the lock page"]
async fn a_large_database_over_the_lock_page() {
    let rig = Rig::new("PRAGMA page_size=8192; PRAGMA journal_mode=wal").await;
    rig.connect()
        .execute_batch(
            "PRAGMA synchronous=off; CREATE TABLE big(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1150)
             INSERT INTO big SELECT randomblob(1000000) FROM n; PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .expect("filled");
    let app = App::start(&rig.path(), 1, "write pause=1000");
    app.wait_acknowledged(10);
    let (role, stream) = rig.begin(Kind::Move).await;
    let plan = stream.plan(&Default::default()).await.expect("planned");
    for round in ["first", "again"] {
        let (begin, mut bytes) = (Instant::now(), 0);
        for part in &plan.parts {
            let (mut offset, mut last) = (0, false);
            while !last {
                let chunk = stream.chunk(part.part, offset, 1 << 20, None).await.expect("a chunk");
                bytes += chunk.payload.len();
                (offset, last) = (chunk.next_offset, chunk.last);
            }
        }
        println!("chunks {round}: {:.0} MB/s", bytes as f64 / 1e6 / begin.elapsed().as_secs_f64());
    }
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    app.join();
    replica.assert_same(&rig.path());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn the_log_at_full_speed() {
    let rig = Rig::new("PRAGMA journal_mode=wal").await;
    let (role, stream) = rig.begin(Kind::Move).await;
    let mut replica = Replica::new();
    replica.seed(&*stream).await;
    let app = App::start(&rig.path(), 1, "write sql:PRAGMA+synchronous=off");
    let (begin, mut batches, mut bytes) = (Instant::now(), 0, 0);
    while begin.elapsed() < Duration::from_secs(5) {
        let batch = replica.log(&*stream, None).await.expect("log");
        stream.confirm(&batch.to).await.expect("confirmed");
        (batches, bytes) = (batches + 1, bytes + batch.payload.len());
    }
    let lag = stream.backlog(replica.held.log.as_ref().expect("log")).await.expect("backlog");
    println!(
        "5 s: {} transactions in {batches} batches, {:.1} MB/s; {} bytes behind, {} retained",
        replica.transactions,
        bytes as f64 / 5e6,
        lag.bytes,
        lag.retained_bytes
    );
    let (_, position) = rig.fence(&role, 1).await.expect("fenced");
    replica.catch_up(&*stream, &position).await;
    app.join();
    replica.assert_same(&rig.path());
}
