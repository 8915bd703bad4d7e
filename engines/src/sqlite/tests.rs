//! The SQLite engine passes the suite, in WAL and in rollback-journal mode, with a real client connection.

use super::{SqliteConfig, dest::SqliteDest, source::SqliteSource};
use crate::{conformance::Harness, dest::DestEngine, host::RealHost, source::SourceEngine};
use async_trait::async_trait;
use handover::DatabaseName;
use rusqlite::{Connection, OpenFlags, params};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

struct Files {
    _dir: tempfile::TempDir,
    source: PathBuf,
    dest: PathBuf,
    name: DatabaseName,
    journal_mode: &'static str,
}

impl Files {
    fn new(journal_mode: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (source, dest) = (dir.path().join("west"), dir.path().join("east"));
        std::fs::create_dir(&source).expect("make the source instance");
        std::fs::create_dir(&dest).expect("make the destination instance");
        let db = Connection::open(source.join("shop.db")).expect("make the database");
        db.pragma_update(None, "journal_mode", journal_mode).expect("set the journal mode");
        db.execute_batch("CREATE TABLE kv(key TEXT PRIMARY KEY, value TEXT NOT NULL)").expect("make the table");
        Self { _dir: dir, source, dest, name: DatabaseName::parse("shop.db").expect("a name"), journal_mode }
    }

    fn config(&self, dir: &Path) -> SqliteConfig {
        // The cases keep agents that were taken over alive in this process; they give no sign of life.
        SqliteConfig { takeover_after: Duration::from_millis(200), ..SqliteConfig::new(dir) }
    }

    fn client(dir: &Path) -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(dir.join("shop.db"), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.busy_timeout(Duration::from_secs(10))?;
        Ok(db)
    }

    fn write_in(dir: &Path, key: &str, value: Option<&str>) -> bool {
        let Ok(db) = Self::client(dir) else { return false };
        match value {
            Some(value) => db.execute("INSERT OR REPLACE INTO kv VALUES(?1, ?2)", params![key, value]).is_ok(),
            None => db.execute("DELETE FROM kv WHERE key = ?1", params![key]).is_ok(),
        }
    }

    fn rows_in(dir: &Path) -> BTreeMap<String, String> {
        let db = Self::client(dir).expect("open the database");
        let mut all = db.prepare("SELECT key, value FROM kv").expect("prepare");
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
        rows.collect::<rusqlite::Result<_>>().expect("read every row")
    }

    /// Everything below `.causeway` but what a lock, an epoch and a watermark need.
    fn leftovers_in(dir: &Path, found: &mut Vec<String>) {
        let mut todo = vec![dir.join(super::OURS)];
        while let Some(next) = todo.pop() {
            let Ok(entries) = std::fs::read_dir(&next) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                match entry.path().is_dir() {
                    true => todo.push(entry.path()),
                    false if ["lock", "heartbeat", "watermark", "complete"].contains(&name.as_str()) => {}
                    false => found.push(entry.path().display().to_string()),
                }
            }
        }
    }
}

#[async_trait]
impl Harness for Files {
    fn source(&mut self) -> Arc<dyn SourceEngine> {
        Arc::new(SqliteSource::new(self.config(&self.source), Arc::new(RealHost)))
    }
    fn dest(&mut self) -> Arc<dyn DestEngine> {
        Arc::new(SqliteDest::new(self.config(&self.dest), Arc::new(RealHost)))
    }
    fn database(&self) -> DatabaseName {
        self.name.clone()
    }
    async fn write(&self, key: &str, value: Option<&str>) -> bool {
        let (dir, key, value) = (self.source.clone(), key.to_owned(), value.map(str::to_owned));
        let job = move || Self::write_in(&dir, &key, value.as_deref());
        tokio::task::spawn_blocking(job).await.expect("the client does not panic")
    }
    async fn write_at_dest(&self, key: &str, value: &str) -> bool {
        Self::write_in(&self.dest, key, Some(value))
    }
    async fn rows(&self) -> BTreeMap<String, String> {
        Self::rows_in(&self.source)
    }
    async fn rows_at_dest(&self) -> BTreeMap<String, String> {
        Self::rows_in(&self.dest)
    }
    async fn lose_log(&self) -> bool {
        // The last connection checkpoints and removes the WAL; a second round makes sure that it was begun anew.
        for round in 0..2 {
            let db = Self::client(&self.source).expect("open the database");
            let value = format!("{round}");
            db.execute("INSERT OR REPLACE INTO kv VALUES('round', ?1)", params![value]).expect("write");
            let _ = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        self.journal_mode == "WAL"
    }
    fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        Self::leftovers_in(&self.source, &mut found);
        Self::leftovers_in(&self.dest, &mut found);
        found
    }
    fn swap(&mut self) {
        std::mem::swap(&mut self.source, &mut self.dest);
    }
}

mod wal {
    crate::conformance_suite!(super::Files::new("WAL"));
}

mod rollback {
    crate::conformance_suite!(super::Files::new("DELETE"));
}
