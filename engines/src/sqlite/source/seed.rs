//! The seed: the database file as it lies there, read while writers and checkpoints change it.
//!
//! What is torn or newer is put right by the log, which has every page that a checkpoint can have written since the
//! plan was made.

use super::{
    hashes::{Hashes, hash},
    wal::restore,
};
use crate::{
    Error, Result,
    source::{Chunk, Part},
    sqlite::wire::{Digest, SeedHeader, Sparse, full_prefix},
};
use bytes::{Bytes, BytesMut};
use rustix::{buffer::spare_capacity, fs::Advice, io::Errno};
use std::fs::File;

/// How far the kernel is told to read ahead, in bytes.
const AHEAD: u64 = 4 << 20;

/// The parts of a plan.
pub fn parts(header: &SeedHeader, name: &str) -> Vec<Part> {
    let count = header.parts();
    let mut parts = Vec::with_capacity(count as usize);
    for part in 0..count {
        let (begin, end) = range(header, part);
        let object = if count == 1 { name.to_owned() } else { format!("{name} {}/{count}", part + 1) };
        parts.push(Part { part, object, bytes: end - begin });
    }
    parts
}

fn range(header: &SeedHeader, part: u32) -> (u64, u64) {
    let begin = u64::from(part) * header.part_bytes;
    (begin, (begin + header.part_bytes).min(header.file_bytes).max(begin))
}

/// Reads one chunk. With `hashes` it is noted what was read, for the passes over a rollback-journal database.
pub fn chunk(
    file: &File,
    header: &SeedHeader,
    hashes: Option<&Hashes>,
    (part, offset, max): (u32, u64, usize),
    digest: Option<&Bytes>,
) -> Result<Chunk> {
    let size = u64::from(header.page_size);
    let (begin, end) = range(header, part);
    if part >= header.parts() || offset > end - begin || offset % size != 0 {
        return Err(Error::Misuse(format!("there is no chunk at {offset} of part {part}")));
    }
    let at = begin + offset;
    let want = (max as u64 / size).max(1) * size;
    let len = want.min(end - at);
    let last = at + len == end;
    // Beyond that the file has only what comes with the log.
    let file_bytes = (last && part + 1 == header.parts()).then_some(header.file_bytes);

    if !last {
        // Each chunk moves the window on by its own length; only the first of a part has to fill it, for to walk over
        // what is there already costs time as well.
        let begin = if offset == 0 { at + len } else { at + AHEAD.max(len) };
        let length = std::num::NonZeroU64::new(at + len + AHEAD - begin);
        // Only advice: what it fails with matters to nobody.
        let _ = rustix::fs::fadvise(file, begin, length, Advice::WillNeed);
    }
    let mut prefix = BytesMut::with_capacity(16);
    full_prefix(&mut prefix, file_bytes);
    let mut out = Vec::with_capacity(prefix.len() + len as usize);
    out.extend_from_slice(&prefix);
    let read = read_at(file, &mut out, at, len as usize)?;
    // The file may have shrunk since the plan; the log says so too.
    out.truncate(prefix.len() + read - read % size as usize);
    let pages = &mut out[prefix.len()..];
    if at == 0 {
        restore(pages);
    }
    if let Some(hashes) = hashes {
        let found: Vec<u128> = pages.chunks_exact(size as usize).map(hash).collect();
        hashes.seeded(at / size, &found)?;
    }
    let payload = match digest {
        None => Bytes::from(out),
        Some(digest) => {
            let digest = Digest::decode(digest)?;
            let mut sparse = Sparse::new(u32::try_from(len).unwrap_or(u32::MAX), file_bytes);
            for (index, page) in pages.chunks_exact(size as usize).enumerate() {
                if !digest.matches(index, page) {
                    sparse.push(u32::try_from(index).unwrap_or(u32::MAX), page);
                }
            }
            sparse.finish()
        }
    };
    Ok(Chunk { payload, next_offset: offset + len, last, rows: 0 })
}

/// Appends up to `len` bytes of the file to `out`, fewer only at its end; answers how many. Nothing is zeroed or copied.
pub fn read_at(file: &File, out: &mut Vec<u8>, at: u64, len: usize) -> Result<usize> {
    let begin = out.len();
    out.reserve(len);
    while out.len() - begin < len {
        let done = out.len() - begin;
        // Vec may have reserved more than asked for.
        let spare = out.capacity() - out.len();
        let got = if spare == len - done {
            rustix::io::pread(file, spare_capacity(out), at + done as u64)
        } else {
            let mut bounded = vec![0; len - done];
            let got = rustix::io::pread(file, &mut bounded, at + done as u64);
            if let Ok(got) = got {
                out.extend_from_slice(&bounded[..got]);
            }
            got
        };
        match got {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::io("read the database file", e.into())),
        }
    }
    Ok(out.len() - begin)
}
