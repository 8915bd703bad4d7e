//! What the two halves of the SQLite engine say to each other. Numbers are little-endian, every piece opens with the
//! version byte, and a decoder checks every length: malformed bytes are [`Error::Corrupt`], never a panic.

mod payload;
mod position;

pub use payload::{Body, ChunkPayload, Digest, Frame, Log, Sparse, begin_log, full_prefix, push_frame};
pub use position::Point;

use super::header;
use crate::{Error, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The version of everything here.
pub const VERSION: u8 = 1;

/// Bytes of the main file in one part of a seed; the last part is shorter. Large enough that parts are few (32 for
/// 2 GB), small enough that a lane is never busy with one for long.
pub const PART_BYTES: u64 = 64 << 20;

/// How a database keeps its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Journal {
    /// A write-ahead log: the log is its frames.
    Wal,
    /// A rollback journal: the log is the pages that changed since the pass before.
    Rollback,
}

/// The header of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedHeader {
    /// Bytes of a page.
    pub page_size: u32,
    /// How the source keeps its transactions.
    pub journal: Journal,
    /// Length of the main file when the plan was made.
    pub file_bytes: u64,
    /// Bytes of the main file in one part: part k begins at `k * part_bytes`.
    pub part_bytes: u64,
    /// Permission bits that the file has at the source, and will have at the destination.
    pub mode: u32,
}

impl SeedHeader {
    const LEN: usize = 32;

    /// Encodes it.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(&[VERSION, matches!(self.journal, Journal::Rollback).into(), 0, 0]);
        out.extend_from_slice(&self.page_size.to_le_bytes());
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.extend_from_slice(&self.part_bytes.to_le_bytes());
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.into()
    }

    /// Decodes and checks it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut read = Reader::new("plan header", bytes)?;
        let journal = match read.byte()? {
            0 => Journal::Wal,
            1 => Journal::Rollback,
            other => return Err(read.corrupt(&format!("journal kind {other}"))),
        };
        read.take(2)?;
        let page_size = read.u32()?;
        header::check_page_size(page_size)?;
        let (file_bytes, part_bytes, mode) = (read.u64()?, read.u64()?, read.u32()?);
        read.take(4)?;
        if part_bytes == 0 || !part_bytes.is_multiple_of(u64::from(page_size)) {
            return Err(read.corrupt("parts are not whole pages"));
        }
        // The largest database of SQLite: 2^32 - 2 pages. A file beyond it is no database.
        if file_bytes > u64::from(page_size) * u64::from(u32::MAX) {
            return Err(read.corrupt("the file is longer than any database"));
        }
        read.end()?;
        Ok(Self { page_size, journal, file_bytes, part_bytes, mode: mode & 0o7777 })
    }

    /// How many parts the seed has: at least one, so that there is always a last chunk.
    pub fn parts(&self) -> u32 {
        u32::try_from(self.file_bytes.div_ceil(self.part_bytes).max(1)).unwrap_or(u32::MAX)
    }
}

/// What a database needs at its destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Version of this text: [`VERSION`].
    pub format: u8,
    /// Bytes of a page.
    pub page_size: u32,
    /// Bytes that the seed takes on the destination's disk.
    pub bytes: u64,
    /// `SQLITE_VERSION_NUMBER` of the source agent's library, for example 3051003.
    pub sqlite_version: u32,
    /// `SQLITE_VERSION_NUMBER` of the library that last wrote the file, from its header; 0 if it is not known.
    pub written_by: u32,
    /// How the database keeps its transactions.
    pub journal: Journal,
    /// Permission bits of the file.
    pub mode: u32,
}

impl Requirements {
    /// Encodes it.
    pub fn encode(&self) -> Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|e| Error::Internal(format!("encode requirements: {e}")))
    }

    /// Decodes and checks it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let requirements: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::Corrupt(format!("requirements cannot be read: {e}")))?;
        if requirements.format != VERSION {
            return Err(Error::Corrupt(format!("requirements have the unknown format {}", requirements.format)));
        }
        header::check_page_size(requirements.page_size)?;
        Ok(requirements)
    }
}

/// Reads a piece front to back; every step checks that there are bytes for it.
struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins after the version byte.
    fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Self { what, rest: bytes };
        match reader.byte()? {
            VERSION => Ok(reader),
            other => Err(reader.corrupt(&format!("version {other}, this agent knows {VERSION}"))),
        }
    }

    fn corrupt(&self, why: &str) -> Error {
        Error::Corrupt(format!("malformed {}: {why}", self.what))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.corrupt("too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.corrupt("too short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes are left over")) }
    }
}

#[cfg(test)]
mod tests;
