//! An instance with one database, its source engine, and the simplest destination there can be.

use crate::{
    host::RealHost,
    source::{Held, HeldPart, LogBatch, Plan, SourceEngine, SourceStream},
    sqlite::{
        SqliteConfig,
        header::lock_page,
        source::SqliteSource,
        wire::{Body, ChunkPayload, Digest, Log, SeedHeader},
    },
};
use handover::{
    Attempt, CommandVersion, DatabaseName, Kind, OperationId, Position, Token,
    source_role::{Phase, SourceRole},
};
use rusqlite::Connection;
use std::{os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Duration};

pub const GRACE: Duration = Duration::from_secs(5);

/// An instance with one database.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub config: SqliteConfig,
    pub source: SqliteSource,
    pub name: DatabaseName,
}

impl Rig {
    /// A database made by `setup`, with the tables of the applications in it.
    pub async fn new(setup: &str) -> Self {
        Self::with(setup, |_| {}).await
    }

    pub async fn with(setup: &str, configure: impl FnOnce(&mut SqliteConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Connection::open(dir.path().join("shop.db")).expect("open");
        db.execute_batch(setup).expect("set up");
        db.execute_batch(
            "CREATE TABLE ledger(id INTEGER PRIMARY KEY AUTOINCREMENT, who, body);
             CREATE TABLE junk(id INTEGER PRIMARY KEY, body); CREATE INDEX j ON junk(body);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000)
             INSERT INTO junk SELECT i, randomblob(abs(random()) % 900) FROM n",
        )
        .expect("filled");
        db.close().expect("closed");
        let mut config = SqliteConfig::new(dir.path());
        config.takeover_after = Duration::from_millis(200);
        // No finding may hang on how much of this machine's disk is free; a writer without a pause makes 3 GB of log.
        (config.log_budget_bytes, config.free_share_percent) = (4 << 30, 90);
        configure(&mut config);
        let source = SqliteSource::new(config.clone(), Arc::new(RealHost));
        source.take_over().await.expect("the lock");
        Self { dir, config, source, name: DatabaseName::parse("shop.db").expect("a name") }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("shop.db")
    }

    /// A connection as an application in this process would have.
    pub fn connect(&self) -> Connection {
        let db = Connection::open(self.path()).expect("open");
        db.busy_timeout(Duration::from_secs(10)).expect("timeout");
        db
    }

    pub async fn role(&self, kind: Kind) -> SourceRole {
        let facts = self.source.preflight(&self.name, kind, None).await.expect("examined");
        SourceRole {
            operation: OperationId::parse("op-1").expect("an id"),
            kind,
            database: self.name.clone(),
            token: Token::parse("0123456789abcdef0123456789abcdef").expect("a token"),
            dest_address: "127.0.0.1:1".to_owned(),
            dest_identity: String::new(),
            log_budget_bytes: 0,
            incarnation: facts.incarnation,
            version: CommandVersion(1),
            floor: Attempt(0),
            phase: Phase::Replicating,
        }
    }

    pub async fn begin(&self, kind: Kind) -> (SourceRole, Arc<dyn SourceStream>) {
        let role = self.role(kind).await;
        self.source.begin(&role).await.expect("begun");
        let stream = self.source.open(&role).await.expect("open");
        (role, stream)
    }

    /// Another agent takes over from this one, which lets go of everything first.
    pub async fn restart(&mut self, role: &SourceRole) -> Arc<dyn SourceStream> {
        self.stop(role).await;
        self.start(role).await
    }

    pub async fn stop(&mut self, role: &SourceRole) {
        self.source.end_stream(&role.operation).await.expect("closed");
        // Whoever comes next takes the lock at once from a holder that is gone.
        let elsewhere = SqliteConfig::new(std::env::temp_dir().join("causeway-no-instance"));
        self.source = SqliteSource::new(elsewhere, Arc::new(RealHost));
    }

    pub async fn start(&mut self, role: &SourceRole) -> Arc<dyn SourceStream> {
        self.source = SqliteSource::new(self.config.clone(), Arc::new(RealHost));
        self.source.take_over().await.expect("the lock");
        self.source.open(role).await.expect("open")
    }

    pub async fn fence(&self, role: &SourceRole, attempt: u32) -> crate::Result<(SourceRole, Position)> {
        let mut role =
            SourceRole { phase: Phase::Fencing { attempt: Attempt(attempt), saved: String::new() }, ..role.clone() };
        self.source.put_role(&role).await?;
        let position = self.source.fence(&mut role, GRACE).await?;
        let Phase::Fencing { attempt, saved } = role.phase.clone() else { panic!("{:?}", role.phase) };
        role.phase = Phase::Fenced { attempt, saved, position: position.clone() };
        self.source.put_role(&role).await?;
        Ok((role, position))
    }

    /// What lies in the instance's directory.
    pub fn files(&self) -> Vec<String> {
        let list = crate::sqlite::disk::list(self.dir.path()).expect("listed");
        list.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect()
    }
}

/// Replays chunks and frames as they come.
pub struct Replica {
    dir: tempfile::TempDir,
    file: std::fs::File,
    pub header: Option<SeedHeader>,
    pub held: Held,
    pub seed_bytes: u64,
    pub payload_bytes: u64,
    pub transactions: u64,
    pub last_commit: u32,
}

impl Replica {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("replica.db");
        let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("created");
        Self {
            dir,
            file,
            header: None,
            held: Held::default(),
            seed_bytes: 0,
            payload_bytes: 0,
            transactions: 0,
            last_commit: 0,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("replica.db")
    }

    /// Agrees on a plan and takes what is missing of the seed.
    pub async fn connect(&mut self, stream: &dyn SourceStream) -> Plan {
        let plan = stream.plan(&self.held).await.expect("planned");
        assert_eq!(stream.plan(&self.held).await.expect("planned"), plan, "a plan must not change by itself");
        let header = SeedHeader::decode(&plan.header).expect("a header");
        if plan.generation != self.held.generation {
            if !plan.verify {
                self.file.set_len(0).expect("emptied");
            }
            self.held = Held { generation: plan.generation, ..Held::default() };
        }
        self.held.log = Some(plan.log_resume.clone());
        self.header = Some(header);
        plan
    }

    pub async fn seed(&mut self, stream: &dyn SourceStream) -> Plan {
        let plan = self.connect(stream).await;
        if !self.held.seeded {
            for part in &plan.parts {
                self.part(stream, &plan, part.part, u64::MAX).await;
            }
            stream.seed_done().await.expect("trusted");
            self.held.seeded = true;
        }
        plan
    }

    /// Takes a part, or its first `upto` bytes.
    pub async fn part(&mut self, stream: &dyn SourceStream, plan: &Plan, part: u32, upto: u64) {
        let header = self.header.expect("planned");
        let mut offset = self.held.parts.iter().find(|p| p.part == part).map_or(0, |p| p.durable);
        let mut done = self.held.parts.iter().any(|p| p.part == part && p.done);
        while !done && offset < upto {
            let at = u64::from(part) * header.part_bytes + offset;
            let digest = plan.verify.then(|| {
                let mut bytes = vec![0; 1 << 20];
                let len = self.file.read_at(&mut bytes, at).expect("read");
                Digest::of(&bytes[..len], header.page_size).encode()
            });
            let chunk = stream.chunk(part, offset, 1 << 20, digest).await.expect("a chunk");
            assert!(
                chunk.payload.len() <= (1 << 20) + 64 + (1 << 20) / 128,
                "a chunk of {} bytes",
                chunk.payload.len()
            );
            self.payload_bytes += chunk.payload.len() as u64;
            let payload = ChunkPayload::decode(&chunk.payload, header.page_size).expect("decoded");
            match payload.body {
                Body::Full(bytes) => {
                    self.seed_bytes += bytes.len() as u64;
                    self.file.write_all_at(&bytes, at).expect("written");
                }
                Body::Sparse { pages, .. } => {
                    for (index, page) in pages {
                        let at = at + u64::from(index) * u64::from(header.page_size);
                        self.file.write_all_at(&page, at).expect("written");
                    }
                }
            }
            if let Some(bytes) = payload.file_bytes {
                self.file.set_len(bytes).expect("cut");
            }
            (offset, done) = (chunk.next_offset, chunk.last);
        }
        self.held.parts.retain(|p| p.part != part);
        self.held.parts.push(HeldPart { part, durable: offset, done });
    }

    /// Takes log up to a position.
    pub async fn catch_up(&mut self, stream: &dyn SourceStream, until: &Position) {
        while self.held.log.as_ref() != Some(until) {
            self.log(stream, Some(until)).await.expect("log");
        }
    }

    /// Takes one piece of log.
    pub async fn log(&mut self, stream: &dyn SourceStream, until: Option<&Position>) -> crate::Result<LogBatch> {
        let after = self.held.log.clone().expect("a plan");
        let log = stream.log(&after, 1 << 20, until);
        let batch = tokio::time::timeout(Duration::from_secs(20), log).await.expect("log in time")?;
        assert_eq!(batch.from, after);
        let size = u64::from(self.header.expect("planned").page_size);
        let mut commits = 0;
        for frame in Log::decode(&batch.payload).expect("decoded").frames() {
            assert_ne!(frame.pgno, lock_page(size as u32), "the lock page has no place in a log");
            self.file.write_all_at(frame.page, u64::from(frame.pgno - 1) * size).expect("written");
            self.last_commit = frame.commit;
            if frame.commit != 0 {
                commits += 1;
                self.file.set_len(u64::from(frame.commit) * size).expect("sized");
            }
        }
        assert_eq!(commits, batch.transactions);
        self.transactions += commits;
        self.held.log = Some(batch.to.clone());
        Ok(batch)
    }

    /// Compares with the source, which nobody writes now, page by page; what differs by design is left out: the fence, and
    /// the change counters of its transaction.
    pub fn assert_same(&self, source: &std::path::Path) {
        let db = Connection::open(source).expect("open");
        let mut statement = db.prepare("SELECT pgno, data FROM sqlite_dbpage").expect("prepared");
        let mut rows = statement.query([]).expect("read");
        let size = self.header.expect("planned").page_size;
        let mut count = 0;
        while let Some(row) = rows.next().expect("read") {
            let (number, mut theirs): (u32, Vec<u8>) = (row.get(0).expect("pgno"), row.get(1).expect("data"));
            count = number;
            if number == lock_page(size) {
                continue;
            }
            let mut ours = vec![0; size as usize];
            self.file.read_exact_at(&mut ours, u64::from(number - 1) * u64::from(size)).expect("a page");
            if number == 1 {
                assert_ne!(ours[18], 3, "the fence has travelled");
                for range in [18..20, 24..28, 92..100] {
                    ours[range.clone()].fill(0);
                    theirs[range].fill(0);
                }
            }
            assert!(ours == theirs, "page {number} differs");
        }
        assert_eq!(self.file.metadata().expect("length").len(), u64::from(count) * u64::from(size));
    }

    /// Opens the replica as a client would after the flip: it is whole and takes writes. Answers the ids in the ledger.
    pub fn ledger(&self) -> Vec<i64> {
        let copy = self.dir.path().join("opened.db");
        std::fs::copy(self.path(), &copy).expect("copied");
        let db = Connection::open(&copy).expect("open");
        let check: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0)).expect("checked");
        assert_eq!(check, "ok");
        let ids = db
            .prepare("SELECT id FROM ledger ORDER BY id")
            .expect("prepared")
            .query_map([], |r| r.get(0))
            .expect("read")
            .collect::<rusqlite::Result<Vec<i64>>>()
            .expect("read");
        db.execute_batch("INSERT INTO ledger(who) VALUES(0)").expect("the destination takes writes");
        ids
    }
}

/// Every acknowledged transaction is there, and at most one of each application that was not.
pub fn assert_nothing_lost(found: &[i64], acknowledged: &[Vec<i64>]) {
    let found: std::collections::BTreeSet<_> = found.iter().collect();
    let told: std::collections::BTreeSet<_> = acknowledged.iter().flatten().collect();
    let lost: Vec<_> = told.difference(&found).collect();
    assert!(lost.is_empty(), "lost {} of {}: {:?}", lost.len(), told.len(), &lost[..lost.len().min(10)]);
    let invented = found.difference(&told).count();
    assert!(invented <= acknowledged.len(), "{invented} transactions that nobody was told of");
}
