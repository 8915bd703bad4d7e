//! Database files that this process has open by plain calls, each once and until it is deleted.
//!
//! POSIX drops all locks that a process has on a file when the process closes *any* descriptor of it, so a plain open
//! and close of a database (or of its `-shm`) would take away the locks of our own SQLite connections. Every plain read
//! of a database file that clients may use goes through here. `-wal` carries no locks and needs no such care.

use crate::{Error, Result};
use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// Device and inode.
type Identity = (u64, u64);

#[derive(Default)]
struct Registry {
    open: HashMap<Identity, Arc<File>>,
    /// Descriptors that a race opened twice; closing one would do what this module is there to prevent.
    twice: Vec<File>,
}

fn registry() -> &'static Mutex<Registry> {
    static OPEN: OnceLock<Mutex<Registry>> = OnceLock::new();
    OPEN.get_or_init(Mutex::default)
}

/// The process's one read-only descriptor of the file at `path`, opened if it is not yet. Do not clone the `File` in it.
pub fn open(path: &Path) -> Result<Arc<File>> {
    let wrap = |e| Error::io(format!("open {}", path.display()), e);
    let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
    // A deleted file's locks concern nobody any more, but its open descriptor would keep its space taken.
    registry.open.retain(|_, file| file.metadata().map_or(true, |m| m.nlink() > 0) || Arc::strong_count(file) > 1);

    let identity = identity(&std::fs::metadata(path).map_err(wrap)?);
    if let Some(file) = registry.open.get(&identity) {
        return Ok(file.clone());
    }
    let file = File::open(path).map_err(wrap)?;
    let identity = self::identity(&file.metadata().map_err(wrap)?);
    if let Some(held) = registry.open.get(&identity).cloned() {
        registry.twice.push(file);
        return Ok(held);
    }
    let file = Arc::new(file);
    registry.open.insert(identity, file.clone());
    Ok(file)
}

fn identity(meta: &std::fs::Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_once_and_let_go_when_it_is_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        std::fs::write(&one, b"x").expect("written");
        let first = open(&one).expect("open");
        std::fs::hard_link(&one, &other).expect("linked");
        assert!(Arc::ptr_eq(&first, &open(&other).expect("open")));
        std::fs::remove_file(&one).expect("removed");
        std::fs::remove_file(&other).expect("removed");
        let weak = Arc::downgrade(&first);
        drop(first);
        std::fs::write(&one, b"y").expect("written");
        open(&one).expect("open");
        assert!(weak.upgrade().is_none(), "the deleted file's space is kept");
    }
}
