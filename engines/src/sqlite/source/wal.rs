//! The WAL file: its header, its frames and their checksums (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).

use crate::{
    Error, Result,
    sqlite::{
        header::{FENCED, READ_VERSION, WRITE_VERSION, check_page_size},
        wire::Point,
    },
};
use std::{fs::File, os::unix::fs::FileExt};

/// Bytes before the first frame.
pub const HEADER: usize = 32;
/// Bytes before the page of a frame.
pub const FRAME_HEADER: usize = 24;
/// Bytes of a frame on the wire before its page: page number and commit size.
const WIRE_HEADER: usize = 8;
/// How much of the WAL is read at once, in bytes: one record of the spool.
const READ: usize = super::spool::RECORD_BYTES;

/// A place in the log: after a frame of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Frames since the operation began.
    pub seq: u64,
    /// The WAL's salts.
    pub salt: [u32; 2],
    /// The frame; 0 before the first.
    pub frame: u32,
    /// The running checksum after it; of no meaning at frame 0.
    pub checksum: [u32; 2],
}

impl Cursor {
    /// As a point.
    pub fn point(&self) -> Point {
        Point::Wal { seq: self.seq, salt: self.salt, frame: self.frame, checksum: self.checksum }
    }

    /// From a point, if it is one in a WAL.
    pub fn of(point: &Point) -> Option<Self> {
        match *point {
            Point::Wal { seq, salt, frame, checksum } => Some(Self { seq, salt, frame, checksum }),
            Point::Rollback { .. } => None,
        }
    }
}

/// What a WAL says at its start.
#[derive(Clone, Copy, Debug)]
pub struct WalHeader {
    /// Bytes of a page.
    pub page_size: u32,
    /// The salts.
    pub salt: [u32; 2],
    /// Its checksum, with which that of the first frame begins.
    pub checksum: [u32; 2],
    /// Whether checksums take big-endian words.
    pub big_endian: bool,
}

/// What stands before the page of a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    /// The salts with which it was written.
    pub salt: [u32; 2],
    /// The running checksum after it.
    pub checksum: [u32; 2],
}

/// Reads and checks the header; `None` if there is no whole and valid one.
pub fn read_header(wal: &File) -> Result<Option<WalHeader>> {
    let mut bytes = [0; HEADER];
    if !read_whole(wal, &mut bytes, 0)? {
        return Ok(None);
    }
    let magic = be(&bytes, 0);
    let (big_endian, page_size) = (magic & 1 == 1, be(&bytes, 8));
    let sum = checksum(big_endian, [0, 0], &bytes[..24]);
    if magic & !1 != 0x377f_0682 || sum != [be(&bytes, 24), be(&bytes, 28)] || check_page_size(page_size).is_err() {
        return Ok(None);
    }
    Ok(Some(WalHeader { page_size, salt: [be(&bytes, 16), be(&bytes, 20)], checksum: sum, big_endian }))
}

/// Reads what stands before the page of a frame; `None` if the file ends before.
pub fn read_frame_header(wal: &File, page_size: u32, frame: u32) -> Result<Option<FrameHeader>> {
    let mut bytes = [0; FRAME_HEADER];
    if frame == 0 || !read_whole(wal, &mut bytes, offset(page_size, frame - 1))? {
        return Ok(None);
    }
    Ok(Some(FrameHeader { salt: [be(&bytes, 8), be(&bytes, 12)], checksum: [be(&bytes, 16), be(&bytes, 20)] }))
}

/// Where the frame after `frame` begins.
fn offset(page_size: u32, frame: u32) -> u64 {
    HEADER as u64 + u64::from(frame) * (FRAME_HEADER as u64 + u64::from(page_size))
}

/// Reads frames in order, checks them, and brings them into the form of the wire.
#[derive(Debug)]
pub struct FrameReader {
    page_size: u32,
    big_endian: bool,
    raw: Vec<u8>,
    wire: Vec<u8>,
}

/// What [`FrameReader::read`] found.
#[derive(Debug)]
pub struct Frames<'a> {
    /// The frames as on the wire, without the payload's header.
    pub wire: &'a [u8],
    /// Transactions that end in them.
    pub transactions: u64,
}

impl FrameReader {
    /// For a WAL of this page size.
    pub fn new(page_size: u32) -> Self {
        Self { page_size, big_endian: false, raw: vec![], wire: vec![] }
    }

    /// Reads some frames after `cursor`, at most to frame `last`, and moves the cursor behind them. The
    /// caller knows from the index that these frames are committed and cannot be overwritten; a frame that does not fit is
    /// [`Error::LogLost`].
    pub fn read(&mut self, wal: &File, cursor: &mut Cursor, last: u32) -> Result<Frames<'_>> {
        if cursor.frame == 0 {
            let header = read_header(wal)?.filter(|h| h.salt == cursor.salt && h.page_size == self.page_size);
            let header = header.ok_or_else(|| lost(0, "the WAL's header does not fit its index"))?;
            cursor.checksum = header.checksum;
            self.big_endian = header.big_endian;
        }
        let len = FRAME_HEADER + self.page_size as usize;
        let count = (last.saturating_sub(cursor.frame) as usize).min((READ / len).max(1));
        self.raw.resize(count * len, 0);
        if !read_whole(wal, &mut self.raw, offset(self.page_size, cursor.frame))? {
            return Err(lost(cursor.frame + 1, "the WAL is shorter than its index says"));
        }
        self.wire.clear();
        let mut transactions = 0;
        let mut next = *cursor;
        for frame in self.raw.chunks_exact_mut(len) {
            let (head, page) = frame.split_at_mut(FRAME_HEADER);
            next.frame += 1;
            next.seq += 1;
            if [be(head, 8), be(head, 12)] != next.salt {
                return Err(lost(next.frame, "its salts are not those of the WAL"));
            }
            next.checksum = checksum(self.big_endian, checksum(self.big_endian, next.checksum, &head[..8]), page);
            if [be(head, 16), be(head, 20)] != next.checksum {
                return Err(lost(next.frame, "its checksum is wrong"));
            }
            let (pgno, commit) = (be(head, 0), be(head, 4));
            if pgno == 1 {
                restore(page);
            }
            transactions += u64::from(commit != 0);
            self.wire.extend_from_slice(&pgno.to_le_bytes());
            self.wire.extend_from_slice(&commit.to_le_bytes());
            self.wire.extend_from_slice(page);
        }
        *cursor = next;
        Ok(Frames { wire: &self.wire, transactions })
    }

    /// Sets the byte order for a cursor in the middle of a WAL.
    pub fn begin_at(&mut self, header: &WalHeader) {
        self.big_endian = header.big_endian;
    }

    /// Bytes of a frame on the wire.
    pub fn wire_frame(page_size: u32) -> usize {
        WIRE_HEADER + page_size as usize
    }
}

/// Takes the fence out of an image of page 1: whoever gets it must be able to write. The read version is never touched
/// by a fence, and SQLite keeps both equal.
pub fn restore(page_one: &mut [u8]) {
    if let Some([write, read]) = page_one.get_mut(WRITE_VERSION..=READ_VERSION)
        && *write == FENCED
    {
        *write = *read;
    }
}

/// SQLite's running checksum over whole pairs of words.
pub fn checksum(big_endian: bool, mut sum: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let word: fn([u8; 4]) -> u32 = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    if big_endian {
        for pair in bytes.chunks_exact(8) {
            step(&mut sum, word([pair[0], pair[1], pair[2], pair[3]]), word([pair[4], pair[5], pair[6], pair[7]]));
        }
    } else {
        for pair in bytes.chunks_exact(8) {
            let pair: [u8; 8] = [pair[0], pair[1], pair[2], pair[3], pair[4], pair[5], pair[6], pair[7]];
            let both = u64::from_le_bytes(pair);
            step(&mut sum, both as u32, (both >> 32) as u32);
        }
    }
    sum
}

#[inline(always)]
fn step(sum: &mut [u32; 2], first: u32, second: u32) {
    sum[0] = sum[0].wrapping_add(first).wrapping_add(sum[1]);
    sum[1] = sum[1].wrapping_add(second).wrapping_add(sum[0]);
}

fn lost(frame: u32, why: &str) -> Error {
    Error::LogLost(format!("frame {frame} of the WAL: {why}"))
}

/// Fills `into`; false if the file ends before.
fn read_whole(file: &File, into: &mut [u8], at: u64) -> Result<bool> {
    match file.read_exact_at(into, at) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(Error::io("read the WAL", e)),
    }
}

fn be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
