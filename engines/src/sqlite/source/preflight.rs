//! What stands in the way of moving a database, and what to know before.

mod examine;

use super::{connect, fence::stands, identity};
use crate::{
    Error, Result,
    source::{DatabaseInfo, SourceFacts},
    sqlite::{
        SqliteConfig, disk, files,
        header::{FENCED, Header},
        store::Store,
        tombstone,
        wire::{self, Journal, Requirements},
    },
};
use examine::Examined;
use handover::{
    DatabaseName, Finding, Kind, OperationId, Side,
    source_role::{Phase, SourceRole},
};
use std::{os::unix::fs::MetadataExt, path::Path};

/// The oldest SQLite that may run here: earlier ones can corrupt a WAL database when a WAL is reset.
pub const SQLITE_MIN: i32 = 3_051_003;
/// Free space without which not even the role records are safe.
const FREE_MIN: u64 = 16 << 20;
/// How fast a last pass over a rollback-journal database goes, in bytes a millisecond: 2.37 GB took 422 ms.
const PASS_BYTES_PER_MS: u64 = 5_600_000;
/// Endings that people give to databases: such a file that is none is listed, with a finding.
const ENDINGS: [&str; 4] = ["db", "sqlite", "sqlite3", "db3"];

/// Fails unless the SQLite in this program can do what the engine needs.
pub fn check_library() -> Result<()> {
    let unsupported = |message: String| Error::Unsupported {
        code: "SQLITE_TOO_OLD",
        message,
        remedy: "install an agent that was built as its documentation says".to_owned(),
    };
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(unsupported(format!("the agent's SQLite {} is older than 3.51.3", rusqlite::version())));
    }
    let db = rusqlite::Connection::open_in_memory().map_err(|e| tombstone::database("open a database", &e))?;
    db.prepare("SELECT data FROM sqlite_dbpage")
        .map(|_| ())
        .map_err(|_| unsupported("the agent's SQLite was built without sqlite_dbpage".to_owned()))
}

/// Examines a database for [`crate::source::SourceEngine::preflight`].
pub fn preflight(
    config: &SqliteConfig,
    store: &Store,
    name: &DatabaseName,
    kind: Kind,
    operation: Option<&OperationId>,
) -> Result<SourceFacts> {
    let path = config.database(name);
    let roles: Vec<SourceRole> = store.records()?;
    let own = operation.and_then(|o| roles.iter().find(|r| r.operation == *o && r.database == *name));
    let mut findings = vec![];
    if let Some(other) = roles.iter().find(|r| r.database == *name && Some(&r.operation) != operation && active(r)) {
        findings.push(error(
            "OPERATION_EXISTS",
            format!("operation {} works on {name} at this instance", other.operation),
            "wait until that operation has ended, or cancel it",
        ));
    }
    let examined = examine::examine(&path, name, own.is_some_and(SourceRole::may_be_fenced), &mut findings)?;
    let facts = |findings, requirements: Result<_>, incarnation, seed_bytes| {
        Ok(SourceFacts { findings, requirements: requirements?, incarnation, seed_bytes })
    };
    let Some(Examined { header, bytes, mode }) = examined else {
        // There is nothing that could be moved, and the findings say so: the rest is form.
        let incarnation = identity::of(&path)
            .or_else(|_| handover::Incarnation::parse("none").map_err(|e| Error::Internal(e.to_string())))?;
        return facts(findings, Ok(bytes::Bytes::new()), incarnation, 0);
    };
    space(config, &mut findings)?;
    if !header.is_wal() {
        let freeze_ms = bytes / PASS_BYTES_PER_MS + 5;
        findings.push(warning(
            "ROLLBACK_JOURNAL",
            format!("{name} uses a rollback journal, so writers will wait for about {freeze_ms} ms while a last pass is made"),
            "accept that, or set PRAGMA journal_mode=wal in the application before",
        ));
    }
    if kind == Kind::Move && databases(config, store)?.iter().any(|d| d.name != *name && d.state == "online") {
        findings.push(warning(
            "ATTACHED",
            format!(
                "if an application attaches {name} to other databases, a transaction over both is not moved as one"
            ),
            "move such databases while the application is stopped",
        ));
    }
    let requirements = Requirements {
        format: wire::VERSION,
        page_size: header.page_size,
        bytes,
        sqlite_version: rusqlite::version_number().unsigned_abs(),
        written_by: header.sqlite_version,
        journal: if header.is_wal() { Journal::Wal } else { Journal::Rollback },
        mode,
    };
    facts(findings, requirements.encode(), identity::of(&path)?, bytes)
}

fn space(config: &SqliteConfig, findings: &mut Vec<Finding>) -> Result<()> {
    let (free, budget) = (disk::free_bytes(config.dir())?, config.log_budget(0)?);
    if free < FREE_MIN {
        findings.push(error(
            "SPACE",
            format!("the disk of the instance has {free} bytes free, too few to retain any log"),
            "free space on that disk",
        ));
    } else if budget < config.log_budget_bytes {
        findings.push(warning(
            "SPACE",
            format!("retained log may take {budget} bytes here, less than the configured {}", config.log_budget_bytes),
            "free space on that disk, or keep the destination's outages short",
        ));
    }
    Ok(())
}

/// Whether a role stands in the way of another operation on the same database.
fn active(role: &SourceRole) -> bool {
    !matches!(role.phase, Phase::Released { .. })
}

/// The databases of the instance, from their headers alone.
pub fn databases(config: &SqliteConfig, store: &Store) -> Result<Vec<DatabaseInfo>> {
    let roles: Vec<SourceRole> = store.records()?;
    let mut found = vec![];
    for path in disk::list(config.dir())? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| DatabaseName::parse(n).ok()) else {
            continue;
        };
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if !meta.is_file() || is_companion(&path) {
            continue;
        }
        if let Some(info) = database_info(&path, name, meta.size(), &roles) {
            found.push(info);
        }
    }
    Ok(found)
}

fn database_info(path: &Path, name: DatabaseName, size_bytes: u64, roles: &[SourceRole]) -> Option<DatabaseInfo> {
    let ending = path.extension().and_then(|e| e.to_str()).is_some_and(|e| ENDINGS.contains(&e));
    let broken = |finding: Finding| DatabaseInfo {
        name: name.clone(),
        size_bytes,
        state: "unusable".to_owned(),
        findings: vec![finding],
    };
    let header = match files::open(path).and_then(|file| Header::of(&file)) {
        Ok(Some(header)) => header,
        Ok(None) if ending => return Some(broken(examine::empty(&name))),
        Ok(None) => return None,
        Err(Error::Corrupt(why)) if ending => return Some(broken(examine::not_sqlite(&name, &why))),
        Err(Error::Corrupt(_)) => return None,
        Err(e) if ending => {
            let remedy = "give the agent the rights to read and write it";
            return Some(broken(error("READ_ONLY", format!("{name} cannot be read: {e}"), remedy)));
        }
        Err(_) => return None,
    };
    let role = roles.iter().find(|r| r.database == name && active(r));
    let fenced = header.write_version == FENCED || role.is_some_and(|r| matches!(r.phase, Phase::Fenced { .. }));
    let state = match () {
        () if tombstone::is_tombstone(&header) => "tombstone",
        () if fenced => "fenced",
        () => "online",
    };
    let mut findings = vec![];
    examine::header_findings(&header, &name, role.is_some_and(SourceRole::may_be_fenced), &mut findings);
    Some(DatabaseInfo { name, size_bytes, state: state.to_owned(), findings })
}

/// Whether the file belongs to another one that is a database.
fn is_companion(path: &Path) -> bool {
    path.to_str().is_some_and(|p| ["-wal", "-shm", "-journal"].iter().any(|suffix| p.ends_with(suffix)))
}

fn error(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::error(Side::Source, code, message, remedy)
}

fn warning(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::warning(Side::Source, code, message, remedy)
}
