//! The log that is retained for one operation: segment files in the agent's own directory, one writer, one reader.
//!
//! The WAL is drained into it all the time, so that the WAL can be reset however long the destination stays away. It is
//! not synced: a process that dies loses nothing, and after a power cut a hole is found by the records' checksums and
//! the seed is verified again.
//!
//! A segment's name holds the epoch of the agent that writes it, so an agent that was stopped, superseded and wakes up
//! appends to a file that nobody reads any further than the newer agent found it.

mod record;

use crate::{
    Error, Result,
    sqlite::{disk, wire::Point},
};
use record::{Record, scan};
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::IoSlice,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The payload of one record, in bytes: small enough that a batch can be cut near any size asked for.
pub const RECORD_BYTES: usize = 256 << 10;

/// The retained log. All calls block for a few file operations at most.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    epoch: u64,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    writer: Option<File>,
    reader: Option<Place>,
    start: Point,
    end: Point,
}

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    epoch: u64,
    from: Point,
    to: Point,
    bytes: u64,
    first_ms: i64,
}

/// Where the reader stands: before the record that begins at `point`.
#[derive(Debug)]
struct Place {
    point: Point,
    path: PathBuf,
    file: File,
    offset: u64,
}

/// What [`Spool::read`] found.
#[derive(Debug)]
pub struct Piece {
    /// Where it ends.
    pub to: Point,
    /// Transactions that end in it.
    pub transactions: u64,
    /// When the newest of them was seen, in milliseconds since 1970.
    pub seen_ms: i64,
}

impl Spool {
    /// Reads what earlier agents left, up to the first record that is damaged or does not follow. `None` if there is
    /// nothing that can be gone on from.
    pub fn recover(dir: &Path, epoch: u64, segment_bytes: u64) -> Result<Option<Self>> {
        let mut found = vec![];
        for path in disk::list(dir)? {
            if let Some((from_seq, epoch)) = parse_name(&path) {
                found.push((epoch, from_seq, path));
            }
        }
        found.sort();
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for (i, (segment_epoch, _, path)) in found.iter().enumerate() {
            // A newer epoch's first segment begins where that agent found the end: what lies beyond is a sleeper's.
            let limit = found[i + 1..].iter().find(|(e, ..)| e > segment_epoch).map(|(_, seq, _)| *seq);
            let last = i + 1 == found.len();
            let expected = segments.back().map(|s| s.to);
            match scan(path, limit, last)? {
                Some(scanned) if expected.is_none_or(|to| to == scanned.from) => segments.push_back(Segment {
                    path: path.clone(),
                    epoch: *segment_epoch,
                    from: scanned.from,
                    to: scanned.to,
                    bytes: scanned.bytes,
                    first_ms: scanned.first_ms,
                }),
                // Damage or a hole: what follows does not follow any more and goes in the same way.
                _ => disk::remove(path).map(|_| ())?,
            }
        }
        let (Some(first), Some(last)) = (segments.front(), segments.back()) else { return Ok(None) };
        let (start, end) = (first.from, last.to);
        let dir = dir.to_owned();
        Ok(Some(Self { dir, epoch, segment_bytes, segments, writer: None, reader: None, start, end }))
    }

    /// An empty one that begins at `start`; what is there is removed.
    pub fn create(dir: &Path, epoch: u64, segment_bytes: u64, start: Point) -> Result<Self> {
        disk::make_dir(dir)?;
        for path in disk::list(dir)? {
            if parse_name(&path).is_some() {
                disk::remove(&path)?;
            }
        }
        let dir = dir.to_owned();
        Ok(Self { dir, epoch, segment_bytes, segments: VecDeque::new(), writer: None, reader: None, start, end: start })
    }

    /// Where it begins: an earlier point is not held any more.
    pub fn start(&self) -> Point {
        self.start
    }

    /// Where it ends.
    pub fn end(&self) -> Point {
        self.end
    }

    /// Bytes that it takes on the disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// When each segment's first record was seen: `(from, ms)`.
    pub fn ages(&self) -> impl Iterator<Item = (u64, i64)> {
        self.segments.iter().map(|s| (s.from.seq(), s.first_ms))
    }

    /// Adds a record of whole frames that begins at the end.
    pub fn append(&mut self, to: Point, frames: &[u8], transactions: u64, seen_ms: i64) -> Result<()> {
        let record = Record { from: self.end, to, transactions, seen_ms, len: frames.len() };
        let full = self.segments.back().is_none_or(|s| s.epoch != self.epoch || s.bytes >= self.segment_bytes);
        if self.writer.is_none() || full {
            self.add_segment(seen_ms)?;
        }
        let (Some(file), Some(segment)) = (&self.writer, self.segments.back_mut()) else {
            return Err(Error::Internal("a spool has no segment to write to".to_owned()));
        };
        let head = record.encode(frames);
        write_all(file, &head, frames, segment.bytes)
            .map_err(|e| Error::io(format!("write {}", segment.path.display()), e))?;
        segment.bytes += (head.len() + frames.len()) as u64;
        segment.to = to;
        self.end = to;
        Ok(())
    }

    /// Appends frames after `after` to `into`, whole records, at least one and then up to `max` bytes of them, none that
    /// ends beyond `limit`. The caller has seen that there is one. Fails with [`Error::LogLost`] if `after` is not the
    /// start of a record that is held.
    pub fn read(&mut self, after: Point, max: usize, limit: u64, into: &mut bytes::BytesMut) -> Result<Piece> {
        let mut place = self.place(after)?;
        let begin = into.len();
        let mut piece: Option<Piece> = None;
        loop {
            let record = Record::read(&place.file, place.offset)
                .map_err(|e| Error::io("read retained log", e))?
                .filter(|r| r.from == place.point);
            let fits = |r: &Record| piece.is_none() || into.len() - begin + r.len <= max;
            let Some(record) = record.filter(|r| r.to.seq() <= limit && fits(r)) else { break };
            record.read_frames(&place.file, place.offset, into)?;
            place.offset += record.bytes();
            place.point = record.to;
            piece = Some(Piece {
                to: record.to,
                transactions: record.transactions + piece.map_or(0, |p| p.transactions),
                seen_ms: record.seen_ms,
            });
        }
        match piece {
            Some(piece) => {
                self.reader = Some(place);
                Ok(piece)
            }
            None => Err(lost(&after)),
        }
    }

    /// Removes segments that lie wholly before `durable`.
    pub fn confirm(&mut self, durable: &Point) -> Result<()> {
        while let Some(first) = self.segments.front()
            && first.to.seq() <= durable.seq()
            && (self.segments.len() > 1 || first.bytes >= self.segment_bytes)
        {
            let whole = self.segments.len() == 1;
            disk::remove(&first.path)?;
            self.start = first.to;
            self.segments.pop_front();
            if whole {
                self.writer = None;
            }
        }
        Ok(())
    }

    /// Whether `point` can be read from.
    pub fn holds(&mut self, point: Point) -> bool {
        point == self.end || self.place(point).map(|place| self.reader = Some(place)).is_ok()
    }

    fn place(&mut self, point: Point) -> Result<Place> {
        let held = self.reader.take().filter(|r| r.point == point);
        let segment = self.segments.iter().find(|s| s.from.seq() <= point.seq() && point.seq() < s.to.seq());
        let segment = segment.ok_or_else(|| lost(&point))?;
        let open = |path: &Path| match File::open(path) {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(lost(&point)),
            Err(e) => Err(Error::io(format!("open {}", path.display()), e)),
        };
        let mut place = match held {
            Some(place) if place.path == segment.path => return Ok(place),
            // The end of one segment is the beginning of the next.
            _ => Place { point: segment.from, path: segment.path.clone(), file: open(&segment.path)?, offset: 0 },
        };
        while place.point != point {
            let record = Record::read(&place.file, place.offset).map_err(|e| Error::io("read retained log", e))?;
            match record {
                Some(r) if r.from == place.point && r.to.seq() <= point.seq() => {
                    place.offset += r.bytes();
                    place.point = r.to;
                }
                _ => return Err(lost(&point)),
            }
        }
        Ok(place)
    }

    fn add_segment(&mut self, first_ms: i64) -> Result<()> {
        let path = self.dir.join(format!("{:020}-{:010}.log", self.end.seq(), self.epoch));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io(format!("create {}", path.display()), e))?;
        self.writer = Some(file);
        let (epoch, from) = (self.epoch, self.end);
        self.segments.push_back(Segment { path, epoch, from, to: from, bytes: 0, first_ms });
        Ok(())
    }
}

fn write_all(file: &File, head: &[u8], frames: &[u8], at: u64) -> std::io::Result<()> {
    let written = rustix::io::pwritev(file, &[IoSlice::new(head), IoSlice::new(frames)], at)?;
    if written < head.len() {
        file.write_all_at(&head[written..], at + written as u64)?;
    }
    let rest = written.saturating_sub(head.len());
    file.write_all_at(&frames[rest..], at + (head.len() + rest) as u64)
}

/// `<seq of the first record's start>-<epoch>.log`.
fn parse_name(path: &Path) -> Option<(u64, u64)> {
    let (seq, epoch) = path.file_name()?.to_str()?.strip_suffix(".log")?.split_once('-')?;
    Some((seq.parse().ok()?, epoch.parse().ok()?))
}

fn lost(point: &Point) -> Error {
    Error::LogLost(format!("nothing is retained after {point}"))
}

#[cfg(test)]
mod tests;
