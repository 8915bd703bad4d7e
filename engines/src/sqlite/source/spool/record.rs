//! One record of retained log: where it begins and ends, its frames, and a checksum over all of it.

use crate::{Error, Result, sqlite::wire::Point};
use bytes::{Buf, BufMut, BytesMut};
use std::{fs::File, os::unix::fs::FileExt, path::Path};

const MAGIC: u32 = 0x4357_4c31;
/// Magic, checksum, two points of 33 bytes, transactions, time, length.
const HEAD: usize = 4 + 4 + 2 * 33 + 8 + 8 + 4;
/// No record is longer: more is damage.
const LEN_MAX: usize = 8 << 20;

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it begins: the end of the one before.
    pub from: Point,
    /// Where it ends.
    pub to: Point,
    /// Transactions that end in it.
    pub transactions: u64,
    /// When it was read from the WAL, in milliseconds since 1970.
    pub seen_ms: i64,
    /// Bytes of its frames.
    pub len: usize,
}

impl Record {
    /// Bytes that it takes in the file.
    pub fn bytes(&self) -> u64 {
        (HEAD + self.len) as u64
    }

    /// The head for these frames.
    pub fn encode(&self, frames: &[u8]) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        let mut at = &mut out[..];
        at.put_u32_le(MAGIC);
        at.put_u32_le(0);
        put_point(&mut at, &self.from);
        put_point(&mut at, &self.to);
        at.put_u64_le(self.transactions);
        at.put_i64_le(self.seen_ms);
        at.put_u32_le(u32::try_from(self.len).unwrap_or(u32::MAX));
        let sum = crc32c::crc32c_append(crc32c::crc32c(&out[8..]), frames);
        out[4..8].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a head; `None` if what is there is none.
    pub fn read(file: &File, at: u64) -> std::io::Result<Option<Self>> {
        let mut bytes = [0; HEAD];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Self::decode(&bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn decode(bytes: &[u8; HEAD]) -> Option<Self> {
        let mut at = &bytes[..];
        let (magic, _) = (at.get_u32_le(), at.get_u32_le());
        let (from, to) = (get_point(&mut at)?, get_point(&mut at)?);
        let (transactions, seen_ms) = (at.get_u64_le(), at.get_i64_le());
        let len = at.get_u32_le() as usize;
        let plausible = magic == MAGIC && (1..=LEN_MAX).contains(&len) && from.seq() < to.seq();
        plausible.then_some(Self { from, to, transactions, seen_ms, len })
    }

    /// Appends the frames to `into`, and checks the whole record.
    pub fn read_frames(&self, file: &File, at: u64, into: &mut BytesMut) -> Result<()> {
        let begin = into.len();
        into.resize(begin + self.len, 0);
        let frames = &mut into[begin..];
        let mut head = [0; HEAD];
        let whole = file.read_exact_at(&mut head, at).and_then(|()| file.read_exact_at(frames, at + HEAD as u64));
        match whole {
            Ok(()) if self.encode(frames) == head => Ok(()),
            Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(Error::io("read retained log", e)),
            _ => Err(Error::LogLost(format!("the retained log is damaged after {}", self.from))),
        }
    }
}

/// What a segment holds.
#[derive(Debug)]
pub struct Scanned {
    /// Where its first record begins.
    pub from: Point,
    /// Where its last one ends.
    pub to: Point,
    /// Bytes of its records.
    pub bytes: u64,
    /// When its first record was read from the WAL.
    pub first_ms: i64,
}

/// Walks over a segment up to the first record that is damaged, does not follow or begins at `limit` or beyond. Only with
/// `thorough` are frames read: a process that dies can damage the last segment only, and whoever reads a record later
/// checks it again. `None` if not one record is whole.
pub fn scan(path: &Path, limit: Option<u64>, thorough: bool) -> Result<Option<Scanned>> {
    let wrap = |e| Error::io(format!("read {}", path.display()), e);
    let file = File::open(path).map_err(wrap)?;
    let len = file.metadata().map_err(wrap)?.len();
    let mut scanned: Option<Scanned> = None;
    let mut frames = BytesMut::new();
    loop {
        let at = scanned.as_ref().map_or(0, |s| s.bytes);
        let Some(record) = Record::read(&file, at).map_err(wrap)? else { break };
        let follows = scanned.as_ref().is_none_or(|s| s.to == record.from);
        if !follows || at + record.bytes() > len || limit.is_some_and(|limit| record.from.seq() >= limit) {
            break;
        }
        if thorough {
            frames.clear();
            match record.read_frames(&file, at, &mut frames) {
                Ok(()) => {}
                Err(Error::LogLost(_)) => break,
                Err(e) => return Err(e),
            }
        }
        let scanned =
            scanned.get_or_insert(Scanned { from: record.from, to: record.to, bytes: 0, first_ms: record.seen_ms });
        scanned.to = record.to;
        scanned.bytes += record.bytes();
    }
    Ok(scanned)
}

fn put_point(out: &mut &mut [u8], point: &Point) {
    match point {
        Point::Wal { seq, salt, frame, checksum } => {
            out.put_u8(1);
            out.put_u64_le(*seq);
            for word in [salt[0], salt[1], *frame, checksum[0], checksum[1], 0] {
                out.put_u32_le(word);
            }
        }
        Point::Rollback { pass, seq } => {
            out.put_u8(2);
            out.put_u64_le(*seq);
            for word in [*pass, 0, 0, 0, 0, 0] {
                out.put_u32_le(word);
            }
        }
    }
}

fn get_point(bytes: &mut &[u8]) -> Option<Point> {
    let (kind, seq) = (bytes.get_u8(), bytes.get_u64_le());
    let [a, b, c, d, e, _] = std::array::from_fn(|_| bytes.get_u32_le());
    match kind {
        1 => Some(Point::Wal { seq, salt: [a, b], frame: c, checksum: [d, e] }),
        2 => Some(Point::Rollback { pass: a, seq }),
        _ => None,
    }
}
