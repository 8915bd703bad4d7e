//! The flip and what follows it.
//!
//! The record is the flip. Opening rolls forward from any point: the replica is renamed to its name, over a tombstone by
//! an exchange so that the name never leads nowhere, and the operation's directory keeps a note that it was until
//! `finish`. Without that note and without a replica, a name that leads nowhere is an error and not a success: the
//! source would be dropped for it.

use super::{
    Inner,
    name::{self, Occupant},
    progress::Progress,
    staging,
};
use crate::{
    Error, Result,
    sqlite::{disk, store::Store, tombstone},
};
use handover::dest_role::{DestRole, Phase};
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};
use std::{fs::File, os::unix::fs::MetadataExt, path::Path, sync::PoisonError};

/// Says that the replica is at its name. It need not be durable: without it the name itself is looked at.
const OPENED: &str = "opened";

pub(super) fn promote(inner: &Inner, role: &DestRole) -> Result<()> {
    let _names = inner.names.lock().unwrap_or_else(PoisonError::into_inner);
    if !matches!(role.phase, Phase::Primary { .. }) {
        return Err(Error::Misuse(format!("a destination that is {} is not promoted", role.phase.as_str())));
    }
    if let Some(replica) = inner.take_open(&role.operation) {
        replica.seal()?;
    }
    let dir = staging::adopt(&inner.store, &role.operation)?;
    let recorded: Option<DestRole> = inner.store.record(&role.operation)?;
    if !recorded.is_some_and(|r| matches!(r.phase, Phase::Primary { .. })) {
        let Some(dir) = &dir else { return Err(Error::Misuse("there is no replica to promote".to_owned())) };
        let consistent = Progress::read(dir)?.map_or(Ok(false), |p| p.is_consistent())?;
        if !consistent {
            return Err(Error::Corrupt("the replica is amid a transaction or before its end of the log".to_owned()));
        }
        match name::occupant(&inner.config, &role.database)? {
            Occupant::Nobody | Occupant::Tombstone(_) => {}
            Occupant::File | Occupant::SideFile => return Err(Error::NameTaken(role.database.to_string())),
        }
        inner.store.put(&role.operation, role)?;
    } else if recorded_differs(&inner.store, role)? {
        inner.store.put(&role.operation, role)?;
    }
    roll_forward(inner, role, dir.as_deref())
}

pub(super) fn finish(inner: &Inner, role: &DestRole) -> Result<()> {
    let _names = inner.names.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = staging::adopt(&inner.store, &role.operation)? {
        roll_forward(inner, role, Some(&dir))?;
    }
    staging::remove(&inner.store, &role.operation)
}

/// A repeated promote may carry a newer command version.
fn recorded_differs(store: &Store, role: &DestRole) -> Result<bool> {
    Ok(store.record::<DestRole>(&role.operation)?.as_ref() != Some(role))
}

fn roll_forward(inner: &Inner, role: &DestRole, dir: Option<&Path>) -> Result<()> {
    let target = inner.config.database(&role.database);
    let gone = || Err(Error::Corrupt(format!("the promoted database {:?} is gone", role.database)));
    let Some(dir) = dir else {
        return if disk::exists(&target)? { Ok(()) } else { gone() };
    };
    let (replica, opened) = (dir.join(staging::DB), dir.join(OPENED));
    if disk::exists(&opened)? {
        return Ok(());
    }
    if disk::exists(&replica)? && tombstone::read(&replica)?.is_none() {
        if same_file(&replica, &target) {
            // The file system was cut between the two halves of a rename.
            disk::remove(&replica)?;
        } else {
            put_in_place(inner, role, &replica, &target)?;
        }
    } else if !disk::exists(&target)? {
        return gone();
    }
    // The tombstone whose place the replica took.
    disk::remove(&replica)?;
    disk::sync_dir(inner.config.dir())?;
    File::create(&opened).map(drop).map_err(|e| Error::io(format!("create {}", opened.display()), e))
}

fn put_in_place(inner: &Inner, role: &DestRole, replica: &Path, target: &Path) -> Result<()> {
    let taken = || Error::NameTaken(role.database.to_string());
    let flags = match name::occupant(&inner.config, &role.database)? {
        Occupant::Nobody => RenameFlags::NOREPLACE,
        Occupant::Tombstone(_) => {
            name::remove_side_files(&inner.store, &inner.config, &role.database)?;
            RenameFlags::EXCHANGE
        }
        Occupant::File | Occupant::SideFile => return Err(taken()),
    };
    let rename = |flags| rustix::fs::renameat_with(CWD, replica, CWD, target, flags);
    let wrap = |e: std::io::Error| Error::io(format!("rename the replica to {}", target.display()), e);
    inner.store.check()?;
    match rename(flags) {
        Ok(()) if flags == RenameFlags::NOREPLACE => Ok(()),
        Ok(()) if tombstone::read(replica)?.is_some() => Ok(()),
        Ok(()) => {
            // Somebody removed the tombstone and used the name a moment ago.
            rename(RenameFlags::EXCHANGE).map_err(|e| wrap(e.into()))?;
            Err(taken())
        }
        Err(Errno::EXIST) => Err(taken()),
        // A file system that knows no such rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if flags == RenameFlags::NOREPLACE => {
            match std::fs::hard_link(replica, target) {
                Ok(()) => disk::remove(replica).map(drop),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(taken()),
                Err(e) => Err(wrap(e)),
            }
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => std::fs::rename(replica, target).map_err(wrap),
        Err(e) => Err(wrap(e.into())),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::symlink_metadata(a), std::fs::symlink_metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}
