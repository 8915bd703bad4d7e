//! A read-only view of a SQLite database that creates no file, takes no write lock and checkpoints nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, types::ValueRef};
use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3Default;

use super::error;
use crate::driver::{Error, LedgerRow, ListItem, TableHash, View};

/// A snapshot of one database, held until dropped.
///
/// A plain read-only connection would do, did it not leave a -wal and a -shm behind where there were none. So: with
/// both there, the database is in use or was killed, and such a connection disturbs nobody. With neither, a WAL
/// database is closed and is opened as immutable; if an application opens it meanwhile, the view may mix states.
/// A log without its -shm, or a journal left by a kill, needs recovery: that happens in a copy.
#[derive(Debug)]
pub struct SqliteView {
    conn: Connection,
    _copy: Option<TempDir>,
}

impl SqliteView {
    /// Opens a view of what the database holds now.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (wal, shm) = (length(&beside(path, "-wal")), length(&beside(path, "-shm")));
        match (wal, shm) {
            (Some(_), Some(_)) => Self::begin(connect(path, "mode=ro")?, None),
            (Some(1..), None) => Self::of_copy(path),
            _ if is_wal(path)? => Self::begin(connect(path, "mode=ro&immutable=1")?, None),
            _ => match Self::begin(connect(path, "mode=ro")?, None) {
                Err(_) if length(&beside(path, "-journal")).is_some() => Self::of_copy(path),
                other => other,
            },
        }
    }

    fn of_copy(path: &Path) -> Result<Self, Error> {
        let copy = || -> io::Result<(TempDir, PathBuf)> {
            let dir = tempfile::tempdir()?;
            let to = dir.path().join("copy.db");
            fs::copy(path, &to)?;
            for suffix in ["-wal", "-journal"] {
                let from = beside(path, suffix);
                if from.exists() {
                    fs::copy(from, beside(&to, suffix))?;
                }
            }
            Ok((dir, to))
        };
        let (dir, to) = copy().map_err(|cause| Error::Failed { stage: "copy for recovery", cause: cause.into() })?;
        Self::begin(connect(&to, "mode=rw")?, Some(dir))
    }

    fn begin(conn: Connection, copy: Option<TempDir>) -> Result<Self, Error> {
        let begin = || {
            conn.execute_batch("BEGIN")?;
            conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        };
        begin().map_err(error("begin a snapshot"))?;
        Ok(Self { conn, _copy: copy })
    }

    /// The connection that holds the snapshot.
    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    fn table_hash(&self, table: &str) -> rusqlite::Result<TableHash> {
        let quoted = table.replace('"', "\"\"");
        let mut keys: Vec<(i64, String)> = Vec::new();
        let without_rowid: bool =
            self.conn
                .query_row("SELECT wr FROM pragma_table_list WHERE schema='main' AND name=?", [table], |r| r.get(0))?;
        if without_rowid {
            let mut select = self.conn.prepare("SELECT pk, name FROM pragma_table_info(?) WHERE pk > 0")?;
            keys = select.query_map([table], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
            keys.sort();
        }
        let order = if keys.is_empty() {
            "_rowid_".to_owned()
        } else {
            keys.iter().map(|(_, k)| format!("\"{}\"", k.replace('"', "\"\""))).collect::<Vec<_>>().join(",")
        };
        self.hash(table, &format!("SELECT * FROM main.\"{quoted}\" ORDER BY {order}"))
    }

    fn hash(&self, name: &str, sql: &str) -> rusqlite::Result<TableHash> {
        let (mut hash, mut count) = (Xxh3Default::new(), 0);
        let mut select = self.conn.prepare(sql)?;
        let columns = select.column_count();
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            count += 1;
            for column in 0..columns {
                // The type and the length are hashed too: 1, '1' and x'31' differ, and so do ('a','bc') and ('ab','c').
                match row.get_ref(column)? {
                    ValueRef::Null => hash.update(b"n"),
                    ValueRef::Integer(i) => {
                        hash.update(b"i");
                        hash.update(&i.to_le_bytes());
                    }
                    ValueRef::Real(r) => {
                        hash.update(b"r");
                        hash.update(&r.to_bits().to_le_bytes());
                    }
                    ValueRef::Text(bytes) => {
                        hash.update(b"t");
                        hash.update(&(bytes.len() as u64).to_le_bytes());
                        hash.update(bytes);
                    }
                    ValueRef::Blob(bytes) => {
                        hash.update(b"b");
                        hash.update(&(bytes.len() as u64).to_le_bytes());
                        hash.update(bytes);
                    }
                }
            }
        }
        Ok(TableHash { table: name.to_owned(), rows: count, hash: hash.digest128() })
    }

    fn all_hashes(&self) -> rusqlite::Result<Vec<TableHash>> {
        let mut hashes =
            vec![self.hash("<schema>", "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?];
        hashes.push(self.hash("<user_version>", "PRAGMA main.user_version")?);
        hashes.push(self.hash("<application_id>", "PRAGMA main.application_id")?);
        // Virtual tables keep their content in shadow tables, which are hashed; views have none.
        let sql = "SELECT name FROM pragma_table_list WHERE schema='main' AND type IN ('table','shadow')
                   AND name NOT IN ('sqlite_schema','sqlite_dbpage') ORDER BY name";
        let mut select = self.conn.prepare(sql)?;
        let tables = select.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        for table in tables {
            hashes.push(self.table_hash(&table)?);
        }
        Ok(hashes)
    }
}

impl View for SqliteView {
    fn ledger(&self, each: &mut dyn FnMut(LedgerRow)) -> Result<(), Error> {
        let mut read = || {
            let sql = "SELECT writer, seq, src, dst, amount, note FROM ledger ORDER BY writer, seq";
            let mut select = self.conn.prepare(sql)?;
            let mut rows = select.query([])?;
            while let Some(r) = rows.next()? {
                let transfer = (r.get(2)?, r.get(3)?, r.get(4)?);
                each(LedgerRow { writer: r.get(0)?, seq: r.get(1)?, transfer, note: r.get(5)? });
            }
            Ok(())
        };
        read().map_err(error("read the ledger"))
    }

    fn chains(&self) -> Result<Vec<(i64, i64, Vec<u8>)>, Error> {
        let read = || {
            let mut select = self.conn.prepare("SELECT writer, seq, digest FROM chain ORDER BY writer")?;
            select.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(error("read the chains"))
    }

    fn balances(&self) -> Result<Vec<(i64, i64)>, Error> {
        let read = || {
            let mut select = self.conn.prepare("SELECT id, balance FROM account ORDER BY id")?;
            select.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(error("read the accounts"))
    }

    fn items(&self, each: &mut dyn FnMut(ListItem)) -> Result<(), Error> {
        let mut read = || {
            let mut select = self.conn.prepare("SELECT key, position, writer, seq FROM list ORDER BY key, position")?;
            let mut rows = select.query([])?;
            while let Some(r) = rows.next()? {
                each(ListItem { list: r.get(0)?, position: r.get(1)?, writer: r.get(2)?, seq: r.get(3)? });
            }
            Ok(())
        };
        read().map_err(error("read the lists"))
    }

    fn integrity(&self) -> Result<String, Error> {
        let read = || {
            let mut select = self.conn.prepare("PRAGMA integrity_check(5)")?;
            let found = select.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            Ok(found.join("; "))
        };
        read().map_err(error("check the file"))
    }

    fn content(&self) -> Result<Vec<TableHash>, Error> {
        self.all_hashes().map_err(error("hash the content"))
    }
}

/// The path with a suffix to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|m| m.len())
}

/// Whether the header says WAL. Asked through SQLite, not by reading the file: closing a plain handle on it would drop
/// the locks of every connection this process has to the database.
fn is_wal(path: &Path) -> Result<bool, Error> {
    let conn = connect(path, "mode=ro&immutable=1")?;
    let read = || -> rusqlite::Result<bool> {
        let mut select = conn.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = 1")?;
        let mut rows = select.query([])?;
        // An empty file is a database without pages, and in no mode.
        let Some(row) = rows.next()? else { return Ok(false) };
        Ok(row.get_ref(0)?.as_blob()?.get(19) == Some(&2))
    };
    read().map_err(error("read the header"))
}

fn connect(path: &Path, parameters: &str) -> Result<Connection, Error> {
    let absolute =
        fs::canonicalize(path).map_err(|cause| Error::Failed { stage: "find the database", cause: cause.into() })?;
    let mut uri = String::from("file:");
    for byte in absolute.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri = format!("{uri}?{parameters}");
    let mode = if parameters.contains("mode=rw") {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let flags = mode | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(uri, flags).map_err(error("open the database"))?;
    // Long enough for a checkpoint or a recovery by the application to pass.
    conn.busy_timeout(std::time::Duration::from_secs(10)).map_err(error("set the busy timeout"))?;
    Ok(conn)
}
