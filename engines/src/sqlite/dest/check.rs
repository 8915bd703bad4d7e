//! Whether a file is a consistent database, as far as that is cheap.

use crate::{
    Error, Result,
    sqlite::{header::Header, tombstone},
};
use rusqlite::{Connection, OpenFlags};
use std::{fs::File, path::Path};

/// Fails with [`Error::Corrupt`] unless the file is a database of `bytes` bytes with this page size whose schema can be
/// read. Takes a few reads, from the disk if nothing wrote those pages since the seed; it is no integrity check.
pub(super) fn check(file: &File, path: &Path, page_size: u32, bytes: u64) -> Result<()> {
    let corrupt = |why: String| Err(Error::Corrupt(format!("the replica is not a consistent database: {why}")));
    let length = file.metadata().map_err(|e| Error::io("examine the replica", e))?.len();
    if length != bytes {
        return corrupt(format!("it has {length} bytes, the log says {bytes}"));
    }
    let Some(header) = Header::of(file)? else {
        // No page was ever written: an empty database.
        return Ok(());
    };
    if header.page_size != page_size {
        return corrupt(format!("its pages have {} bytes, the plan says {page_size}", header.page_size));
    }
    if header.is_fenced() {
        return corrupt("it carries the source's fence".to_owned());
    }
    // The header's own count counts only when its writer kept it, and a file may be longer than it says.
    let pages = length / u64::from(page_size);
    if header.change_counter == header.version_valid_for && u64::from(header.pages) > pages {
        return corrupt(format!("its header counts {} pages, it has {pages}", header.pages));
    }
    // Immutable: no lock, no journal, no recovery; the file is ours alone.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let read = |path: &Path| -> rusqlite::Result<i64> {
        let db = Connection::open_with_flags(tombstone::immutable_uri(path), flags)?;
        db.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
    };
    match read(path).map_err(|e| tombstone::database("read the replica's schema", &e)) {
        Ok(_) => Ok(()),
        Err(Error::Database { message, .. }) => corrupt(message),
        Err(e) => Err(e),
    }
}
