//! The header of the WAL index, read in SQLite's own mapping of it.
//!
//! It alone says where the committed log ends: frames beyond may be spilled by a transaction that is still open, and
//! are rewritten in place. Opening `-shm` by plain calls would drop SQLite's locks, so the mapping is SQLite's own.
//! Layout: <https://sqlite.org/walformat.html#the_wal_index_file_format>.

// Needed for SQLITE_FCNTL_FILE_POINTER, xShmMap and volatile reads of memory that other processes write.
#![allow(unsafe_code)]

use super::connect;
use crate::{Error, Result};
use rusqlite::{Connection, ffi};
use std::{
    ffi::c_void,
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
    time::{Duration, Instant},
};

/// Bytes of one block of the index, as SQLite maps it.
const BLOCK: i32 = 32768;
/// Words of one copy of the header.
const WORDS: usize = 12;
/// The word after both copies: frames that are backfilled into the database file.
const BACKFILLED: usize = 24;
/// A writer rewrites both copies within microseconds; copies that differ for so many looks mean that it died.
const LOOKS: u32 = 2000;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// Counts transactions.
    pub change: u32,
    /// Bytes of a page; 0 before the first transaction.
    pub page_size: u32,
    /// The last committed frame; 0 if there is none.
    pub frames: u32,
    /// Pages of the database after it.
    pub pages: u32,
    /// The running checksum after that frame.
    pub checksum: [u32; 2],
    /// The salts of the WAL.
    pub salt: [u32; 2],
}

/// The mapped index. It stays mapped while the connection in it is open.
pub struct WalIndex {
    words: NonNull<u32>,
    anchor: Connection,
}

// The pointer is into a mapping shared by the whole process, which lives as long as `anchor`; reads are volatile.
unsafe impl Send for WalIndex {}

impl WalIndex {
    /// Maps the index of a database in WAL mode, and keeps the connection.
    pub fn of(anchor: Connection) -> Result<Self> {
        let mode: String = anchor
            .query_row("PRAGMA main.journal_mode", [], |row| row.get(0))
            .map_err(connect::busy_or("read the journal mode"))?;
        if mode != "wal" {
            return Err(Error::LogLost(format!("the journal mode is {mode} now")));
        }
        // A read makes SQLite open the WAL and its index, and recovers them if that is needed.
        connect::begin_read(&anchor)?;
        connect::end(&anchor)?;
        let words = map(&anchor)?;
        Ok(Self { words, anchor })
    }

    /// The connection that keeps the mapping; not in a transaction unless the caller began one.
    pub fn anchor(&self) -> &Connection {
        &self.anchor
    }

    /// The header. Copies that stay unequal mean that a writer died between them; a read makes SQLite recover.
    pub fn header(&self) -> Result<IndexHeader> {
        for _ in 0..3 {
            for look in 0..LOOKS {
                if let Some(header) = self.look() {
                    return Ok(header);
                }
                if look > 100 {
                    std::thread::yield_now();
                }
            }
            match connect::begin_read(&self.anchor) {
                Ok(()) => connect::end(&self.anchor)?,
                Err(Error::Busy(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Busy("the WAL index is being recovered by another process".to_owned()))
    }

    /// Takes the write lock in the index and lets go of it after so long; false if somebody else has it. Unlike a BEGIN
    /// IMMEDIATE that fails this takes no read lock meanwhile, so it may be asked again and again without hindering a
    /// checkpoint.
    pub fn hold_write_lock(&self, hold: Duration) -> bool {
        // SAFETY: the methods were there when the index was mapped, and the file is open as long as `anchor`, which is in
        // no write transaction of its own. WAL_WRITE_LOCK is the first of the index's locks; what is taken is released.
        unsafe {
            let Ok(file) = open_file(&self.anchor) else { return false };
            let Some(shm_lock) = (*(*file).pMethods).xShmLock else { return false };
            if shm_lock(file, 0, 1, ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE) != ffi::SQLITE_OK {
                return false;
            }
            let begin = Instant::now();
            while begin.elapsed() < hold {
                std::hint::spin_loop();
            }
            shm_lock(file, 0, 1, ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE) == ffi::SQLITE_OK
        }
    }

    /// How many frames are backfilled, synced with the database file.
    pub fn backfilled(&self) -> u32 {
        self.word(BACKFILLED)
    }

    /// The header with a backfill count that belongs to it: a restart writes the header before it clears the count.
    pub fn header_and_backfilled(&self) -> Result<(IndexHeader, u32)> {
        loop {
            let header = self.header()?;
            let backfilled = self.backfilled();
            fence(Ordering::SeqCst);
            if self.header()? == header && backfilled <= header.frames {
                return Ok((header, backfilled));
            }
            std::thread::yield_now();
        }
    }

    fn look(&self) -> Option<IndexHeader> {
        let first: [u32; WORDS] = std::array::from_fn(|i| self.word(i));
        fence(Ordering::SeqCst);
        let second: [u32; WORDS] = std::array::from_fn(|i| self.word(WORDS + i));
        let [_, _, change, flags, frames, pages, c1, c2, s1, s2, k1, k2] = first;
        let [initialized, _, size_low, size_high] = flags.to_ne_bytes();
        if first != second || initialized == 0 || checksum(&first[..10]) != [k1, k2] {
            return None;
        }
        let page_size = match u16::from_ne_bytes([size_low, size_high]) {
            1 => 65536,
            size => u32::from(size),
        };
        // Salts are copied from the WAL's header as bytes, everything else is in the byte order of the machine.
        let salt = [u32::from_be(s1), u32::from_be(s2)];
        Some(IndexHeader { change, page_size, frames, pages, checksum: [c1, c2], salt })
    }

    fn word(&self, index: usize) -> u32 {
        debug_assert!(index < 34, "beyond the header");
        // SAFETY: the mapping has at least 32 KiB, is aligned to a page and lives as long as `anchor`.
        unsafe { self.words.as_ptr().add(index).read_volatile() }
    }
}

/// SQLite's own checksum over the header, in the byte order of the machine.
fn checksum(words: &[u32]) -> [u32; 2] {
    let mut sum = [0u32; 2];
    for pair in words.chunks_exact(2) {
        sum[0] = sum[0].wrapping_add(pair[0]).wrapping_add(sum[1]);
        sum[1] = sum[1].wrapping_add(pair[1]).wrapping_add(sum[0]);
    }
    sum
}

fn failed(what: &str, code: i32) -> Error {
    let transient = code & 0xff == ffi::SQLITE_BUSY;
    Error::Database { what: what.to_owned(), message: format!("SQLite code {code}"), transient }
}

/// SQLite's own structure of the open main file; its methods are set.
fn open_file(db: &Connection) -> Result<*mut ffi::sqlite3_file> {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the handle is open as long as `db` is borrowed; FILE_POINTER writes one pointer.
    unsafe {
        let out = (&raw mut file).cast::<c_void>();
        let code = ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, out);
        if code != ffi::SQLITE_OK || file.is_null() || (*file).pMethods.is_null() {
            return Err(failed("ask SQLite for its open file", code));
        }
    }
    Ok(file)
}

fn map(db: &Connection) -> Result<NonNull<u32>> {
    let file = open_file(db)?;
    // SAFETY: the file is open as long as `db` is borrowed. xShmMap with bExtend=0 fills `mapped` or leaves it null.
    unsafe {
        let methods = &*(*file).pMethods;
        let Some(shm_map) = methods.xShmMap.filter(|_| methods.iVersion >= 2) else {
            return Err(Error::Internal("this SQLite has no shared WAL index".to_owned()));
        };
        let mut mapped: *mut c_void = std::ptr::null_mut();
        let code = shm_map(file, 0, BLOCK, 0, &raw mut mapped);
        match NonNull::new(mapped.cast::<u32>()) {
            Some(words) if code == ffi::SQLITE_OK => Ok(words),
            _ => Err(failed("map the WAL index", code)),
        }
    }
}
