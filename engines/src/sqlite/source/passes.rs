//! The log of a database with a rollback journal: the pages that differ from one pass over the file to the next.
//!
//! Passes read without a lock while writers go on, so what they send is no consistent database until a last pass under
//! the write lock. Writers wait for that one: the preflight warns with an estimate.

use super::{
    connect,
    feed::Feed,
    fence::{self, Call, stands},
    hashes::{self, Hashes},
    identity,
    seed::read_at,
    spool::RECORD_BYTES,
    tail::Sink,
    wal::restore,
};
use crate::{
    Error, Result,
    sqlite::{
        files,
        header::{Header, lock_page},
        wire::Point,
    },
};
use handover::Incarnation;
use rusqlite::Connection;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How much of the file is read at once.
const READ: usize = 1 << 20;
/// The least time between two passes.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How often the header is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a mark waits for the write lock.
const MARK_WAIT: Duration = Duration::from_secs(5);
/// How long the commit of a fence waits for readers at least, whatever the grace has left.
const COMMIT_WAIT: Duration = Duration::from_millis(500);

/// The passes over one database.
pub struct Passes {
    path: PathBuf,
    incarnation: Incarnation,
    file: Arc<File>,
    page_size: u32,
    hashes: Arc<Hashes>,
    pass: u32,
    seq: u64,
    /// Whether passes may begin: before, the seed itself is still being read.
    pub seeded: bool,
    /// What the file said before the last pass.
    passed: Option<Look>,
    looked_at: Duration,
    next_at: Duration,
}

/// What tells that a file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    counter: u32,
    bytes: u64,
}

impl Passes {
    /// Goes on from a point of an earlier agent, or begins.
    pub fn begin(path: &Path, incarnation: &Incarnation, hashes: Arc<Hashes>, from: Point) -> Result<Self> {
        let Point::Rollback { pass, seq } = from else {
            return Err(Error::LogLost("the journal mode is not WAL any more".to_owned()));
        };
        identity::check(path, incarnation)?;
        let file = files::open(path)?;
        let Some(header) = Header::of(&file)? else {
            return Err(Error::Corrupt("the database file is empty".to_owned()));
        };
        if header.is_wal() {
            return Err(Error::LogLost("the journal mode is WAL now".to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            incarnation: incarnation.clone(),
            file,
            page_size: header.page_size,
            hashes,
            pass,
            seq,
            seeded: false,
            passed: None,
            looked_at: Duration::ZERO,
            next_at: Duration::ZERO,
        })
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// Where the log stands.
    pub fn point(&self) -> Point {
        Point::Rollback { pass: self.pass, seq: self.seq }
    }

    /// The hashes, which the seed notes too.
    pub fn hashes(&self) -> Arc<Hashes> {
        self.hashes.clone()
    }

    /// One turn: makes a pass if the file changed and the last pass is long enough ago. Answers whether it did.
    pub fn turn(&mut self, feed: &Feed, sink: &mut dyn Sink, now_ms: i64, stop: &dyn Fn() -> bool) -> Result<bool> {
        let now = sink.now();
        if now.saturating_sub(self.looked_at) < LOOK_EVERY {
            return Ok(false);
        }
        self.looked_at = now;
        identity::check(&self.path, &self.incarnation)?;
        let look = self.look()?;
        if !self.seeded || self.passed == Some(look) {
            feed.set_pending(0, 0);
            return Ok(false);
        }
        if now < self.next_at {
            return Ok(false);
        }
        self.pass(sink, None, stop)?;
        // What comes during and after this pass is about a page, for all that is known.
        feed.set_pending(u64::from(self.page_size), now_ms);
        feed.publish();
        let took = sink.now().saturating_sub(now);
        self.next_at = sink.now() + PAUSE_MIN.max(took * 2);
        if !stop() {
            self.passed = Some(look);
        }
        Ok(true)
    }

    fn look(&self) -> Result<Look> {
        let header = Header::of(&self.file)?.ok_or_else(|| Error::Corrupt("the database file is empty".to_owned()))?;
        if header.is_wal() {
            return Err(Error::LogLost("the journal mode is WAL now".to_owned()));
        }
        let bytes = self.file.metadata().map_err(|e| Error::io("examine the database file", e))?.len();
        Ok(Look { counter: header.change_counter, bytes })
    }

    /// Sends every page that differs from what the destination will have. The last pass covers exactly `pages` pages and
    /// ends with page 1, which closes it as a transaction.
    fn pass(&mut self, sink: &mut dyn Sink, pages: Option<u32>, stop: &dyn Fn() -> bool) -> Result<()> {
        self.pass = self.pass.saturating_add(1);
        let size = self.page_size as usize;
        let bytes = match pages {
            Some(pages) => u64::from(pages) * size as u64,
            None => self.file.metadata().map_err(|e| Error::io("examine the database file", e))?.len(),
        };
        let lock_index = u64::from(lock_page(self.page_size)) - 1;
        let (mut buffer, mut frames) = (Vec::with_capacity(READ), Vec::with_capacity(RECORD_BYTES + size + 8));
        let mut at = 0;
        while at < bytes && !(pages.is_none() && stop()) {
            let len = (bytes - at).min(READ as u64) as usize;
            buffer.clear();
            read_at(&self.file, &mut buffer, at, len)?;
            let first = at / size as u64;
            at += len as u64;
            if first == 0 {
                restore(&mut buffer);
            }
            let found: Vec<u128> = buffer.chunks_exact(size).map(hashes::hash).collect();
            let known = self.hashes.get(first, found.len())?;
            for (i, page) in buffer.chunks_exact(size).enumerate() {
                let index = first + i as u64;
                let held_back = index == 0 && pages.is_some();
                if found[i] != known[i] && index != lock_index && !held_back {
                    self.push(&mut frames, index, 0, page);
                    if frames.len() >= RECORD_BYTES {
                        self.flush(sink, &mut frames, 0)?;
                    }
                }
            }
            // In the log first: a hash without its image would lose the page.
            self.flush(sink, &mut frames, 0)?;
            self.hashes.logged(first, &found)?;
        }
        if let Some(pages) = pages {
            buffer.clear();
            read_at(&self.file, &mut buffer, 0, size)?;
            restore(&mut buffer);
            self.push(&mut frames, 0, pages, &buffer);
            self.flush(sink, &mut frames, 1)?;
            self.hashes.truncate(u64::from(pages))?;
        }
        Ok(())
    }

    fn push(&mut self, frames: &mut Vec<u8>, index: u64, commit: u32, page: &[u8]) {
        self.seq += 1;
        frames.extend_from_slice(&u32::try_from(index + 1).unwrap_or(u32::MAX).to_le_bytes());
        frames.extend_from_slice(&commit.to_le_bytes());
        frames.extend_from_slice(page);
    }

    fn flush(&mut self, sink: &mut dyn Sink, frames: &mut Vec<u8>, transactions: u64) -> Result<()> {
        if !frames.is_empty() {
            sink.frames(self.point(), frames, transactions)?;
            frames.clear();
        }
        Ok(())
    }

    /// Takes a consistent point, with writers waiting for the length of one pass.
    pub fn mark(&mut self, feed: &Feed, sink: &mut dyn Sink, stop: &dyn Fn() -> bool) -> Result<Point> {
        let db = connect::open(&self.path)?;
        self.pass(sink, None, stop)?;
        let until = sink.now() + MARK_WAIT;
        while !connect::try_begin_write(&db)? {
            if sink.now() >= until || stop() {
                return Err(Error::Busy("a client holds the write lock".to_owned()));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let passed = self.last_pass(&db, sink);
        connect::end(&db)?;
        passed?;
        feed.publish();
        Ok(self.point())
    }

    fn last_pass(&mut self, db: &Connection, sink: &mut dyn Sink) -> Result<()> {
        let pages = connect::patiently(|| db.query_row("PRAGMA main.page_count", [], |row| row.get(0)))
            .map_err(connect::busy_or("count the pages"))?;
        let look = self.look()?;
        self.pass(sink, Some(pages), &|| false)?;
        self.passed = Some(look);
        Ok(())
    }

    /// As [`super::tail::Tail::fence`]: the last pass and the fence are one write transaction.
    pub fn fence(&mut self, feed: &Feed, sink: &mut dyn Sink, call: &mut Call<'_>) -> Result<Point> {
        identity::check(&self.path, &self.incarnation)?;
        let db = connect::open(&self.path)?;
        let page = connect::first_page(&db)?;
        if call.record(&page)? {
            // Our own, from before a crash: nobody writes, so this pass needs no lock.
            self.last_pass(&db, sink)?;
            feed.publish();
            return feed.cap(None);
        }
        self.pass(sink, None, call.stop)?;
        feed.publish();
        let until = sink.now() + call.grace;
        while !connect::try_begin_write(&db)? {
            if sink.now() >= until || (call.stop)() {
                return Err(call.busy());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let fenced = self.fence_locked(&db, feed, sink, call, until);
        if fenced.is_err() {
            connect::end(&db)?;
            feed.uncap();
        }
        fenced
    }

    fn fence_locked(
        &mut self,
        db: &Connection,
        feed: &Feed,
        sink: &mut dyn Sink,
        call: &mut Call<'_>,
        until: Duration,
    ) -> Result<Point> {
        let page = connect::first_page(db)?;
        if stands(&page) {
            return Err(fence::foreign());
        }
        self.last_pass(db, sink)?;
        let point = feed.cap(None)?;
        feed.publish();
        fence::write(db, page)?;
        call.store.check()?;
        identity::check(&self.path, &self.incarnation)?;
        let until = until.max(sink.now() + COMMIT_WAIT);
        while !fence::try_commit(db)? {
            if sink.now() >= until || (call.stop)() {
                return Err(call.busy());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        identity::check(&self.path, &self.incarnation)?;
        Ok(point)
    }
}
