//! What a moved database leaves behind: a tiny valid database that nobody can write and that says where it went.
//!
//! With the file gone, an application that opens the old name would make a new empty database there and write to it. A
//! tombstone refuses that write in every SQLite, and its one row tells a person where to look. It counts as a free name.

use super::{
    disk, files,
    header::{self, Header},
};
use crate::{Error, Result};
use rusqlite::{Connection, OpenFlags};
use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The application id that marks a tombstone: `CSWY`.
pub const APPLICATION_ID: u32 = 0x4353_5759;

/// No tombstone is longer; real ones have two pages of 4 KiB.
const LEN_MAX: u64 = 64 << 10;

/// What a tombstone tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The operation that moved the database.
    pub operation: String,
    /// Where it moved, for people.
    pub moved_to: String,
    /// When it moved, in milliseconds since 1970.
    pub moved_at_ms: i64,
}

/// Makes a tombstone at `path`, durably but for its directory entry; what is there is replaced. The caller renames it to
/// where it belongs.
pub fn make(path: &Path, note: &Note) -> Result<()> {
    for old in [path.to_owned(), disk::beside(path, "-journal"), disk::beside(path, "-wal")] {
        disk::remove(&old)?;
    }
    let wrap = |e: rusqlite::Error| database("make a tombstone", &e);
    let db = Connection::open(path).map_err(wrap)?;
    db.execute_batch(&format!(
        "PRAGMA journal_mode=off; PRAGMA synchronous=off; PRAGMA page_size=4096; PRAGMA application_id={APPLICATION_ID};
         CREATE TABLE causeway_moved(operation TEXT NOT NULL, moved_to TEXT NOT NULL, moved_at_ms INTEGER NOT NULL)"
    ))
    .map_err(wrap)?;
    let row = (&note.operation, &note.moved_to, note.moved_at_ms);
    db.execute("INSERT INTO causeway_moved VALUES(?1, ?2, ?3)", row).map_err(wrap)?;
    db.close().map_err(|(_, e)| wrap(e))?;

    let wrap = |e| Error::io(format!("write {}", path.display()), e);
    let file = OpenOptions::new().write(true).open(path).map_err(wrap)?;
    file.write_all_at(&[header::FENCED, 1], header::WRITE_VERSION as u64).map_err(wrap)?;
    file.sync_all().map_err(wrap)
}

/// Whether the file with this header is a tombstone.
pub fn is_tombstone(header: &Header) -> bool {
    header.is_fenced() && header.read_version == 1 && header.application_id == APPLICATION_ID
}

/// What the tombstone at `path` tells; `None` if what is there is none, or nothing is there.
pub fn read(path: &Path) -> Result<Option<Note>> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && (header::LEN as u64..=LEN_MAX).contains(&meta.len()) => {}
        Ok(_) => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("examine {}", path.display()), e)),
    }
    let file = match files::open(path) {
        Ok(file) => file,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    match Header::of(&file) {
        Ok(Some(header)) if is_tombstone(&header) => {}
        Ok(_) | Err(Error::Corrupt(_)) => return Ok(None),
        Err(e) => return Err(e),
    }
    let wrap = |e: rusqlite::Error| database("read a tombstone", &e);
    // Immutable: nobody can write it, so there is nothing to lock and nothing to recover.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(immutable_uri(path), flags).map_err(wrap)?;
    let note = db.query_row("SELECT operation, moved_to, moved_at_ms FROM causeway_moved LIMIT 1", [], |row| {
        Ok(Note { operation: row.get(0)?, moved_to: row.get(1)?, moved_at_ms: row.get(2)? })
    });
    match note {
        Ok(note) => Ok(Some(note)),
        // It has our mark and cannot be written, but its note is gone: no reason to treat it as data.
        Err(_) => Ok(Some(Note { operation: String::new(), moved_to: String::new(), moved_at_ms: 0 })),
    }
}

/// The URI by which SQLite opens a file that nobody changes.
pub fn immutable_uri(path: &Path) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(*byte),
            byte => uri.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    uri.extend_from_slice(b"?mode=ro&immutable=1");
    PathBuf::from(std::ffi::OsString::from_vec(uri))
}

/// Wraps SQLite's error. Its own words name tables and columns at most, never values.
pub fn database(what: &str, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase};
    let code = error.sqlite_error_code();
    match code {
        Some(DiskFull) => Error::DiskFull(what.to_owned()),
        Some(DatabaseCorrupt | NotADatabase) => Error::Corrupt(format!("{what}: {error}")),
        _ => Error::Database {
            what: what.to_owned(),
            message: error.to_string(),
            transient: matches!(code, Some(DatabaseBusy | DatabaseLocked)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_recognised_tells_and_refuses_writes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sh%20op ?.db");
        let note = Note { operation: "op-1".into(), moved_to: "east".into(), moved_at_ms: 5 };
        make(&path, &note).expect("made");
        make(&path, &note).expect("made again");
        assert_eq!(read(&path).expect("read"), Some(note));
        let db = Connection::open(&path).expect("open");
        let to: String = db.query_row("SELECT moved_to FROM causeway_moved", [], |r| r.get(0)).expect("readable");
        assert_eq!(to, "east");
        assert!(db.execute_batch("CREATE TABLE t(a)").is_err(), "a tombstone took a write");
        assert!(db.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t(a)").is_err());
    }

    #[test]
    fn nothing_else_is_a_tombstone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("shop.db");
        assert_eq!(read(&path).expect("nothing there"), None);
        std::fs::write(&path, b"").expect("written");
        assert_eq!(read(&path).expect("empty"), None);
        std::fs::write(&path, [7; 4096]).expect("written");
        assert_eq!(read(&path).expect("no database"), None);
        std::fs::remove_file(&path).expect("removed");
        let db = Connection::open(&path).expect("open");
        db.execute_batch(&format!("PRAGMA application_id={APPLICATION_ID}; CREATE TABLE t(a)")).expect("made");
        db.close().expect("closed");
        assert_eq!(read(&path).expect("a database that merely has the mark"), None);
    }
}
