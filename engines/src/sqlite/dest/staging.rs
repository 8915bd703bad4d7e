//! Where an operation's replica lies until the flip, and how it passes from one agent to the next.
//!
//! `.causeway/dest/staging/<operation>.<epoch>/` belongs to the agent of that epoch. The next agent moves it away from
//! there first, so a path that a stopped agent still has in mind leads nowhere when it wakes up. If the agent before may
//! be alive, it may also hold descriptors: then the files are copied, and what it writes goes to files that are gone.

use super::progress::Progress;
use crate::{
    Error, Result,
    sqlite::{disk, store::Store},
};
use handover::{Epoch, OperationId};
use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// The replica, within an operation's directory.
pub(super) const DB: &str = "db";
/// What is durable of it.
pub(super) const PROGRESS: &str = "progress";
/// Log kept while the seed is not whole.
pub(super) const SPOOL: &str = "spool";

/// What an entry of the staging directory is. The order matters: of two with one epoch, the greater counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// A copy that is not whole.
    Partial,
    /// A directory that was moved away from an agent that may be alive, and is being copied.
    Moved,
    /// An operation's directory.
    Whole,
}

struct Entry {
    path: PathBuf,
    operation: String,
    epoch: u64,
    form: Form,
}

/// The operation's directory, made ours; `None` if it has none.
pub(super) fn adopt(store: &Store, operation: &OperationId) -> Result<Option<PathBuf>> {
    let root = root(store);
    let ours = store.check()?;
    let ours_path = path(&root, operation, ours, "");
    let mut entries = entries(&root, Some(operation))?;
    entries.retain(|e| e.form != Form::Partial || disk::remove_dir(&e.path).is_err());
    entries.sort_by_key(|e| (e.epoch, e.form));
    let Some(newest) = entries.pop().filter(|e| e.form != Form::Partial) else { return Ok(None) };

    if newest.path != ours_path {
        if newest.form == Form::Whole && !store.maybe_alive(Epoch(newest.epoch))? {
            rename(&newest.path, &ours_path)?;
        } else {
            let moved = path(&root, operation, ours, ".moved");
            if newest.path != moved {
                rename(&newest.path, &moved)?;
            }
            copy(&moved, &path(&root, operation, ours, ".partial"), &ours_path)?;
            disk::remove_dir(&moved)?;
        }
        disk::sync_dir(&root)?;
    }
    for older in entries {
        // A stopped agent may add files to it when it wakes up; discard and the next take-over look again.
        let _ = disk::remove_dir(&older.path);
    }
    Ok(Some(ours_path))
}

/// Makes an empty directory for the operation.
pub(super) fn create(store: &Store, operation: &OperationId) -> Result<PathBuf> {
    let dir = path(&root(store), operation, store.check()?, "");
    disk::make_dir(&dir)?;
    Ok(dir)
}

/// Removes everything that the operation has here; repeated calls are no error.
pub(super) fn remove(store: &Store, operation: &OperationId) -> Result<()> {
    store.check()?;
    let root = root(store);
    for entry in entries(&root, Some(operation))? {
        disk::remove_dir(&entry.path)?;
    }
    remove_if_empty(&root)
}

/// Removes what belongs to no known operation.
pub(super) fn sweep(store: &Store, known: &[OperationId]) -> Result<()> {
    store.check()?;
    let root = root(store);
    for entry in entries(&root, None)? {
        if !known.iter().any(|o| o.as_str() == entry.operation) {
            disk::remove_dir(&entry.path)?;
        }
    }
    remove_if_empty(&root)
}

/// Bytes that the operation takes on disk here.
pub(super) fn allocated_bytes(store: &Store, operation: &OperationId) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in entries(&root(store), Some(operation))? {
        for file in disk::list(&entry.path)? {
            bytes += std::fs::metadata(&file).map_or(0, |m| m.blocks() * 512);
        }
    }
    Ok(bytes)
}

fn root(store: &Store) -> PathBuf {
    store.home().join("staging")
}

fn path(root: &Path, operation: &OperationId, epoch: Epoch, suffix: &str) -> PathBuf {
    root.join(format!("{operation}.{epoch}{suffix}"))
}

fn entries(root: &Path, operation: Option<&OperationId>) -> Result<Vec<Entry>> {
    let found = disk::list(root)?.into_iter().filter_map(parse);
    Ok(found.filter(|e| operation.is_none_or(|o| o.as_str() == e.operation)).collect())
}

fn parse(path: PathBuf) -> Option<Entry> {
    // An operation id has no point in it.
    let (operation, rest) = path.file_name()?.to_str()?.split_once('.')?;
    let (epoch, form) = match rest.split_once('.') {
        None => (rest, Form::Whole),
        Some((epoch, "moved")) => (epoch, Form::Moved),
        Some((epoch, "partial")) => (epoch, Form::Partial),
        Some(_) => return None,
    };
    let (operation, epoch) = (operation.to_owned(), epoch.parse().ok()?);
    Some(Entry { path, operation, epoch, form })
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| Error::io(format!("rename {}", from.display()), e))
}

/// Copies a directory whose files somebody may still write.
fn copy(from: &Path, partial: &Path, to: &Path) -> Result<()> {
    disk::remove_dir(partial)?;
    disk::make_dir(partial)?;
    // What is durable is taken from before the copy, so that it is in the copy. How far was applied is taken from after
    // it, so that nothing in the copy is beyond.
    let before = Progress::read(from)?;
    for name in [DB, SPOOL] {
        let (source, target) = (from.join(name), partial.join(name));
        match std::fs::copy(&source, &target) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(format!("copy {}", source.display()), e)),
        }
        File::open(&target)
            .and_then(|f| f.sync_all())
            .map_err(|e| Error::io(format!("sync {}", target.display()), e))?;
    }
    if let Some(mut progress) = before {
        progress.bound = progress.bound.max(Progress::read(from)?.map_or(0, |after| after.bound));
        progress.write(partial)?;
    }
    disk::sync_dir(partial)?;
    rename(partial, to)
}

fn remove_if_empty(root: &Path) -> Result<()> {
    match std::fs::remove_dir(root) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
            Err(Error::io(format!("remove directory {}", root.display()), e))
        }
        _ => Ok(()),
    }
}
