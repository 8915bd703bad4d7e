//! Whether a name is free in the instance.

use crate::{
    Error, Result,
    sqlite::{
        config::SqliteConfig,
        disk,
        store::Store,
        tombstone::{self, Note},
    },
};
use handover::DatabaseName;
use std::path::PathBuf;

/// What SQLite puts beside a database. A `-shm` alone means nothing: SQLite makes it anew.
const SIDE_SUFFIXES: [&str; 2] = ["-wal", "-journal"];

/// The longest file name, less the longest suffix that SQLite adds.
const NAME_BYTES_MAX: usize = 255 - "-journal".len();

/// Who has a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// It is free.
    Nobody,
    /// It is free, but for what a moved database left.
    Tombstone(Note),
    /// A file, a directory or whatever else.
    File,
    /// A log or journal without a database: SQLite would take it for part of a database of that name.
    SideFile,
}

/// Fails unless the name can be that of a database file.
pub(super) fn check(database: &DatabaseName) -> Result<()> {
    let name = database.as_str();
    let why = if name.starts_with('.') {
        "it begins with a point"
    } else if ["-wal", "-shm", "-journal"].iter().any(|suffix| name.ends_with(suffix)) {
        "SQLite uses such names for the files beside a database"
    } else if name.len() > NAME_BYTES_MAX {
        "it is so long that SQLite cannot add its suffixes"
    } else {
        return Ok(());
    };
    Err(Error::Unsupported {
        code: "INVALID_NAME",
        message: format!("{name:?} cannot be the name of a database file: {why}"),
        remedy: "rename the database file at the source, then start again".to_owned(),
    })
}

/// Who has the name of `database`, which [`check`] has passed.
pub(super) fn occupant(config: &SqliteConfig, database: &DatabaseName) -> Result<Occupant> {
    let path = config.database(database);
    if let Some(note) = tombstone::read(&path)? {
        return Ok(Occupant::Tombstone(note));
    }
    if disk::exists(&path)? {
        return Ok(Occupant::File);
    }
    for side in side_files(config, database) {
        if disk::exists(&side)? {
            return Ok(Occupant::SideFile);
        }
    }
    Ok(Occupant::Nobody)
}

/// Removes what stands beside a tombstone. Nobody can write a tombstone, so nothing there is anybody's.
pub(super) fn remove_side_files(store: &Store, config: &SqliteConfig, database: &DatabaseName) -> Result<()> {
    for side in side_files(config, database) {
        if disk::exists(&side)? {
            store.check()?;
            disk::remove(&side)?;
            disk::sync_dir(config.dir())?;
        }
    }
    Ok(())
}

fn side_files(config: &SqliteConfig, database: &DatabaseName) -> impl Iterator<Item = PathBuf> {
    let path = config.database(database);
    SIDE_SUFFIXES.into_iter().map(move |suffix| disk::beside(&path, suffix))
}
