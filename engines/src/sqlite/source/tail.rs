//! The tail of a WAL: reads what is committed, and keeps frames that were not read from being overwritten.
//!
//! A read transaction (the *hold*) keeps the WAL from being reset. A hold that stands still makes the WAL grow and makes
//! an application's checkpoint wait, so it moves: a new read transaction begins on a second connection, everything
//! committed by then is drained, and only then the old one ends. After that a change of the salts is always safe: either
//! the new hold has a read mark, which prevents a reset; or SQLite gave it lock 0, because all was backfilled at that
//! moment, and then frames that follow cannot be backfilled, so a reset can only come while there are none.

mod fence;
mod rotate;

use super::{
    connect,
    fence::stands,
    identity,
    wal::{self, Cursor, FrameReader},
    wal_index::WalIndex,
};
use crate::{
    Error, Result,
    sqlite::{disk, header, wire::Point},
};
use handover::Incarnation;
use rusqlite::Connection;
use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the log must have stood still for the hold to move at once: somebody may be waiting for it.
const STILL: Duration = Duration::from_millis(1);
/// The longest that the hold stands still under load, so that applications' own checkpoints get somewhere.
const STANDING_MAX: Duration = Duration::from_millis(20);
/// How often it is checked that the files are still the ones with these names.
const FILES_EVERY: Duration = Duration::from_millis(250);

/// Takes what the tail reads.
pub trait Sink {
    /// Frames in the form of the wire, up to a point.
    fn frames(&mut self, to: Point, frames: &[u8], transactions: u64) -> Result<()>;
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// The tail of one database's WAL. Dropping it lets go of everything.
pub struct Tail {
    path: PathBuf,
    incarnation: Incarnation,
    wal: File,
    page_size: u32,
    reader: FrameReader,
    cursor: Cursor,
    /// Where the cursor stood when the hold last moved.
    held: Cursor,
    /// The hold may be on lock 0 of the WAL before: it keeps checkpoints from working, so it leaves at once.
    fresh: bool,
    /// How often the hold has moved since the log stood still. Once is not enough: SQLite may have given it lock 0 or a read
    /// mark, and an old one where a checkpoint kept the better ones for itself at that moment. Nothing tells which, and one
    /// that stands wrong makes that checkpoint wait, with the write lock held.
    still_moves: u32,
    still_since: Duration,
    moved_at: Duration,
    files_checked_at: Duration,
    rotation: rotate::Rotation,
    /// The fence is ours and stands.
    fenced: bool,
    /// For the write lock of a rotation, once there was one.
    writer: Option<Connection>,
    // Connections are closed in this order; the one in `index` keeps the mapping and goes last.
    hold: Connection,
    spare: Connection,
    index: WalIndex,
}

impl Tail {
    /// Begins a log for a seed that starts to be copied after this call: everything that is not in the file yet comes
    /// after [`Tail::cursor`], whose `seq` is the one given.
    pub fn begin(path: &Path, incarnation: &Incarnation, seq: u64) -> Result<Self> {
        let mut tail = Self::open(path, incarnation)?;
        let (header, backfilled) = tail.index.header_and_backfilled()?;
        // Frames up to there are in the file and synced; a checkpoint writes later ones only, and those are replayed.
        let mut cursor = Cursor { seq, salt: header.salt, frame: backfilled, checksum: header.checksum };
        if header.frames > 0 {
            let wal_header = tail.wal_header()?;
            let fits = wal_header.salt == header.salt && wal_header.page_size == tail.page_size;
            if !fits {
                return Err(Error::LogLost("the WAL's header does not fit its index".to_owned()));
            }
            tail.reader.begin_at(&wal_header);
            if backfilled < header.frames {
                match wal::read_frame_header(&tail.wal, tail.page_size, backfilled)? {
                    Some(frame) if frame.salt == header.salt => cursor.checksum = frame.checksum,
                    _ => cursor.frame = 0,
                }
            }
        }
        if cursor.frame == 0 {
            cursor.checksum = [0, 0];
        }
        tail.cursor = cursor;
        tail.held = cursor;
        Ok(tail)
    }

    /// Goes on after `cursor`, which an earlier agent reached. Fails with [`Error::LogLost`] unless it is certain that
    /// nothing is missing.
    pub fn resume(path: &Path, incarnation: &Incarnation, cursor: Cursor) -> Result<Self> {
        let mut tail = Self::open(path, incarnation)?;
        let header = tail.index.header()?;
        let lost = |why: &str| Err(Error::LogLost(format!("after the agent's restart {why}")));
        if cursor.salt == [0, 0] {
            return lost("there is no telling what an empty WAL held meanwhile");
        }
        let frame = |number| wal::read_frame_header(&tail.wal, tail.page_size, number);
        let ours = |f: &wal::FrameHeader| f.salt == cursor.salt && f.checksum == cursor.checksum;
        let intact = cursor.frame > 0 && frame(cursor.frame)?.is_some_and(|f| ours(&f));
        if header.salt == cursor.salt {
            if header.frames < cursor.frame {
                return lost("the WAL is behind what was read from it (a power cut with synchronous=NORMAL?)");
            }
            if cursor.frame > 0 && !intact {
                return lost("the WAL's last frame that was read has been replaced");
            }
        } else {
            // One reset, after our frame and with no frame in between: ours is intact, and the one after it is from
            // an earlier WAL still. Without a frame after it, one may have been cut off by journal_size_limit.
            let next = frame(cursor.frame.saturating_add(1))?;
            let was_last = next.is_some_and(|f| f.salt != cursor.salt);
            if !intact || !was_last || header.salt[0] != cursor.salt[0].wrapping_add(1) {
                return lost("the WAL was reset, and some of it may not have been read");
            }
        }
        if let Some(wal_header) = wal::read_header(&tail.wal)? {
            tail.reader.begin_at(&wal_header);
        }
        tail.cursor = cursor;
        tail.held = cursor;
        Ok(tail)
    }

    /// Goes on after `seq` at what the WAL is now, although nothing tells how it came to be so. Only for a log that reached
    /// the operation's own fence, and only while that stands: then nobody has written since, and nothing is missing. Fails
    /// with [`Error::LogLost`] if no fence stands.
    pub fn join(path: &Path, incarnation: &Incarnation, seq: u64) -> Result<Self> {
        let mut tail = Self::open(path, incarnation)?;
        let header = tail.index.header()?;
        // Looked at after the index: whoever lifts the fence writes, and what is written after it belongs to the log.
        if !stands(&connect::first_page(&tail.spare)?) {
            return Err(Error::LogLost("the WAL was interrupted, and no fence stands".to_owned()));
        }
        if let Some(wal_header) = wal::read_header(&tail.wal)? {
            tail.reader.begin_at(&wal_header);
        }
        let checksum = if header.frames > 0 { header.checksum } else { [0, 0] };
        tail.cursor = Cursor { seq, salt: header.salt, frame: header.frames, checksum };
        tail.held = tail.cursor;
        Ok(tail)
    }

    fn open(path: &Path, incarnation: &Incarnation) -> Result<Self> {
        identity::check(path, incarnation)?;
        let (hold, spare) = (connect::open(path)?, connect::open(path)?);
        connect::begin_read(&hold)?;
        let index = WalIndex::of(connect::open(path)?)?;
        let page_size = index
            .anchor()
            .query_row("PRAGMA main.page_size", [], |row| row.get(0))
            .map_err(connect::busy_or("read the page size"))?;
        header::check_page_size(page_size)?;
        let wal_path = disk::beside(path, "-wal");
        let wal = File::open(&wal_path).map_err(|e| Error::io(format!("open {}", wal_path.display()), e))?;
        let cursor = Cursor { seq: 0, salt: [0, 0], frame: 0, checksum: [0, 0] };
        let tail = Self {
            path: path.to_owned(),
            incarnation: incarnation.clone(),
            wal,
            page_size,
            reader: FrameReader::new(page_size),
            cursor,
            held: cursor,
            fresh: true,
            still_moves: 0,
            still_since: Duration::ZERO,
            moved_at: Duration::ZERO,
            files_checked_at: Duration::ZERO,
            rotation: rotate::Rotation::default(),
            fenced: false,
            writer: None,
            hold,
            spare,
            index,
        };
        tail.check_files()?;
        Ok(tail)
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// Where the tail stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Makes what was read durable at the source: an application with synchronous=NORMAL does not.
    pub fn sync(&self) -> Result<()> {
        self.wal.sync_data().map_err(|e| Error::io("sync the WAL", e))
    }

    /// Reads everything committed and answers the number of frames. The hold stays where it is.
    pub fn drain(&mut self, sink: &mut dyn Sink) -> Result<u64> {
        let mut retries = 0;
        let begin = self.cursor.seq;
        loop {
            let header = self.index.header()?;
            match self.drain_to(&header, sink) {
                // The index is the word of who holds the lock; when it moved meanwhile, look again.
                Err(Error::LogLost(_)) if retries < 3 && self.index.header()? != header => retries += 1,
                other => return other.map(|()| self.cursor.seq - begin),
            }
        }
    }

    fn drain_to(&mut self, header: &super::wal_index::IndexHeader, sink: &mut dyn Sink) -> Result<()> {
        if header.salt != self.cursor.salt {
            if header.frames == 0 {
                // Reset, with nothing committed in it yet; its salts may still change.
                return Ok(());
            }
            self.cursor = Cursor { salt: header.salt, frame: 0, checksum: [0, 0], ..self.cursor };
            self.fresh = true;
        }
        if header.frames < self.cursor.frame {
            return Err(Error::LogLost("the WAL went back".to_owned()));
        }
        while self.cursor.frame < header.frames {
            let mut next = self.cursor;
            let frames = self.reader.read(&self.wal, &mut next, header.frames)?;
            sink.frames(next.point(), frames.wire, frames.transactions)?;
            self.cursor = next;
        }
        if header.frames > 0 && self.cursor.checksum != header.checksum {
            return Err(Error::LogLost("the checksum of the WAL's index is not that of its last frame".to_owned()));
        }
        Ok(())
    }

    /// Moves the hold to now. See the module's words for the order, which is everything here.
    pub fn rehold(&mut self, sink: &mut dyn Sink) -> Result<()> {
        match connect::begin_read(&self.spare) {
            Ok(()) => {}
            // Somebody recovers or closes; the old hold stands, and the next turn tries again.
            Err(Error::Busy(_)) => return Ok(()),
            Err(e) => return Err(e),
        }
        if let Err(e) = self.drain(sink) {
            connect::end(&self.spare)?;
            return Err(e);
        }
        connect::end(&self.hold)?;
        std::mem::swap(&mut self.hold, &mut self.spare);
        self.held = self.cursor;
        self.fresh = false;
        self.moved_at = sink.now();
        Ok(())
    }

    /// One turn: reads what is new and moves the hold when that is due. Answers the number of frames read.
    pub fn turn(&mut self, sink: &mut dyn Sink) -> Result<u64> {
        let now = sink.now();
        if now.saturating_sub(self.files_checked_at) >= FILES_EVERY {
            self.files_checked_at = now;
            self.check_files()?;
        }
        let frames = self.drain(sink)?;
        if frames > 0 {
            self.still_since = now;
            self.still_moves = 0;
        }
        if self.fresh {
            self.rehold(sink)?;
        } else if frames == 0 && now.saturating_sub(self.still_since) >= STILL {
            let pause = (STILL * 2u32.pow(self.still_moves.min(5))).min(STANDING_MAX);
            if self.cursor != self.held || now.saturating_sub(self.moved_at) >= pause {
                self.rehold(sink)?;
                self.still_moves = self.still_moves.saturating_add(1);
            }
        } else if self.cursor != self.held && now.saturating_sub(self.moved_at) >= STANDING_MAX {
            self.rehold(sink)?;
        }
        Ok(frames)
    }

    /// Fails unless the database and its WAL are still the files with these names. A WAL that was removed under us would
    /// take our fence with it.
    pub fn check_files(&self) -> Result<()> {
        identity::check(&self.path, &self.incarnation)?;
        let wal_path = disk::beside(&self.path, "-wal");
        let ours = self.wal.metadata().map_err(|e| Error::io("examine the WAL", e))?;
        match std::fs::symlink_metadata(&wal_path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            Ok(_) => Err(Error::LogLost("the WAL file was replaced by another one".to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::LogLost("the WAL file was removed".to_owned()))
            }
            Err(e) => Err(Error::io(format!("examine {}", wal_path.display()), e)),
        }
    }

    /// After a fence was lifted: connections that saw it take the database for read-only until they are opened anew.
    pub fn reconnect(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.fenced = false;
        self.writer = None;
        connect::end(&self.spare)?;
        self.spare = connect::open(&self.path)?;
        self.rehold(sink)?;
        connect::end(&self.spare)?;
        self.spare = connect::open(&self.path)?;
        self.index = WalIndex::of(connect::open(&self.path)?)?;
        Ok(())
    }

    /// The path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn wal_header(&self) -> Result<wal::WalHeader> {
        wal::read_header(&self.wal)?.ok_or_else(|| Error::LogLost("the WAL has no valid header".to_owned()))
    }
}
