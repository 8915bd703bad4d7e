//! What tells one incarnation of a database file from a restored or re-created one.

use crate::{Error, Result};
use handover::Incarnation;
use rustix::fs::{AtFlags, CWD, StatxFlags};
use std::path::Path;

/// The incarnation of the file at `path`: device, inode, and time of birth, because an inode number is used again once
/// its file is gone. What the application does to its content stays the same incarnation: that is in the log.
pub fn of(path: &Path) -> Result<Incarnation> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, flags).map_err(|e| match e {
        rustix::io::Errno::NOENT => Error::NoDatabase(name(path)),
        e => Error::io(format!("examine {}", path.display()), e.into()),
    })?;
    let born = match StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
        true => format!("{}.{:09}", stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        // Some file systems do not know: then a re-created file that got the same inode shows in its lost log only.
        false => "0".to_owned(),
    };
    let text = format!("{}:{}:{}:{born}", stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    Incarnation::parse(&text).map_err(|e| Error::Internal(e.to_string()))
}

/// Fails with [`Error::Incarnation`] unless the file at `path` is the one.
pub fn check(path: &Path, expected: &Incarnation) -> Result<()> {
    match of(path) {
        Ok(found) if found == *expected => Ok(()),
        Ok(_) => Err(Error::Incarnation(format!("{} is another file now", name(path)))),
        Err(Error::NoDatabase(name)) => Err(Error::Incarnation(format!("{name} is gone"))),
        Err(e) => Err(e),
    }
}

/// Changes when the machine starts anew.
pub fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(path).map(|id| id.trim().to_owned()).map_err(|e| Error::io(format!("read {path}"), e))
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}
