//! What stands in the way of taking a database in.

use super::{
    Inner,
    name::{self, Occupant},
    staging,
};
use crate::{
    Error, Result,
    sqlite::{disk, wire::Requirements},
};
use handover::{DatabaseName, Finding, OperationId, Side};
use rustix::fs::Access;

pub(super) fn preflight(
    inner: &Inner,
    database: &DatabaseName,
    requirements: &[u8],
    operation: Option<&OperationId>,
) -> Result<Vec<Finding>> {
    // A source that has nothing to say about the database has said why in its own findings.
    let requirements = match requirements {
        [] => None,
        bytes => Some(Requirements::decode(bytes)?),
    };
    let mut findings = vec![];
    // What follows would speak of a path that cannot be.
    if let Err(e) = name::check(database) {
        return match e {
            Error::Unsupported { code, message, remedy } => Ok(vec![Finding::error(Side::Dest, code, message, remedy)]),
            e => Err(e),
        };
    }
    if let Some(finding) = directory(inner)? {
        return Ok(vec![finding]);
    }
    findings.extend(taken(inner, database, operation)?);
    if let Some(requirements) = &requirements {
        findings.extend(space(inner, requirements, operation)?);
        findings.extend(version(requirements));
    }
    Ok(findings)
}

fn directory(inner: &Inner) -> Result<Option<Finding>> {
    let dir = inner.config.dir();
    let shown = dir.display();
    let finding = |message: String| {
        let remedy =
            "give the destination agent's user write permission on it, and see that its file system is writable";
        Some(Finding::error(Side::Dest, "DIRECTORY_NOT_WRITABLE", message, remedy))
    };
    if !dir.is_dir() {
        return Ok(finding(format!("{shown} is not a directory")));
    }
    for dir in [dir.to_owned(), inner.config.ours()] {
        if disk::exists(&dir)? && rustix::fs::access(&dir, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            return Ok(finding(format!("the destination agent cannot write to {}", dir.display())));
        }
    }
    Ok(None)
}

fn taken(inner: &Inner, database: &DatabaseName, operation: Option<&OperationId>) -> Result<Option<Finding>> {
    let error = |code, message: String, remedy: &str| Ok(Some(Finding::error(Side::Dest, code, message, remedy)));
    if let Some(other) = inner.others_of(database, operation)? {
        let message = format!("operation {other} makes or made a database {database:?} here and is not yet forgotten");
        return error("OPERATION_EXISTS", message, "let it end, or cancel it, then start again");
    }
    match name::occupant(&inner.config, database)? {
        Occupant::Nobody | Occupant::Tombstone(_) => Ok(None),
        Occupant::File => error(
            "NAME_TAKEN",
            format!("the destination has a file {database:?} already"),
            "rename or remove it, or move it away first",
        ),
        Occupant::SideFile => error(
            "NAME_TAKEN",
            format!("the destination has {database}-wal or {database}-journal without a database"),
            "find out whose transactions are in it, then move it away",
        ),
    }
}

fn space(inner: &Inner, wanted: &Requirements, operation: Option<&OperationId>) -> Result<Option<Finding>> {
    let held = operation.map_or(Ok(0), |operation| staging::allocated_bytes(&inner.store, operation))?;
    let free = disk::free_bytes(inner.config.dir())?.saturating_add(held);
    let needed = wanted.bytes.saturating_add(inner.config.reserve_bytes);
    if free >= needed {
        return Ok(None);
    }
    let message = format!(
        "the destination's disk has {} MiB free, {} MiB are needed ({} MiB of them as a reserve for the log)",
        free >> 20,
        needed.div_ceil(1 << 20),
        inner.config.reserve_bytes >> 20
    );
    Ok(Some(Finding::error(Side::Dest, "NO_SPACE", message, "free space on the destination's disk")))
}

fn version(wanted: &Requirements) -> Option<Finding> {
    let ours = u32::try_from(rusqlite::version_number()).unwrap_or(0);
    if wanted.sqlite_version > ours {
        let message = format!(
            "the destination agent has SQLite {}, which is older than the source agent's {}",
            text(ours),
            text(wanted.sqlite_version)
        );
        return Some(Finding::error(
            Side::Dest,
            "VERSION_OLDER",
            message,
            "install the same release of Causeway at both",
        ));
    }
    if wanted.written_by > ours {
        let message = format!(
            "the database was last written by SQLite {}, which is newer than the destination agent's {}",
            text(wanted.written_by),
            text(ours)
        );
        let remedy = "see that the applications at the destination use a SQLite that is as new";
        return Some(Finding::warning(Side::Dest, "WRITER_NEWER", message, remedy));
    }
    None
}

fn text(version: u32) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000)
}
