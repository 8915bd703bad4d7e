//! SQLite: the places an application may find its database at, and a plain connection to one of them.

mod session;
mod view;

pub mod fill;
pub mod pages;

use std::{path::PathBuf, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use self::view::SqliteView;
use crate::{
    driver::{Driver, Error, Session},
    transaction::ACCOUNTS,
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS ledger(writer INT, seq INT, src INT, dst INT, amount INT, note BLOB,
        PRIMARY KEY(writer, seq));
    CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, balance INT NOT NULL);
    CREATE TABLE IF NOT EXISTS chain(writer INTEGER PRIMARY KEY, seq INT, digest BLOB);
    CREATE TABLE IF NOT EXISTS list(key INT, position INT, writer INT, seq INT, PRIMARY KEY(key, position)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS scratch(id INTEGER PRIMARY KEY, body BLOB);
";

/// A SQLite database as an application knows it: by path, with the paths it may have moved to.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Where it is at first, then where it may turn up.
    pub paths: Vec<PathBuf>,
    /// How long a statement waits for a lock.
    pub busy_timeout: Duration,
    /// Set on every connection, in order, as (name, value).
    pub pragmas: Vec<(String, String)>,
    /// Set once, before the tables are made, as (name, value): page_size, auto_vacuum, journal_mode.
    pub creation_pragmas: Vec<(String, String)>,
}

impl Driver for Places {
    fn set_up(&self) -> Result<(), Error> {
        let path = self.path(0)?;
        let conn = Connection::open(path).map_err(error("create the database"))?;
        conn.busy_timeout(self.busy_timeout).map_err(error("set the busy timeout"))?;
        for (name, value) in &self.creation_pragmas {
            conn.pragma_update(None, name, value).map_err(error("set a pragma at creation"))?;
        }
        create_tables(&conn)
    }

    fn places(&self) -> usize {
        self.paths.len()
    }

    fn name(&self, place: usize) -> String {
        self.paths.get(place).map(|p| p.display().to_string()).unwrap_or_default()
    }

    fn connect(&self, place: usize) -> Result<Box<dyn Session>, Error> {
        // Without CREATE: a place is where the database is, not where an empty one could be.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.path(place)?, flags).map_err(error("open the database"))?;
        conn.busy_timeout(self.busy_timeout).map_err(error("set the busy timeout"))?;
        for (name, value) in &self.pragmas {
            conn.pragma_update(None, name, value).map_err(error("set a pragma"))?;
        }
        Ok(Box::new(session::SqliteSession::new(conn)))
    }
}

impl Places {
    fn path(&self, place: usize) -> Result<&PathBuf, Error> {
        let missing = || Error::Failed { stage: "choose a place", cause: "there is no such place".into() };
        self.paths.get(place).ok_or_else(missing)
    }
}

/// Creates the ledger's tables and accounts where they are missing.
fn create_tables(conn: &Connection) -> Result<(), Error> {
    let create = || {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        conn.execute_batch(SCHEMA)?;
        let accounts: i64 = conn.query_row("SELECT count(*) FROM account", [], |r| r.get(0))?;
        if accounts == 0 {
            let mut insert = conn.prepare("INSERT INTO account VALUES(?, 0)")?;
            for id in 0..ACCOUNTS {
                insert.execute([id])?;
            }
        }
        conn.execute_batch("COMMIT")
    };
    create().map_err(error("create the ledger's tables"))
}

/// Tells a refusal by a fence from any other failure of `stage`.
fn error(stage: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |cause| match cause.sqlite_error_code() {
        // A fenced file is read-only; what stands in a database's place after a move may be no database at all.
        Some(ErrorCode::ReadOnly | ErrorCode::NotADatabase) => Error::Fenced { stage, cause: cause.into() },
        _ => Error::Failed { stage, cause: cause.into() },
    }
}
