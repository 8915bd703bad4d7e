//! Payloads: seed chunks, digests and pieces of log.

use super::{Reader, VERSION};
use crate::{
    Error, Result,
    sqlite::header::{WRITE_VERSION, check_page_size},
};
use bytes::{BufMut, Bytes, BytesMut};

const KIND_FULL: u8 = 1;
const KIND_SPARSE: u8 = 2;
const KIND_DIGEST: u8 = 3;
const KIND_LOG: u8 = 4;
const HAS_FILE_BYTES: u8 = 1;

/// One piece of a seed, decoded without copying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkPayload {
    /// The pages.
    pub body: Body,
    /// Only in the last chunk of the last part: how long the file is.
    pub file_bytes: Option<u64>,
}

/// The pages of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// All bytes of the range.
    Full(Bytes),
    /// Those pages of the range that differ.
    Sparse {
        /// Bytes of the range.
        range_bytes: u32,
        /// Index of each page within the range, ascending, with its bytes.
        pages: Vec<(u32, Bytes)>,
    },
}

impl ChunkPayload {
    /// Decodes a chunk of a database with this page size. An empty payload says that nothing differs.
    pub fn decode(payload: &Bytes, page_size: u32) -> Result<Self> {
        if payload.is_empty() {
            return Ok(Self { body: Body::Sparse { range_bytes: 0, pages: vec![] }, file_bytes: None });
        }
        let mut read = Reader::new("chunk", payload)?;
        let (kind, flags) = (read.byte()?, read.byte()?);
        read.byte()?;
        let file_bytes = if flags & HAS_FILE_BYTES == 0 { None } else { Some(read.u64()?) };
        let size = page_size as usize;
        let body = match kind {
            KIND_FULL if read.rest.len() % size == 0 => Body::Full(payload.slice_ref(read.rest)),
            KIND_FULL => return Err(read.corrupt("not whole pages")),
            KIND_SPARSE => {
                let (range_bytes, count) = (read.u32()?, read.u32()?);
                if read.rest.len() != count as usize * (4 + size) {
                    return Err(read.corrupt("its length does not fit the number of pages"));
                }
                let mut pages: Vec<(u32, Bytes)> = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    let index = read.u32()?;
                    let beyond = (u64::from(index) + 1) * u64::from(page_size) > u64::from(range_bytes);
                    if beyond || pages.last().is_some_and(|(last, _)| *last >= index) {
                        return Err(read.corrupt("a page is out of place"));
                    }
                    pages.push((index, payload.slice_ref(read.take(size)?)));
                }
                Body::Sparse { range_bytes, pages }
            }
            other => return Err(read.corrupt(&format!("kind {other}"))),
        };
        Ok(Self { body, file_bytes })
    }
}

/// What a full chunk begins with; the bytes of the range follow it directly.
pub fn full_prefix(out: &mut BytesMut, file_bytes: Option<u64>) {
    prefix(out, KIND_FULL, file_bytes);
}

fn prefix(out: &mut BytesMut, kind: u8, file_bytes: Option<u64>) {
    out.put_slice(&[VERSION, kind, if file_bytes.is_some() { HAS_FILE_BYTES } else { 0 }, 0]);
    if let Some(bytes) = file_bytes {
        out.put_u64_le(bytes);
    }
}

/// Builds a sparse chunk.
#[derive(Debug)]
pub struct Sparse {
    out: BytesMut,
    count_at: usize,
    count: u32,
    says_more: bool,
}

impl Sparse {
    /// Begins one for a range.
    pub fn new(range_bytes: u32, file_bytes: Option<u64>) -> Self {
        let mut out = BytesMut::new();
        prefix(&mut out, KIND_SPARSE, file_bytes);
        out.put_u32_le(range_bytes);
        let count_at = out.len();
        out.put_u32_le(0);
        Self { out, count_at, count: 0, says_more: file_bytes.is_some() }
    }

    /// Adds the page at an index of the range; indexes ascend.
    pub fn push(&mut self, index: u32, page: &[u8]) {
        self.out.put_u32_le(index);
        self.out.put_slice(page);
        self.count += 1;
    }

    /// The payload: empty if nothing differs and there is nothing else to say.
    pub fn finish(mut self) -> Bytes {
        if self.count == 0 && !self.says_more {
            return Bytes::new();
        }
        self.out[self.count_at..self.count_at + 4].copy_from_slice(&self.count.to_le_bytes());
        self.out.freeze()
    }
}

/// The digest of a range: one xxh3-128 for each whole page that is there. It is no proof against an enemy, who would
/// need the operation's certificate and token anyway; it finds pages that differ by chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(Bytes);

impl Digest {
    /// Bytes for one page.
    pub const PAGE: usize = 16;

    /// Digests whole pages; what is left over at the end counts as absent.
    pub fn of(bytes: &[u8], page_size: u32) -> Self {
        let mut out = BytesMut::with_capacity(4 + bytes.len() / page_size as usize * Self::PAGE);
        out.put_slice(&[VERSION, KIND_DIGEST, 0, 0]);
        for page in bytes.chunks_exact(page_size as usize) {
            out.put_u128_le(xxhash_rust::xxh3::xxh3_128(page));
        }
        Self(out.freeze())
    }

    /// Decodes one.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut read = Reader::new("digest", bytes)?;
        let kind = read.byte()?;
        read.take(2)?;
        if kind != KIND_DIGEST || read.rest.len() % Self::PAGE != 0 {
            return Err(read.corrupt("not a list of digests"));
        }
        Ok(Self(bytes.clone()))
    }

    /// For the wire.
    pub fn encode(&self) -> Bytes {
        self.0.clone()
    }

    /// Whether the page at an index of the range is there and is this one.
    pub fn matches(&self, index: usize, page: &[u8]) -> bool {
        let at = 4 + index * Self::PAGE;
        self.0.get(at..at + Self::PAGE).is_some_and(|d| *d == xxhash_rust::xxh3::xxh3_128(page).to_le_bytes())
    }

    /// How many pages it covers.
    pub fn pages(&self) -> usize {
        (self.0.len() - 4) / Self::PAGE
    }
}

/// One page image of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The page's number, counted from 1.
    pub pgno: u32,
    /// If a transaction ends here: how many pages the database has after it. Else 0.
    pub commit: u32,
    /// The page.
    pub page: &'a [u8],
}

/// A piece of log, decoded.
#[derive(Clone, Copy, Debug)]
pub struct Log<'a> {
    page_size: u32,
    frames: &'a [u8],
}

/// Begins the payload of a piece of log.
pub fn begin_log(out: &mut BytesMut, page_size: u32) {
    out.put_slice(&[VERSION, KIND_LOG, 0, 0]);
    out.put_u32_le(page_size);
}

/// Adds a frame. A page 1 of a fenced database must have its header restored before.
pub fn push_frame(out: &mut BytesMut, frame: Frame<'_>) {
    out.put_u32_le(frame.pgno);
    out.put_u32_le(frame.commit);
    out.put_slice(frame.page);
}

impl<'a> Log<'a> {
    /// Decodes and checks one; no frame is looked at twice later.
    pub fn decode(payload: &'a [u8]) -> Result<Self> {
        let mut read = Reader::new("log", payload)?;
        let kind = read.byte()?;
        read.take(2)?;
        let page_size = read.u32()?;
        if kind != KIND_LOG {
            return Err(read.corrupt(&format!("kind {kind}")));
        }
        check_page_size(page_size)?;
        if read.rest.is_empty() || read.rest.len() % (8 + page_size as usize) != 0 {
            return Err(read.corrupt("not whole frames"));
        }
        let log = Self { page_size, frames: read.rest };
        for frame in log.frames() {
            if frame.pgno == 0 {
                return Err(read.corrupt("a frame of page 0"));
            }
            // A fence that travels would make the destination read-only for good.
            if frame.pgno == 1 && frame.page[WRITE_VERSION] == super::header::FENCED {
                return Err(Error::Corrupt("the log carries a fence".to_owned()));
            }
        }
        Ok(log)
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// How many frames it has; at least one.
    pub fn len(&self) -> usize {
        self.frames.len() / (8 + self.page_size as usize)
    }

    /// Never true; for form's sake.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The frames in their order.
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = Frame<'a>> + use<'a> {
        self.frames.chunks_exact(8 + self.page_size as usize).map(|frame| Frame {
            pgno: u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]),
            commit: u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]),
            page: &frame[8..],
        })
    }
}
