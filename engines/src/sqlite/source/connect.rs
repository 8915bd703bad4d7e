//! The agent's own connections to a database file: never checkpointing by themselves, always syncing what they commit.

use crate::{
    Error, Result,
    sqlite::{header, tombstone::database},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How long a read may wait for somebody who recovers the database, closes it, or commits with a rollback journal. An
/// application in `locking_mode=EXCLUSIVE` holds on for longer and is reported as busy.
const READ_WAIT: Duration = Duration::from_millis(1500);
/// How often it tries: SQLite's own handler backs off to 100 ms and starves beside a writer that hardly pauses.
const READ_EVERY: Duration = Duration::from_micros(300);

/// Opens a connection that leaves the WAL as it finds it when it closes. It never waits for a lock: see [`is_busy`].
pub fn open(path: &Path) -> Result<Connection> {
    open_with(path, None)
}

/// As [`open`], through a VFS of that name.
pub fn open_with(path: &Path, vfs: Option<&std::ffi::CStr>) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let wrap = |e| database("open the database", &e);
    let path = absolute(path)?;
    let db = match vfs {
        None => Connection::open_with_flags(&path, flags),
        Some(vfs) => Connection::open_with_flags_and_vfs(&path, flags, vfs),
    }
    .map_err(wrap)?;
    db.busy_timeout(Duration::ZERO).map_err(wrap)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(wrap)?;
    let setup = "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL; PRAGMA cache_size=-2000; PRAGMA mmap_size=0;
                 PRAGMA main.schema_version";
    patiently(|| db.execute_batch(setup)).map_err(busy_or("open the database"))?;
    Ok(db)
}

/// Repeats a read while somebody is in its way, for a while.
pub fn patiently<T>(mut read: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let until = Instant::now() + READ_WAIT;
    loop {
        match read() {
            Err(e) if is_busy(&e) && Instant::now() < until => std::thread::sleep(READ_EVERY),
            other => return other,
        }
    }
}

/// Begins a read transaction and takes its snapshot. The pragma reads one field of page 1, and unlike a SELECT needs no
/// schema to be parsed, so it works whatever extensions the schema needs and costs microseconds.
pub fn begin_read(db: &Connection) -> Result<()> {
    db.execute_batch("BEGIN; PRAGMA main.schema_version").map_err(|e| {
        let _ = end(db);
        busy_or("begin a read transaction")(e)
    })
}

/// Ends whatever transaction there is.
pub fn end(db: &Connection) -> Result<()> {
    if db.is_autocommit() {
        return Ok(());
    }
    db.execute_batch("ROLLBACK").map_err(|e| database("end a transaction", &e))
}

/// Takes the write lock if it is free now. While a fence stands it is not, or this succeeds as a mere read: look at page 1
/// afterwards.
pub fn try_begin_write(db: &Connection) -> Result<bool> {
    match db.execute_batch("BEGIN IMMEDIATE") {
        Ok(()) => Ok(true),
        Err(e) if is_busy(&e) || e.sqlite_error_code() == Some(ErrorCode::ReadOnly) => Ok(false),
        Err(e) => Err(database("take the write lock", &e)),
    }
}

/// Page 1 as this connection sees it.
pub fn first_page(db: &Connection) -> Result<Vec<u8>> {
    let page: Vec<u8> = patiently(|| {
        let mut statement = db.prepare_cached("SELECT data FROM sqlite_dbpage('main') WHERE pgno=1")?;
        statement.query_row([], |row| row.get(0))
    })
    .map_err(busy_or("read the database header"))?;
    if page.len() < header::LEN {
        return Err(Error::Corrupt("page 1 is shorter than the database header".to_owned()));
    }
    Ok(page)
}

/// Writes page 1 within a transaction of the caller's.
pub fn put_first_page(db: &Connection, page: &[u8]) -> Result<()> {
    let mut statement = db
        .prepare_cached("UPDATE sqlite_dbpage SET data=?1 WHERE pgno=1")
        .map_err(|e| database("write the database header", &e))?;
    statement.execute([page]).map_err(|e| database("write the database header", &e))?;
    Ok(())
}

/// Whether SQLite says that somebody else holds a lock.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Wraps SQLite's error; one that says that a lock is held becomes [`Error::Busy`].
pub fn busy_or(what: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |e| match is_busy(&e) {
        true => Error::Busy(format!("{what}: another process holds a lock on the database (locking_mode=EXCLUSIVE?)")),
        false => database(what, &e),
    }
}

/// SQLite's NOFOLLOW refuses a symbolic link anywhere in the path, so those above the file are resolved here.
fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    let wrap = |e| Error::io(format!("resolve {}", path.display()), e);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Misuse(format!("{} has no directory", path.display())));
    };
    Ok(parent.canonicalize().map_err(wrap)?.join(name))
}
