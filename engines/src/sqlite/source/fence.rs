//! Closing a database to every writer, and opening it again.
//!
//! The fence is a value of the file format write version that no SQLite knows, written by an ordinary transaction. It
//! is in the database itself, so it outlives every process, and every connection sees it, old or new.

use super::{connect, vfs};
use crate::{
    Error, Result,
    sqlite::{
        header::{FENCED, READ_VERSION, WRITE_VERSION},
        store::Store,
    },
};
use handover::source_role::{Phase, SourceRole};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How long lifting a fence waits for those who read or checkpoint. Nobody writes, so it is not contended.
const LIFT_WAIT: Duration = Duration::from_secs(5);

/// What a fence overwrites: [`Phase::Fencing`]'s `saved`, as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The file format write version.
    pub write_version: u8,
    /// The file format read version, which a fence leaves as it is.
    pub read_version: u8,
}

impl Saved {
    /// What this page 1 has.
    pub fn of(page: &[u8]) -> Self {
        Self {
            write_version: page.get(WRITE_VERSION).copied().unwrap_or_default(),
            read_version: page.get(READ_VERSION).copied().unwrap_or_default(),
        }
    }

    /// For the role record.
    pub fn encode(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::Internal(format!("encode what the fence saves: {e}")))
    }
}

/// Whether page 1 carries the fence.
pub fn stands(page: &[u8]) -> bool {
    page.get(WRITE_VERSION) == Some(&FENCED)
}

/// One try at fencing.
pub struct Call<'a> {
    /// Where the role is recorded.
    pub store: &'a Store,
    /// The role, `Fencing`; gets `saved`.
    pub role: &'a mut SourceRole,
    /// How long a running transaction may take.
    pub grace: Duration,
    /// Whether to give up early.
    pub stop: &'a dyn Fn() -> bool,
}

impl Call<'_> {
    /// Records the role with what page 1 has, before anybody is refused. Answers whether the fence stands already, which
    /// only one of this very operation may.
    pub fn record(&mut self, page: &[u8]) -> Result<bool> {
        let Phase::Fencing { saved, .. } = &mut self.role.phase else {
            return Err(Error::Misuse("a fence needs a role that is fencing".to_owned()));
        };
        if !stands(page) {
            *saved = Saved::of(page).encode()?;
            self.store.put(&self.role.operation, self.role)?;
            return Ok(false);
        }
        if saved.is_empty()
            && let Some(recorded) = self.store.record::<SourceRole>(&self.role.operation)?
        {
            *saved = saved_of(&recorded).to_owned();
        }
        if saved.is_empty() {
            return Err(foreign());
        }
        self.store.put(&self.role.operation, self.role)?;
        Ok(true)
    }

    /// The error for a database whose writer does not end.
    pub fn busy(&self) -> Error {
        Error::Busy(format!(
            "a client has held the write lock of {} for longer than the grace of {} ms",
            self.role.database,
            self.grace.as_millis()
        ))
    }
}

/// What a role saved, empty if nothing.
pub fn saved_of(role: &SourceRole) -> &str {
    match &role.phase {
        Phase::Fencing { saved, .. } | Phase::Fenced { saved, .. } | Phase::CleaningUp { saved } => saved,
        Phase::Replicating | Phase::Releasing { .. } | Phase::Released { .. } => "",
    }
}

/// The error for a fence that is not of this operation.
pub fn foreign() -> Error {
    Error::Unsupported {
        code: "UNSUPPORTED_HEADER",
        message: "the database is fenced, but not by this operation".to_owned(),
        remedy: "find the operation that fenced it, and complete or cancel that one".to_owned(),
    }
}

/// Writes the fence within the caller's write transaction.
pub fn write(db: &Connection, mut page: Vec<u8>) -> Result<()> {
    page[WRITE_VERSION] = FENCED;
    connect::put_first_page(db, &page)
}

/// Takes the fence out, durably; answers false if there was none. `check` is called within the transaction, as late as
/// can be. Connections that saw the fence stay read-only until they are opened anew: SQLite remembers it.
pub fn lift(path: &Path, check: &dyn Fn() -> Result<()>) -> Result<bool> {
    let plain = connect::open(path)?;
    if !stands(&connect::first_page(&plain)?) {
        return Ok(false);
    }
    drop(plain);
    vfs::register()?;
    let db = connect::open_with(path, Some(vfs::NAME))?;
    let until = Instant::now() + LIFT_WAIT;
    patiently(until, || connect::try_begin_write(&db))?;
    let lifted = connect::first_page(&db)
        .and_then(|page| connect::put_first_page(&db, &page))
        .and_then(|()| check())
        .and_then(|()| patiently(until, || try_commit(&db)));
    connect::end(&db)?;
    lifted?;
    Ok(true)
}

/// Commits; false if a reader of a rollback-journal database is in the way, and then the transaction stands.
pub fn try_commit(db: &Connection) -> Result<bool> {
    match db.execute_batch("COMMIT") {
        Ok(()) => Ok(true),
        Err(e) if connect::is_busy(&e) && !db.is_autocommit() => Ok(false),
        Err(e) => Err(crate::sqlite::tombstone::database("commit", &e)),
    }
}

fn patiently(until: Instant, mut attempt: impl FnMut() -> Result<bool>) -> Result<()> {
    while !attempt()? {
        if Instant::now() >= until {
            return Err(Error::Busy("a client hinders the opening of the database".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
