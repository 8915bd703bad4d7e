//! Facts in the first hundred bytes of a database file (<https://sqlite.org/fileformat2.html#the_database_header>).

use crate::{Error, Result};
use std::{fs::File, os::unix::fs::FileExt};

/// The first bytes of every database file.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes of the header.
pub const LEN: usize = 100;
/// Offset of the file format write version: 1 rollback journal, 2 WAL, [`FENCED`] read-only for every client.
pub const WRITE_VERSION: usize = 18;
/// Offset of the file format read version.
pub const READ_VERSION: usize = 19;
/// A write version newer than any SQLite knows: reading works, writing is refused. This is the fence.
pub const FENCED: u8 = 3;

/// What a database file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of a page: a power of two from 512 to 65536.
    pub page_size: u32,
    /// 1 rollback journal, 2 WAL, [`FENCED`] fenced.
    pub write_version: u8,
    /// 1 rollback journal, 2 WAL.
    pub read_version: u8,
    /// Bytes at the end of each page that extensions (encryption, checksums) use.
    pub reserved: u8,
    /// Grows with every transaction in rollback-journal mode.
    pub change_counter: u32,
    /// Pages in the file, as of the writer of [`Header::version_valid_for`].
    pub pages: u32,
    /// The schema format, 0 (empty) to 4.
    pub schema_format: u32,
    /// 1 UTF-8, 2 UTF-16le, 3 UTF-16be; 0 in an empty database.
    pub encoding: u32,
    /// Not 0 if the database vacuums itself.
    pub auto_vacuum: u32,
    /// The application's own mark.
    pub application_id: u32,
    /// The change counter when [`Header::pages`] was written; when it differs the page count counts for nothing.
    pub version_valid_for: u32,
    /// `SQLITE_VERSION_NUMBER` of the library that wrote last.
    pub sqlite_version: u32,
}

impl Header {
    /// Reads a header, and judges it as SQLite would.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::Corrupt(format!("not a SQLite database file: {what}"));
        let bytes: &[u8; LEN] = bytes.first_chunk().ok_or_else(|| corrupt("shorter than its header"))?;
        if !bytes.starts_with(MAGIC) {
            return Err(corrupt("the first bytes are not SQLite's (encrypted files look so too)"));
        }
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let page_size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65536,
            size => u32::from(size),
        };
        check_page_size(page_size)?;
        if bytes[21..24] != [64, 32, 32] {
            return Err(corrupt("the payload fractions are wrong"));
        }
        let header = Self {
            page_size,
            write_version: bytes[WRITE_VERSION],
            read_version: bytes[READ_VERSION],
            reserved: bytes[20],
            change_counter: u32_at(24),
            pages: u32_at(28),
            schema_format: u32_at(44),
            encoding: u32_at(56),
            auto_vacuum: u32_at(52),
            application_id: u32_at(68),
            version_valid_for: u32_at(92),
            sqlite_version: u32_at(96),
        };
        if page_size - u32::from(header.reserved) < 480 {
            return Err(corrupt("the usable page size is below 480 bytes"));
        }
        Ok(header)
    }

    /// Reads the header of an open file; `None` if the file is empty, which SQLite takes for an empty database.
    pub fn of(file: &File) -> Result<Option<Self>> {
        let mut bytes = [0; LEN];
        let mut len = 0;
        while len < LEN {
            match file.read_at(&mut bytes[len..], len as u64) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read the header of a database file", e)),
            }
        }
        if len == 0 { Ok(None) } else { Self::parse(&bytes[..len]).map(Some) }
    }

    /// Whether the fence stands in the file. Until a checkpoint it may stand in the WAL only.
    pub fn is_fenced(&self) -> bool {
        self.write_version == FENCED
    }

    /// Whether the database is in WAL mode, fenced or not.
    pub fn is_wal(&self) -> bool {
        self.read_version == 2
    }
}

/// Fails unless `page_size` is one that SQLite can have.
pub fn check_page_size(page_size: u32) -> Result<()> {
    if page_size.is_power_of_two() && (512..=65536).contains(&page_size) {
        return Ok(());
    }
    Err(Error::Corrupt(format!("{page_size} is not a page size of SQLite")))
}

/// The number of the page that holds SQLite's lock bytes; it never holds data and is never in a log.
pub fn lock_page(page_size: u32) -> u32 {
    0x4000_0000 / page_size + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_real_database_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("shop.db");
        let db = rusqlite::Connection::open(&path).expect("open");
        db.execute_batch(
            "PRAGMA page_size=65536; PRAGMA journal_mode=wal; PRAGMA application_id=77; CREATE TABLE t(a)",
        )
        .expect("made");
        db.close().expect("closed");
        let header = Header::of(&File::open(&path).expect("open")).expect("read").expect("not empty");
        assert_eq!((header.page_size, header.application_id, header.pages), (65536, 77, 2));
        assert!(header.is_wal() && !header.is_fenced());
    }

    #[test]
    fn other_files_are_no_databases() {
        assert!(Header::parse(b"SQLite format 3\0").is_err());
        assert!(Header::parse(&[0; 200]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic && bytes.len() >= 16 {
                bytes[..16].copy_from_slice(MAGIC);
            }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert!(check_page_size(header.page_size).is_ok());
            }
        }
    }
}
