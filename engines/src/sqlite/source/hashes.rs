//! For a rollback-journal database: which image of each page the destination has or will have, as a hash in a file.

use crate::{Error, Result};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Bytes of one entry.
const ENTRY: usize = 16;
/// No image was read yet; also what a hole in the file reads as.
const NEVER: u128 = 0;
/// Two images were read, and which one arrived is not known: the next pass sends the page whatever it is.
const UNCERTAIN: u128 = 1;

/// The hashes of all pages, 16 bytes each. Not synced: after a power cut the generation ends.
#[derive(Debug)]
pub struct Hashes {
    // Reading and writing an entry is one step.
    file: Mutex<File>,
}

impl Hashes {
    /// Opens the file of this agent's epoch in an operation's directory; with `keep` it begins with what the newest
    /// earlier agent knew. A copy, because that one may wake up and write to its own.
    pub fn open(dir: &Path, epoch: u64, keep: bool) -> Result<Self> {
        let path = dir.join(format!("hashes-{epoch:010}"));
        let wrap = |e| Error::io(format!("open {}", path.display()), e);
        let mut old = vec![];
        for found in crate::sqlite::disk::list(dir)? {
            if found.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("hashes-")) {
                old.push(found);
            }
        }
        let newest = old.last().cloned();
        if keep
            && let Some(newest) = &newest
            && *newest != path
        {
            std::fs::copy(newest, &path).map_err(wrap)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(!keep)
            .mode(0o600)
            .open(&path)
            .map_err(wrap)?;
        for found in old.iter().filter(|found| **found != path) {
            crate::sqlite::disk::remove(found)?;
        }
        Ok(Self { file: Mutex::new(file) })
    }

    /// Notes that pages from index `first` on are being sent as part of the seed.
    pub fn seeded(&self, first: u64, pages: &[u128]) -> Result<()> {
        self.update(first, pages, |old, new| match old {
            NEVER => new,
            same if same == new => new,
            _ => UNCERTAIN,
        })
        .map(|_| ())
    }

    /// The entries of `count` pages from index `first` on.
    pub fn get(&self, first: u64, count: usize) -> Result<Vec<u128>> {
        read(&self.file.lock().unwrap_or_else(PoisonError::into_inner), first, count)
    }

    /// Notes that these images come after everything else, in the log.
    pub fn logged(&self, first: u64, pages: &[u128]) -> Result<()> {
        self.update(first, pages, |_, new| new)
    }

    /// Forgets pages beyond the end of the database: the destination forgets them too.
    pub fn truncate(&self, pages: u64) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let wrap = |e| Error::io("cut the page hashes", e);
        let len = file.metadata().map_err(wrap)?.len();
        if len > pages * ENTRY as u64 { file.set_len(pages * ENTRY as u64).map_err(wrap) } else { Ok(()) }
    }

    fn update(&self, first: u64, pages: &[u128], decide: impl Fn(u128, u128) -> u128) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let old = read(&file, first, pages.len())?;
        let mut bytes = Vec::with_capacity(pages.len() * ENTRY);
        for (old, new) in old.iter().zip(pages) {
            bytes.extend_from_slice(&decide(*old, *new).to_le_bytes());
        }
        file.write_all_at(&bytes, first * ENTRY as u64).map_err(|e| Error::io("write the page hashes", e))
    }
}

/// The hash of a page, never one of the two words.
pub fn hash(page: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(page).max(UNCERTAIN + 1)
}

fn read(file: &File, first: u64, count: usize) -> Result<Vec<u128>> {
    let mut bytes = vec![0; count * ENTRY];
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], first * ENTRY as u64 + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read the page hashes", e)),
        }
    }
    let entry = |e: &[u8]| e.first_chunk().map_or(NEVER, |e| u128::from_le_bytes(*e));
    Ok(bytes.chunks_exact(ENTRY).map(entry).collect())
}
