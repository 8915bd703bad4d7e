//! Leaving the source for good: dropping what was moved, and removing every trace of what was not.

use super::{connect, fence, files, identity};
use crate::{
    Error, Result,
    sqlite::{
        SqliteConfig, disk,
        header::Header,
        store::Store,
        tombstone::{self, Note},
    },
};
use handover::source_role::SourceRole;
use rusqlite::config::DbConfig;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a drop waits for old readers before it answers that it is pending.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(3);

/// Where an operation's log and notes lie.
pub fn directory(store: &Store, operation: &handover::OperationId) -> PathBuf {
    store.home().join("spool").join(operation.as_str())
}

/// One step of a drop, for tests that interrupt it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The fence stands.
    Fenced,
    /// Everything is in the main file.
    Checkpointed,
    /// WAL and index are gone.
    Unlinked,
    /// The tombstone has the name.
    Buried,
    /// What a late opener made of the old WAL is gone too.
    UnlinkedAgain,
}

/// Drops a moved database, in the one order that loses nothing wherever it is interrupted: a WAL that goes before its
/// frames are in the file would take the fence with it, and one that is still there when the tombstone has the name would
/// be played into the tombstone. Repeating it goes on where it was.
pub fn drop_database(
    config: &SqliteConfig,
    store: &Store,
    role: &SourceRole,
    note: &Note,
    after: &dyn Fn(Step) -> Result<()>,
) -> Result<()> {
    let path = config.database(&role.database);
    let buried = tombstone::read(&path)?.is_some_and(|found| found.operation == note.operation);
    if !buried && disk::exists(&path)? {
        identity::check(&path, &role.incarnation)?;
        checkpointed(&path, after)?;
        store.check()?;
        identity::check(&path, &role.incarnation)?;
        unlink_companions(&path)?;
        after(Step::Unlinked)?;

        let dir = directory(store, &role.operation);
        disk::make_dir(&dir)?;
        let grave = dir.join(format!("tombstone-{}", store.check()?));
        tombstone::make(&grave, note)?;
        store.check()?;
        identity::check(&path, &role.incarnation)?;
        std::fs::rename(&grave, &path).map_err(|e| Error::io(format!("rename {}", grave.display()), e))?;
        after(Step::Buried)?;
    }
    if tombstone::read(&path)?.is_some() {
        store.check()?;
        unlink_companions(&path)?;
        after(Step::UnlinkedAgain)?;
    }
    disk::sync_dir(config.dir())?;
    forget(store, &role.operation)
}

/// Fails unless the fence stands, and waits until everything is in the main file, the fence too.
fn checkpointed(path: &Path, after: &dyn Fn(Step) -> Result<()>) -> Result<()> {
    let db = connect::open(path)?;
    if !fence::stands(&connect::first_page(&db)?) {
        return Err(Error::Misuse("a database that is not fenced is not dropped".to_owned()));
    }
    after(Step::Fenced)?;
    let file = files::open(path)?;
    let is_wal = Header::of(&file)?.is_some_and(|h| h.is_wal());
    let until = Instant::now() + CHECKPOINT_WAIT;
    // Without a WAL everything is in the file by nature.
    while is_wal && !checkpoint(&db)? {
        if Instant::now() >= until {
            return Err(Error::Busy("drop pending: a client still reads an old state of the database".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if !Header::of(&file)?.is_some_and(|h| h.is_fenced()) {
        return Err(Error::Busy("drop pending: the fence has not reached the main file".to_owned()));
    }
    after(Step::Checkpointed)
}

/// Whether all of the WAL is in the file now, for every reader.
fn checkpoint(db: &rusqlite::Connection) -> Result<bool> {
    let row = db.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    match row {
        Ok((busy, log, done)) => Ok(busy == 0 && log == done),
        Err(e) if connect::is_busy(&e) => Ok(false),
        Err(e) => Err(tombstone::database("checkpoint the database", &e)),
    }
}

fn unlink_companions(path: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm", "-journal"] {
        disk::remove(&disk::beside(path, suffix))?;
    }
    Ok(())
}

/// Opens what may be fenced and removes what the operation has of its own.
pub fn cleanup(config: &SqliteConfig, store: &Store, role: &SourceRole) -> Result<()> {
    let path = config.database(&role.database);
    let ours = !fence::saved_of(role).is_empty();
    if disk::exists(&path)? && tombstone::read(&path)?.is_none() {
        if ours {
            fence::lift(&path, &|| store.check().map(|_| ()))?;
        }
        store.check()?;
        tidy(&path);
    }
    forget(store, &role.operation)
}

/// Closes as the last connection would: if nobody else is connected, SQLite brings the WAL into the file and removes it.
/// Nothing depends on it.
pub fn tidy(path: &Path) {
    if !disk::beside(path, "-wal").exists() {
        return;
    }
    let closed = connect::open(path).and_then(|db| {
        let wrap = |e: rusqlite::Error| tombstone::database("close the database", &e);
        // Most of it without a lock, so that the close itself, which locks, is short.
        db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(wrap)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(wrap)?;
        db.close().map_err(|(_, e)| wrap(e))
    });
    if let Err(error) = closed {
        tracing::debug!(%error, "leave the WAL to its applications");
    }
}

fn forget(store: &Store, operation: &handover::OperationId) -> Result<()> {
    let dir = directory(store, operation);
    store.check()?;
    disk::remove_dir(&dir)?;
    // The last operation takes the directory of all with it.
    if let Some(all) = dir.parent() {
        let _ = std::fs::remove_dir(all);
    }
    Ok(())
}

/// Makes the operation's directory.
pub fn prepare(store: &Store, operation: &handover::OperationId) -> Result<()> {
    disk::make_dir(&directory(store, operation))
}
