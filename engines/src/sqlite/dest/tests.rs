//! The destination half on its own, fed from a real database and its real WAL.

mod faults;
mod feed;
mod flip;
mod instance;
mod speed;
mod transfer;

use super::*;
use feed::Feed;
use handover::{Attempt, Kind, Position, Token};
use std::{path::PathBuf, time::Duration};

/// One destination instance with a database on its way.
struct Rig {
    _tmp: tempfile::TempDir,
    dir: PathBuf,
    dest: SqliteDest,
    role: DestRole,
    feed: Feed,
}

fn engine(dir: &std::path::Path) -> SqliteDest {
    let config = SqliteConfig { takeover_after: Duration::from_millis(50), ..SqliteConfig::new(dir) };
    SqliteDest::new(config, Arc::new(crate::host::RealHost))
}

fn role(operation: &str, phase: Phase) -> DestRole {
    DestRole {
        operation: OperationId::parse(operation).expect("an id"),
        kind: Kind::Move,
        database: DatabaseName::parse("shop.db").expect("a name"),
        token: Token::parse("0123456789abcdef0123456789abcdef").expect("a token"),
        source_identity: String::new(),
        incarnation: None,
        source_epoch: Epoch(1),
        version: CommandVersion(1),
        floor: Attempt(0),
        hook: None,
        phase,
    }
}

impl Rig {
    /// The engine has the lock and has prepared; the source has some rows in its file and more in its WAL.
    async fn new() -> Self {
        let tmp = tempfile::tempdir().expect("a directory");
        let dir = tmp.path().join("east");
        std::fs::create_dir(&dir).expect("made");
        let feed = Feed::new(&tmp.path().join("west.db"), 4096);
        let dest = engine(&dir);
        dest.take_over().await.expect("taken");
        let role = role("op-1", Phase::Seeding);
        dest.prepare(&role).await.expect("prepared");
        Self { _tmp: tmp, dir, dest, role, feed }
    }

    /// The agent dies and another one begins. Whoever holds a replica must drop it before, or it dies uncleanly.
    async fn restart(&mut self) {
        self.dest = engine(&self.dir);
        self.dest.take_over().await.expect("taken");
    }

    async fn open(&self) -> Arc<dyn DestReplica> {
        self.dest.open(&self.role).await.expect("opened")
    }

    /// A replica that stands at the end of the source's log, and where that is.
    async fn prepared(&self) -> (Arc<dyn DestReplica>, Position) {
        let replica = self.open().await;
        replica.plan(&self.feed.plan(1, false)).await.expect("planned");
        self.feed.seed(&replica).await;
        replica.seed_done().await.expect("whole");
        let end = self.feed.log_to(&replica, 0, 7).await;
        replica.prepare_marker(&end).await.expect("prepared");
        (replica, end)
    }

    fn primary(&self) -> DestRole {
        DestRole { phase: Phase::Primary { attempt: Attempt(1) }, ..self.role.clone() }
    }

    /// The one record there is.
    async fn recorded(&self) -> DestRole {
        let mut roles = self.dest.roles().await.expect("read");
        assert_eq!(roles.len(), 1);
        roles.remove(0)
    }

    fn target(&self) -> PathBuf {
        self.dir.join("shop.db")
    }

    fn staging(&self) -> PathBuf {
        let epoch = self.dest.inner.store.epoch().expect("held");
        self.dir.join(format!(".causeway/dest/staging/op-1.{epoch}"))
    }

    /// The promoted database has what the source has, is sound, and takes writes.
    fn assert_serves(&self) {
        assert_eq!(feed::rows(&self.target()), self.feed.rows());
        let db = rusqlite::Connection::open(self.target()).expect("open");
        let sound: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0)).expect("checked");
        assert_eq!(sound, "ok");
        db.execute("INSERT INTO t VALUES(-1, 'written at the destination')", []).expect("it takes writes");
        db.execute("DELETE FROM t WHERE id = -1", []).expect("it takes writes");
        db.close().expect("closed");
    }

    /// What is left below `.causeway` besides lock, heartbeat, watermark and records.
    fn left(&self) -> Vec<PathBuf> {
        let mut left = crate::sqlite::disk::list(&self.dir.join(".causeway/dest")).expect("listed");
        left.retain(|p| p.file_name().and_then(|n| n.to_str()).is_none_or(|n| n.parse::<u64>().is_err()));
        left
    }
}

fn is_gap<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Gap { .. }))
}

fn is_corrupt<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Corrupt(_)))
}

fn is_superseded<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Superseded { .. }))
}
