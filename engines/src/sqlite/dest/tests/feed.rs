//! A source without its engine: a real database whose WAL is read frame by frame.

use crate::{
    dest::DestReplica,
    source::{LogBatch, Part, Plan},
    sqlite::wire::{Frame, Journal, Point, SeedHeader, begin_log, full_prefix, push_frame},
};
use bytes::{Bytes, BytesMut};
use handover::Position;
use rusqlite::Connection;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes of a chunk: small, so that there are several.
const CHUNK: u64 = 16 << 10;

pub struct Feed {
    path: PathBuf,
    page_size: u32,
    db: Connection,
}

/// All rows, in order.
pub fn rows(path: &Path) -> Vec<(i64, String)> {
    let db = Connection::open(path).expect("open");
    let mut all = db.prepare("SELECT id, v FROM t ORDER BY id").expect("prepared");
    let rows = all.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).expect("read");
    rows.collect::<rusqlite::Result<_>>().expect("read")
}

impl Feed {
    /// A database with 200 rows in its file and ten transactions in its WAL, one of which shrinks it.
    pub fn new(path: &Path, page_size: u32) -> Self {
        let db = Connection::open(path).expect("open");
        db.execute_batch(&format!(
            "PRAGMA page_size={page_size}; PRAGMA auto_vacuum=full; PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0;
             CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT NOT NULL)"
        ))
        .expect("made");
        let feed = Self { path: path.to_owned(), page_size, db };
        feed.write(0, 200);
        feed.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpointed");
        for n in 0..8 {
            feed.write(200 + n * 10, 10);
        }
        feed.db.execute("DELETE FROM t WHERE id BETWEEN 50 AND 180", []).expect("shrunk");
        feed.write(1000, 3);
        feed
    }

    /// One transaction of `count` rows.
    pub fn write(&self, first: i64, count: i64) {
        self.db.execute_batch("BEGIN").expect("begun");
        for id in first..first + count {
            let v = format!("{id}").repeat(200);
            self.db.execute("INSERT INTO t VALUES(?1, ?2)", (id, v)).expect("written");
        }
        self.db.execute_batch("COMMIT").expect("committed");
    }

    pub fn rows(&self) -> Vec<(i64, String)> {
        rows(&self.path)
    }

    pub fn file(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("read")
    }

    pub fn at(&self, seq: u64) -> Position {
        Point::Wal { seq, salt: [1, 2], frame: seq as u32, checksum: [3, 4] }.position()
    }

    pub fn plan(&self, generation: u64, verify: bool) -> Plan {
        let file_bytes = self.file().len() as u64;
        let part_bytes = 64 << 10;
        let header =
            SeedHeader { page_size: self.page_size, journal: Journal::Wal, file_bytes, part_bytes, mode: 0o640 };
        let part = |part| Part { part, object: "shop.db".into(), bytes: part_bytes };
        Plan {
            generation,
            parts: (0..header.parts()).map(part).collect(),
            verify,
            log_start: self.at(0),
            log_resume: self.at(0),
            header: header.encode(),
        }
    }

    /// Part, offset, payload, next offset and whether it is the last, of every chunk.
    pub fn chunks(&self) -> Vec<(u32, u64, Bytes, u64, bool)> {
        let (file, plan) = (self.file(), self.plan(1, false));
        let part_bytes = SeedHeader::decode(&plan.header).expect("decoded").part_bytes;
        let chunk = CHUNK.max(u64::from(self.page_size));
        let mut chunks = vec![];
        for (at, bytes) in file.chunks(chunk as usize).enumerate() {
            let at = at as u64 * chunk;
            let end = at + bytes.len() as u64;
            let whole = end == file.len() as u64;
            let mut payload = BytesMut::new();
            full_prefix(&mut payload, whole.then_some(end));
            payload.extend_from_slice(bytes);
            let offset = at % part_bytes;
            let next = offset + bytes.len() as u64;
            chunks.push(((at / part_bytes) as u32, offset, payload.freeze(), next, next == part_bytes || whole));
        }
        chunks
    }

    pub async fn seed(&self, replica: &Arc<dyn DestReplica>) {
        for (part, offset, payload, next, last) in self.chunks() {
            replica.chunk(part, offset, payload, next, last).await.expect("taken");
        }
    }

    /// The frames of the WAL: page number, size after a commit, page.
    fn frames(&self) -> Vec<(u32, u32, Vec<u8>)> {
        let wal = std::fs::read(self.path.with_extension("db-wal")).expect("read");
        let be = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        let salts = wal[16..24].to_vec();
        let frames = wal[32..].chunks_exact(24 + self.page_size as usize);
        frames.filter(|f| f[8..16] == salts).map(|f| (be(f), be(&f[4..]), f[24..].to_vec())).collect()
    }

    /// Log after `from` in batches of `per_batch` frames, cut wherever that falls.
    pub fn log(&self, from: u64, per_batch: usize) -> Vec<LogBatch> {
        let (frames, mut seq, mut batches) = (self.frames(), from, vec![]);
        for frames in frames[from as usize..].chunks(per_batch) {
            let mut payload = BytesMut::new();
            begin_log(&mut payload, self.page_size);
            for (pgno, commit, page) in frames {
                push_frame(&mut payload, Frame { pgno: *pgno, commit: *commit, page });
            }
            let to = seq + frames.len() as u64;
            batches.push(LogBatch {
                from: self.at(seq),
                to: self.at(to),
                payload: payload.freeze(),
                transactions: frames.iter().filter(|f| f.1 != 0).count() as u64,
                seen_ms: 0,
            });
            seq = to;
        }
        batches
    }

    /// Sends the log after `from` and answers its end.
    pub async fn log_to(&self, replica: &Arc<dyn DestReplica>, from: u64, per_batch: usize) -> Position {
        for batch in self.log(from, per_batch) {
            replica.log(batch).await.expect("taken");
        }
        self.end()
    }

    pub fn end(&self) -> Position {
        self.at(self.frames().len() as u64)
    }

    pub fn frame_count(&self) -> u64 {
        self.frames().len() as u64
    }

    /// How many frames the first transaction of the WAL has.
    pub fn first_commit(&self) -> u64 {
        self.frames().iter().position(|f| f.1 != 0).expect("there is one") as u64 + 1
    }
}
