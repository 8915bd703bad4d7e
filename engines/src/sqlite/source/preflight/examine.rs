//! Looking at one database file for the preflight.

use super::{DatabaseName, Error, Finding, Header, Path, Result, connect, disk, error, files, stands, tombstone};
use rustix::fs::Access;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// What an examination found where nothing is wrong with the file as such.
pub struct Examined {
    /// Its header.
    pub header: Header,
    /// Bytes of the file.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
}

/// Examines a file. `fenced_by_us` is whether a fence may be of the very operation this is for. Nothing is answered if
/// there is nothing that could be moved.
pub fn examine(
    path: &Path,
    name: &DatabaseName,
    fenced_by_us: bool,
    findings: &mut Vec<Finding>,
) -> Result<Option<Examined>> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => {
            findings.push(error(
                "DATABASE_NOT_FOUND",
                format!("{name} is no regular file"),
                "name the file itself, in the instance's own directory",
            ));
            return Ok(None);
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            findings.push(error(
                "DATABASE_NOT_FOUND",
                format!("there is no {name} in this instance"),
                "check the name",
            ));
            return Ok(None);
        }
        Err(e) => return Err(Error::io(format!("examine {}", path.display()), e)),
    };
    if !permitted(path, name, findings) {
        return Ok(None);
    }
    let header = match files::open(path).and_then(|file| Header::of(&file)) {
        Ok(Some(header)) => header,
        Ok(None) => {
            findings.push(empty(name));
            return Ok(None);
        }
        Err(Error::Corrupt(why)) => {
            findings.push(not_sqlite(name, &why));
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    if header_findings(&header, name, fenced_by_us, findings) {
        return Ok(None);
    }
    let before = findings.len();
    length(path, name, &header, meta.size(), findings);
    if findings.len() == before {
        open(path, name, fenced_by_us, findings)?;
    }
    Ok(Some(Examined { header, bytes: meta.size(), mode: meta.permissions().mode() & 0o7777 }))
}

fn permitted(path: &Path, name: &DatabaseName, findings: &mut Vec<Finding>) -> bool {
    let directory = path.parent().unwrap_or(path);
    for (what, place, access) in [
        (format!("{name} cannot be read and written by the agent"), path, Access::READ_OK | Access::WRITE_OK),
        (
            "the instance's directory cannot be written by the agent".to_owned(),
            directory,
            Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        ),
    ] {
        if rustix::fs::access(place, access).is_err() {
            findings.push(error(
                "READ_ONLY",
                what,
                "run the agent as the application's user, on a disk that is not read-only",
            ));
            return false;
        }
    }
    true
}

/// What the header alone tells; answers whether it makes any further look needless.
pub fn header_findings(header: &Header, name: &DatabaseName, fenced_by_us: bool, findings: &mut Vec<Finding>) -> bool {
    if tombstone::is_tombstone(header) {
        findings.push(error(
            "TOMBSTONE",
            format!("{name} was moved away; only a note of where it went is left"),
            "read the table causeway_moved in it, and start from the instance that it names",
        ));
        return true;
    }
    if header.is_fenced() && !fenced_by_us {
        findings.push(error(
            "UNSUPPORTED_HEADER",
            format!("{name} is fenced, by another operation or another tool"),
            "complete or cancel the operation that fenced it",
        ));
        return true;
    }
    let known = |version: u8| (1..=2).contains(&version);
    if !known(header.read_version) || !(known(header.write_version) || header.is_fenced()) || header.schema_format > 4 {
        findings.push(error(
            "UNSUPPORTED_HEADER",
            format!("{name} has a file format that this agent does not know"),
            "use an agent with a newer SQLite",
        ));
        return true;
    }
    if header.encoding > 3 {
        findings.push(corrupt(name, "its header names no text encoding"));
        return true;
    }
    false
}

/// The finding for a file without content.
pub fn empty(name: &DatabaseName) -> Finding {
    error("EMPTY", format!("{name} is an empty file"), "create a table in it first, or create it at the destination")
}

/// The finding for a file that is no database.
pub fn not_sqlite(name: &DatabaseName, why: &str) -> Finding {
    if why.contains("first bytes") {
        return error(
            "ENCRYPTED_OR_NOT_SQLITE",
            format!("{name} is encrypted or no SQLite database"),
            "decrypt it first; encrypted databases cannot be moved",
        );
    }
    corrupt(name, why)
}

fn corrupt(name: &DatabaseName, why: &str) -> Finding {
    error(
        "CORRUPT",
        format!("{name} is damaged: {why}"),
        "restore it from a backup, or repair it with sqlite3 .recover",
    )
}

/// The length of the file against its header. With a WAL the file may be shorter: the rest comes with a checkpoint.
fn length(path: &Path, name: &DatabaseName, header: &Header, bytes: u64, findings: &mut Vec<Finding>) {
    let size = u64::from(header.page_size);
    let has_wal = std::fs::symlink_metadata(disk::beside(path, "-wal")).is_ok_and(|m| m.size() > 0);
    let has_journal = std::fs::symlink_metadata(disk::beside(path, "-journal")).is_ok_and(|m| m.size() > 0);
    if has_wal || has_journal {
        return;
    }
    let counted = header.version_valid_for == header.change_counter && header.pages > 0;
    if !bytes.is_multiple_of(size) {
        findings.push(corrupt(name, "its length is no multiple of its page size"));
    } else if counted && u64::from(header.pages) * size > bytes {
        findings.push(corrupt(name, "it is shorter than its header says"));
    }
}

/// Opens it as the operation will. What SQLite makes beside it for that goes again, unless it was there before.
fn open(path: &Path, name: &DatabaseName, fenced_by_us: bool, findings: &mut Vec<Finding>) -> Result<()> {
    let had_wal = disk::exists(&disk::beside(path, "-wal"))?;
    let looked = connect::open(path).and_then(|db| {
        let page = connect::first_page(&db)?;
        if !had_wal {
            // Nobody was connected, so closing removes what opening made.
            db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
                .map_err(|e| tombstone::database("close the database", &e))?;
        }
        Ok(page)
    });
    match looked {
        Ok(page) if stands(&page) && !fenced_by_us => findings.push(error(
            "UNSUPPORTED_HEADER",
            format!("{name} is fenced, by another operation or another tool"),
            "complete or cancel the operation that fenced it",
        )),
        Ok(_) => {}
        Err(Error::Busy(_)) => findings.push(error(
            "LOCKED_EXCLUSIVE",
            format!("an application holds {name} for itself (PRAGMA locking_mode=EXCLUSIVE)"),
            "set locking_mode=NORMAL in the application",
        )),
        Err(Error::Corrupt(why)) => findings.push(corrupt(name, &why)),
        Err(e) => return Err(e),
    }
    Ok(())
}
