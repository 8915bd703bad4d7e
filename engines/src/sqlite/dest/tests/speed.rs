//! How fast the destination takes what it is given: printed, not judged. Run on a quiet machine with
//! `cargo test --release -p causeway-engines --lib dest::tests::speed -- --ignored --nocapture --test-threads 1`.

use super::*;
use crate::{
    source::{LogBatch, Part, Plan},
    sqlite::wire::{Frame, Journal, PART_BYTES, Point, SeedHeader, begin_log, full_prefix, push_frame},
};
use bytes::BytesMut;
use std::{io::Write, time::Instant};

const MIB: u64 = 1 << 20;
const PAGE: u32 = 4096;

fn at(seq: u64) -> Position {
    Point::Wal { seq, salt: [1, 2], frame: 0, checksum: [0, 0] }.position()
}

fn plan(bytes: u64) -> Plan {
    let header =
        SeedHeader { page_size: PAGE, journal: Journal::Wal, file_bytes: bytes, part_bytes: PART_BYTES, mode: 0o644 };
    let part = |part| Part { part, object: "shop.db".into(), bytes: PART_BYTES };
    let parts = (0..header.parts()).map(part).collect();
    Plan { generation: 1, parts, verify: false, log_start: at(0), log_resume: at(0), header: header.encode() }
}

/// A chunk of pages that look like a database's: the first one opens with a header.
fn chunk_of(first: bool, last: Option<u64>) -> Bytes {
    let mut payload = BytesMut::new();
    full_prefix(&mut payload, last);
    let start = payload.len();
    payload.extend((0..MIB).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8));
    payload[start + 18] = 2;
    if first {
        payload[start..start + 16].copy_from_slice(crate::sqlite::header::MAGIC);
    }
    payload.freeze()
}

fn rss_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find(|l| l.starts_with(field)).expect("there");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

async fn seeded(rig: &Rig, mib: u64, syncs: bool) -> Arc<dyn DestReplica> {
    let replica = rig.open().await;
    let bytes = mib * MIB;
    replica.plan(&plan(bytes)).await.expect("planned");
    let chunk = chunk_of(false, None);
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..2 {
        let (replica, chunk) = (replica.clone(), chunk.clone());
        tasks.spawn(async move {
            for part in (0..bytes.div_ceil(PART_BYTES)).filter(|part| part % 2 == lane) {
                let part_bytes = PART_BYTES.min(bytes - part * PART_BYTES);
                for offset in (0..part_bytes).step_by(MIB as usize) {
                    let (next, payload) = (offset + MIB, chunk.clone());
                    replica.chunk(part as u32, offset, payload, next, next == part_bytes).await.expect("taken");
                    if syncs && next % (16 * MIB) == 0 {
                        replica.sync().await.expect("synced");
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    replica.seed_done().await.expect("whole");
    replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn seed_against_cp_and_sync() {
    const SIZE_MIB: u64 = 2048;
    for syncs in [false, true] {
        let rig = Rig::new().await;
        let from = rig.dir.with_file_name("from");
        let mut file = std::fs::File::create(&from).expect("made");
        let chunk = chunk_of(false, None);
        for _ in 0..SIZE_MIB {
            file.write_all(&chunk[4..]).expect("written");
        }
        file.sync_all().expect("synced");
        let started = Instant::now();
        let to = rig.dir.join("to");
        assert!(
            std::process::Command::new("cp").arg("--reflink=never").args([&from, &to]).status().expect("run").success()
        );
        std::fs::File::open(&to).expect("open").sync_all().expect("synced");
        let cp = started.elapsed();
        std::fs::remove_file(&to).expect("removed");
        std::fs::remove_file(&from).expect("removed");
        let started = Instant::now();
        let _replica = seeded(&rig, SIZE_MIB, syncs).await;
        let seed = started.elapsed();
        let rate = |took: Duration| SIZE_MIB as f64 / took.as_secs_f64();
        println!(
            "seed of {SIZE_MIB} MiB, sync every 16 MiB of a part: {syncs}: {:.0} MiB/s; cp and sync {:.0} MiB/s; ratio {:.2}; peak RSS {} MiB",
            rate(seed),
            rate(cp),
            cp.as_secs_f64() / seed.as_secs_f64(),
            rss_mib("VmHWM")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn log_of_ten_pages_a_transaction() {
    const TRANSACTIONS: u64 = 100_000;
    for (what, spread) in [("a 16 MiB working set", 4096u32), ("a 400 MiB working set", 102_400)] {
        for per_batch in [1u64, 25, 100] {
            let rig = Rig::new().await;
            let replica = seeded(&rig, 512, false).await;
            let transactions = if per_batch == 1 { TRANSACTIONS / 5 } else { TRANSACTIONS };
            let (mut seq, mut random, mut spent) = (0u64, 1u64, Duration::ZERO);
            let page = [7; PAGE as usize];
            for _ in 0..transactions / per_batch {
                let mut payload = BytesMut::with_capacity((per_batch * 10) as usize * (PAGE as usize + 8) + 8);
                begin_log(&mut payload, PAGE);
                for _ in 0..per_batch {
                    for frame in 0..10u32 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        // Two hot pages in each transaction, as a root and a header are.
                        let pgno = if frame < 2 { frame + 1 } else { (random >> 33) as u32 % spread + 3 };
                        let commit = if frame == 9 { 131_072 } else { 0 };
                        push_frame(&mut payload, Frame { pgno, commit, page: &page });
                    }
                }
                let to = seq + per_batch * 10;
                let batch = LogBatch {
                    from: at(seq),
                    to: at(to),
                    payload: payload.freeze(),
                    transactions: per_batch,
                    seen_ms: 0,
                };
                seq = to;
                let started = Instant::now();
                replica.log(batch).await.expect("taken");
                spent += started.elapsed();
            }
            let started = Instant::now();
            replica.sync().await.expect("synced");
            let synced = started.elapsed();
            println!(
                "log, {what}, {per_batch} transactions a batch: {:.0} txn/s taken, {:.0} txn/s with the last sync",
                transactions as f64 / spent.as_secs_f64(),
                transactions as f64 / (spent + synced).as_secs_f64()
            );
        }
    }
}

/// A batch of transactions of ten pages each, two of which are the same in all of them as a root is.
fn batch_of(seq: u64, transactions: u64, pages: u32, random: &mut u64) -> LogBatch {
    let mut payload = BytesMut::new();
    begin_log(&mut payload, PAGE);
    for frame in 0..transactions * 10 {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (pgno, commit) = match frame % 10 {
            n @ (0 | 1) => (n as u32 + 2, 0),
            n => ((*random >> 33) as u32 % (pages - 3) + 4, if n == 9 { pages } else { 0 }),
        };
        push_frame(&mut payload, Frame { pgno, commit, page: &[7; PAGE as usize] });
    }
    let (from, to) = (at(seq), at(seq + transactions * 10));
    LogBatch { from, to, payload: payload.freeze(), transactions, seen_ms: 0 }
}

/// The recipe's way to apply a batch: the last image of each page, through SQLite, in one transaction.
fn through_sqlite(db: &rusqlite::Connection, batch: &LogBatch) {
    let log = crate::sqlite::wire::Log::decode(&batch.payload).expect("decoded");
    let last: std::collections::BTreeMap<u32, &[u8]> = log.frames().map(|f| (f.pgno, f.page)).collect();
    db.execute_batch("BEGIN IMMEDIATE").expect("begun");
    let mut put = db.prepare_cached("INSERT INTO sqlite_dbpage(pgno, data) VALUES(?1, ?2)").expect("prepared");
    for (pgno, page) in last {
        put.execute((pgno, page)).expect("put");
    }
    db.execute_batch("COMMIT").expect("committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn raw_apply_against_sqlite_dbpage() {
    const PAGES: u32 = 8192;
    for (per_batch, batches) in [(1u64, 2000u64), (100, 100)] {
        let rig = Rig::new().await;
        let replica = seeded(&rig, u64::from(PAGES) * u64::from(PAGE) / MIB, false).await;
        let open = |name: &str, synchronous: &str| {
            let db = rusqlite::Connection::open(rig.dir.join(name)).expect("open");
            db.execute_batch(&format!(
                "PRAGMA page_size={PAGE}; PRAGMA journal_mode=wal; PRAGMA synchronous={synchronous};
                 CREATE TABLE t(v); INSERT INTO t VALUES(zeroblob({}))",
                u64::from(PAGES) * u64::from(PAGE)
            ))
            .expect("made");
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpointed");
            db
        };
        let (full, off) = (open("full.db", "FULL"), open("off.db", "OFF"));
        let (mut random, mut took) = (1, [Duration::ZERO; 3]);
        // In turns, so that whatever else the machine does meets all three.
        for n in 0..batches {
            let batch = batch_of(n * per_batch * 10, per_batch, PAGES, &mut random);
            for (took, db) in took[1..].iter_mut().zip([&full, &off]) {
                let started = Instant::now();
                through_sqlite(db, &batch);
                *took += started.elapsed();
            }
            let started = Instant::now();
            replica.log(batch).await.expect("taken");
            took[0] += started.elapsed();
        }
        let started = Instant::now();
        replica.sync().await.expect("synced");
        took[0] += started.elapsed();
        let rates = took.map(|took| (batches * per_batch) as f64 / took.as_secs_f64());
        println!(
            "{per_batch} transactions a batch: raw with its last sync {:.0} txn/s, sqlite_dbpage with synchronous=FULL {:.0}, OFF {:.0}",
            rates[0], rates[1], rates[2]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn marker_and_promotion() {
    let (mut settles, mut markers, mut flips) = (vec![], vec![], vec![]);
    for _ in 0..30 {
        let rig = Rig::new().await;
        let replica = rig.open().await;
        replica.plan(&rig.feed.plan(1, false)).await.expect("planned");
        rig.feed.seed(&replica).await;
        replica.seed_done().await.expect("whole");
        let batches = rig.feed.log(0, 20);
        let (last, most) = batches.split_last().expect("there are some");
        for batch in most {
            replica.log(batch.clone()).await.expect("taken");
        }
        let started = Instant::now();
        replica.settle().await.expect("settled");
        settles.push(started.elapsed().as_secs_f64() * 1e3);
        replica.log(last.clone()).await.expect("taken");
        let started = Instant::now();
        replica.prepare_marker(&rig.feed.end()).await.expect("prepared");
        markers.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        rig.dest.promote(&rig.primary()).await.expect("promoted");
        flips.push(started.elapsed().as_secs_f64() * 1e3);
    }
    for (what, times) in [("settle", &mut settles), ("prepare_marker", &mut markers), ("promote", &mut flips)] {
        times.sort_by(f64::total_cmp);
        println!(
            "{what}: median {:.2} ms, largest {:.2} ms of {}",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len()
        );
    }
}
