//! An instance's directory as the tests look at it: its databases, and what lies around in it.

use ledger::sqlite::SqliteView;
use rusqlite::Connection;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The directory of an instance.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// The instance in this directory.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The file of a database.
    pub fn database(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Every file and directory, relative, without what SQLite keeps beside an open database, and without what an
    /// agent's half keeps while no operation is under way: its directory, its epochs with lock, heartbeat and
    /// watermark, and its empty work directories.
    pub fn traces(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        walk(&self.dir, &self.dir, &mut found);
        found.retain(|path| !is_kept(path));
        found
    }

    /// Whether a move left its tombstone under this name.
    pub fn is_tombstone(&self, name: &str) -> bool {
        engines::sqlite::tombstone::read(&self.database(name)).expect("look for a tombstone").is_some()
    }

    /// Whether clients can write: tries it, as an application does, and takes it back.
    pub fn is_writable(&self, name: &str) -> bool {
        let attempt = || -> rusqlite::Result<()> {
            let db = Connection::open_with_flags(
                self.database(name),
                rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            db.busy_timeout(std::time::Duration::from_secs(10))?;
            db.execute_batch("BEGIN IMMEDIATE; CREATE TABLE causeway_probe(x); ROLLBACK")
        };
        attempt().is_ok()
    }

    /// The content of a database: a hash of every table and of the schema.
    pub fn content(&self, name: &str) -> Vec<ledger::driver::TableHash> {
        let view = SqliteView::open(&self.database(name)).unwrap_or_else(|e| panic!("open {name}: {e:?}"));
        ledger::driver::View::content(&view).unwrap_or_else(|e| panic!("read {name}: {e:?}"))
    }

    /// What SQLite's own check of a database's file says.
    pub fn integrity(&self, name: &str) -> String {
        let view = SqliteView::open(&self.database(name)).unwrap_or_else(|e| panic!("open {name}: {e:?}"));
        ledger::driver::View::integrity(&view).unwrap_or_else(|e| panic!("check {name}: {e:?}"))
    }
}

fn walk(root: &Path, dir: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let relative = path.strip_prefix(root).expect("a child lies under its parent").display().to_string();
        if path.is_dir() {
            found.insert(format!("{relative}/"));
            walk(root, &path, found);
        } else {
            found.insert(relative);
        }
    }
}

fn is_kept(path: &str) -> bool {
    if path.ends_with("-wal") || path.ends_with("-shm") {
        return !path.starts_with(".causeway");
    }
    let Some(rest) = path.strip_prefix(".causeway/") else { return false };
    let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let is_epoch = |part: &str| part.parse::<u64>().is_ok();
    match parts.as_slice() {
        [""] | ["source" | "dest"] => true,
        ["source" | "dest", part] => is_epoch(part) || (path.ends_with('/') && !part.contains('.')),
        ["source" | "dest", epoch, file] => {
            is_epoch(epoch) && ["lock", "heartbeat", "watermark", "complete"].contains(file)
        }
        _ => false,
    }
}
