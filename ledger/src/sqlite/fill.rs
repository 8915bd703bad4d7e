//! Makes a SQLite database of a wanted size quickly: something to move.

use std::{fs::File, path::PathBuf};

use clap::Args;
use rusqlite::{Connection, params};
use serde::Serialize;

use super::{create_tables, error, view::beside};
use crate::{driver::Error, random::Random};

/// What to make.
#[derive(Debug, Clone, Args)]
pub struct FillOptions {
    /// The SQLite file to make, which must not exist, or the connection string of an empty PostgreSQL database, for which only
    /// the size counts
    #[arg(long, visible_alias = "postgres", value_name = "FILE|DSN")]
    pub db: PathBuf,
    /// Its size in units of 1000000 bytes
    #[arg(long)]
    pub mb: u64,
    /// Bytes of a page, 512 to 65536
    #[arg(long, default_value_t = 4096)]
    pub page_size: u32,
    /// NONE, FULL or INCREMENTAL
    #[arg(long, default_value = "NONE")]
    pub auto_vacuum: String,
    /// The journal mode it ends in: WAL or DELETE
    #[arg(long, default_value = "WAL")]
    pub journal_mode: String,
    /// Same seed, same content
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// Size of the file.
    pub bytes: u64,
    /// Rows of the filler table.
    pub rows: u64,
}

impl FillOptions {
    /// A database of `mb` million bytes, otherwise as by default.
    pub fn new(db: impl Into<PathBuf>, mb: u64) -> Self {
        Self { db: db.into(), mb, page_size: 4096, auto_vacuum: "NONE".into(), journal_mode: "WAL".into(), seed: 1 }
    }
}

/// Rows between two looks at the size.
const ROWS_PER_TRANSACTION: u64 = 1000;
/// Large enough for overflow pages at the usual page sizes, small enough that the b-tree has some depth.
const BODY_BYTES_MAX: u64 = 8000;

/// Makes the database: a filler table of random bytes with an index, and the ledger's tables. It is on disk when this
/// returns, and closed. If it fails, what was made of the file stays.
pub fn fill(options: &FillOptions) -> Result<Filled, Error> {
    for suffix in ["", "-wal", "-journal"] {
        if beside(&options.db, suffix).exists() {
            return Err(Error::Failed { stage: "create the database", cause: "the file exists".into() });
        }
    }
    let rows = fill_file(options).map_err(error("fill the database"))?;
    let conn = Connection::open(&options.db).map_err(error("open the database"))?;
    conn.pragma_update(None, "journal_mode", &options.journal_mode).map_err(error("set the journal mode"))?;
    create_tables(&conn)?;
    conn.close().map_err(|(_, cause)| error("close the database")(cause))?;
    let sync = || {
        let file = File::open(&options.db)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    let bytes =
        sync().map_err(|cause: std::io::Error| Error::Failed { stage: "sync the file", cause: cause.into() })?;
    Ok(Filled { bytes, rows })
}

/// Without journal and syncs: the file is new, so nothing can be lost that was there before.
fn fill_file(options: &FillOptions) -> rusqlite::Result<u64> {
    let conn = Connection::open(&options.db)?;
    conn.pragma_update(None, "page_size", options.page_size)?;
    conn.pragma_update(None, "auto_vacuum", &options.auto_vacuum)?;
    conn.pragma_update(None, "journal_mode", "OFF")?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    conn.execute_batch("CREATE TABLE filler(id INTEGER PRIMARY KEY, tag INTEGER NOT NULL, body BLOB NOT NULL)")?;
    let mut random = Random::new(options.seed);
    let mut body = vec![0; BODY_BYTES_MAX as usize];
    let mut insert = conn.prepare("INSERT INTO filler(tag, body) VALUES(?, ?)")?;
    let (mut rows, wanted) = (0, options.mb.saturating_mul(1_000_000));
    // Each row's entry in the index is made at the end and counted beforehand: about 16 bytes.
    while page_bytes(&conn)? + rows * 16 < wanted {
        conn.execute_batch("BEGIN")?;
        for _ in 0..ROWS_PER_TRANSACTION.min(1 + (wanted - page_bytes(&conn)?.min(wanted)) / BODY_BYTES_MAX) {
            let length = 100 + random.below(BODY_BYTES_MAX - 100) as usize;
            let body = &mut body[..length];
            random.fill(body);
            insert.execute(params![(random.next() >> 33) as i64, &*body])?;
            rows += 1;
        }
        conn.execute_batch("COMMIT")?;
    }
    drop(insert);
    conn.execute_batch("CREATE INDEX filler_tag ON filler(tag)")?;
    conn.close().map_err(|(_, cause)| cause)?;
    Ok(rows)
}

fn page_bytes(conn: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    conn.query_row(sql, [], |r| Ok(r.get::<_, i64>(0)?.unsigned_abs()))
}
