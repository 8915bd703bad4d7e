//! The databases of the instance as the destination sees them, and the removal of tombstones.

use super::{Inner, name, name::Occupant};
use crate::{
    Error, Result,
    source::DatabaseInfo,
    sqlite::{disk, files, header::Header, tombstone},
};
use handover::{
    DatabaseName, Finding, Side,
    dest_role::{DestRole, Phase},
};
use std::{collections::BTreeMap, path::Path, sync::PoisonError};

/// Files with these endings are meant to be databases even if they do not look so.
const ENDINGS: [&str; 3] = ["db", "sqlite", "sqlite3"];

pub(super) fn databases(inner: &Inner) -> Result<Vec<DatabaseInfo>> {
    let mut found = BTreeMap::new();
    for path in disk::list(inner.config.dir())? {
        if let Some(info) = examine(&path)? {
            found.insert(info.name.clone(), info);
        }
    }
    let roles: Vec<DestRole> = inner.store.records()?;
    for role in roles {
        if matches!(role.phase, Phase::Primary { .. } | Phase::Discarded) {
            continue;
        }
        let size_bytes = super::staging::allocated_bytes(&inner.store, &role.operation)?;
        let info = DatabaseInfo { name: role.database, size_bytes, state: "incoming".to_owned(), findings: vec![] };
        found.insert(info.name.clone(), info);
    }
    Ok(found.into_values().collect())
}

/// What is told of one file; `None` if it is no database.
fn examine(path: &Path) -> Result<Option<DatabaseInfo>> {
    let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| DatabaseName::parse(n).ok()) else {
        return Ok(None);
    };
    if name::check(&name).is_err() {
        return Ok(None);
    }
    let meta = match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => return Ok(None),
        // Gone since it was listed, or a dangling link.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("examine {}", path.display()), e)),
    };
    let (state, findings) = match files::open(path).and_then(|file| Header::of(&file)) {
        Ok(Some(header)) if tombstone::is_tombstone(&header) => ("tombstone", moved(path)?),
        Ok(Some(header)) if header.is_fenced() => ("fenced", vec![]),
        Ok(Some(_)) => ("online", vec![]),
        Ok(None) | Err(_) if !path.extension().is_some_and(|e| ENDINGS.iter().any(|ending| e == *ending)) => {
            return Ok(None);
        }
        Ok(None) => ("online", vec![]),
        Err(e) => {
            let remedy = "restore it from a backup, or move it out of the directory if it is no database";
            ("unreadable", vec![Finding::warning(Side::Dest, "UNREADABLE", e.to_string(), remedy)])
        }
    };
    Ok(Some(DatabaseInfo { name, size_bytes: meta.len(), state: state.to_owned(), findings }))
}

fn moved(path: &Path) -> Result<Vec<Finding>> {
    let note = tombstone::read(path)?;
    let to = note.map(|n| n.moved_to).filter(|to| !to.is_empty()).unwrap_or_else(|| "another instance".to_owned());
    let remedy = "point the applications there; `causeway database purge` removes what is left here";
    Ok(vec![Finding::warning(Side::Dest, "MOVED", format!("this database moved to {to}"), remedy)])
}

pub(super) fn purge(inner: &Inner, database: &DatabaseName) -> Result<()> {
    let _names = inner.names.lock().unwrap_or_else(PoisonError::into_inner);
    name::check(database)?;
    match name::occupant(&inner.config, database)? {
        Occupant::Tombstone(_) => {}
        Occupant::Nobody | Occupant::SideFile => return Err(Error::NoDatabase(database.to_string())),
        Occupant::File => return Err(not_a_tombstone(database)),
    }
    name::remove_side_files(&inner.store, &inner.config, database)?;
    // It is looked at again once nobody can put something else in its place.
    let (path, aside) = (inner.config.database(database), inner.store.home().join("purged"));
    let wrap = |e| Error::io(format!("remove the tombstone {}", path.display()), e);
    if disk::exists(&aside)? && tombstone::read(&aside)?.is_none() {
        // A crash in the middle of what follows, just when somebody used the name.
        return Err(Error::Internal(format!("{} holds a database; move it back by hand", aside.display())));
    }
    inner.store.check()?;
    std::fs::rename(&path, &aside).map_err(wrap)?;
    if tombstone::read(&aside)?.is_none() {
        std::fs::hard_link(&aside, &path).map_err(wrap)?;
        disk::remove(&aside)?;
        return Err(not_a_tombstone(database));
    }
    disk::remove(&aside)?;
    disk::sync_dir(inner.config.dir())
}

fn not_a_tombstone(database: &DatabaseName) -> Error {
    Error::Unsupported {
        code: "NOT_A_TOMBSTONE",
        message: format!("{database:?} is not what a moved database left, so it is not removed"),
        remedy: "remove the file by hand if you are sure that nobody needs it".to_owned(),
    }
}
