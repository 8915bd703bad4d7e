//! Durable file operations: what is written here survives a power cut once the call returns.

use crate::{Error, Result};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Adds a suffix such as `-wal` to a file's name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the entries of a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let what = || format!("sync directory {}", dir.display());
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io(what(), e))
}

/// Makes a directory for our own eyes (mode 0700: role records hold tokens) durably, with those above it.
pub fn make_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent()
        && !parent.as_os_str().is_empty()
    {
        make_dir(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(Error::io(format!("make directory {}", dir.display()), e)),
    }
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Replaces `dir/name` by `bytes` as one step: whoever reads it finds the old content or the new one, also after a
/// power cut.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (path, tmp) = (dir.join(name), dir.join(format!("{name}.tmp")));
    let what = |step: &str| format!("{step} {}", tmp.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&tmp)
        .map_err(|e| Error::io(what("create"), e))?;
    file.write_all(bytes).map_err(|e| Error::io(what("write"), e))?;
    file.sync_all().map_err(|e| Error::io(what("sync"), e))?;
    std::fs::rename(&tmp, &path).map_err(|e| Error::io(what("rename"), e))?;
    sync_dir(dir)
}

/// Reads a file, or `None` when there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("read {}", path.display()), e)),
    }
}

/// Removes a file; one that is gone already is no error. Not durable before [`sync_dir`].
pub fn remove(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(format!("remove {}", path.display()), e)),
    }
}

/// Removes a directory of ours with what is in it, durably; one that is gone already is no error.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_dir),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("remove directory {}", dir.display()), e)),
    }
}

/// Whether something has this path, a dangling link too.
pub fn exists(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(format!("examine {}", path.display()), e)),
    }
}

/// The paths directly in a directory, sorted; none when there is no such directory.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let wrap = |e| Error::io(format!("list {}", dir.display()), e);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(wrap(e)),
    };
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(wrap)?;
    paths.sort();
    Ok(paths)
}

/// Bytes that a process without privileges may still take on the disk that holds `path`.
pub fn free_bytes(path: &Path) -> Result<u64> {
    crate::host::free_bytes(path).map_err(|e| Error::io(format!("ask for the free space of {}", path.display()), e))
}
