//! A source, a destination, and the log between them.

use super::super::{Applier, helpers};
use crate::{
    Error,
    postgres::{
        log::LogReader,
        payload::LogPayload,
        position::{Lsn, Point},
        testing::Cluster,
    },
};
use handover::Epoch;
use std::time::Duration;

pub(super) struct Pair {
    pub(super) source: Cluster,
    pub(super) dest: Cluster,
    pub(super) reader: LogReader,
    pub(super) applier: Applier,
    pub(super) at: Point,
    pub(super) max: usize,
    epoch: u64,
}

/// Old rows come whole where there is no key, as the source engine sees to it.
const FULL: &str = "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT c.oid FROM pg_class c WHERE relkind IN ('r', 'p') \
    AND relnamespace = 'public'::regnamespace AND relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index i \
    WHERE i.indrelid = c.oid AND indisprimary AND indimmediate) LOOP \
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t); END LOOP; END $$";

impl Pair {
    /// Both sides with the same tables and rows.
    pub(super) async fn new(schema: &str, binary: bool) -> Self {
        let (source, dest) = (Cluster::start(""), Cluster::start(""));
        source.run("postgres", schema).await;
        dest.run("postgres", schema).await;
        source.run("postgres", FULL).await;
        source.run("postgres", "CREATE PUBLICATION pub FOR ALL TABLES").await;
        let slot = "SELECT lsn FROM pg_create_logical_replication_slot('slot', 'pgoutput')";
        let from: Lsn = source.value("postgres", slot).await.parse().expect("an LSN");
        let reader = LogReader::start(&source.config(), "postgres", "slot", "pub", from, binary).await;
        let reader = reader.expect("the log is there");
        helpers::create(&dest.sql("postgres").await).await.expect("helpers");
        let at = Point::at(from);
        let applier = Applier::open(&dest.config(), "postgres", Epoch(1), at).await.expect("it opens");
        Self { source, dest, reader, applier, at, max: 64 << 10, epoch: 1 }
    }

    /// Another applier for the same replica, of the next epoch, which goes on where the log has to go on.
    pub(super) async fn reopen(&mut self) -> Result<(), Error> {
        self.epoch += 1;
        self.applier = Applier::open(&self.dest.config(), "postgres", Epoch(self.epoch), Point::default()).await?;
        self.at = self.applier.resume_point();
        Ok(())
    }

    pub(super) async fn run(&self, statements: &str) {
        self.source.run("postgres", statements).await;
    }

    pub(super) async fn now(&self) -> Point {
        let now = self.source.value("postgres", "SELECT pg_current_wal_insert_lsn()").await;
        Point::at(now.parse().expect("an LSN"))
    }

    /// Applies everything that was committed so far.
    pub(super) async fn catch_up(&mut self) -> Result<(), Error> {
        let until = self.now().await;
        self.feed(until).await?;
        let flushed = tokio::time::timeout(Duration::from_secs(60), self.applier.flush()).await.expect("in time")?;
        assert_eq!(flushed, until);
        Ok(())
    }

    /// Queues the log up to a point.
    pub(super) async fn feed(&mut self, until: Point) -> Result<(), Error> {
        while self.at < until {
            let batch =
                tokio::time::timeout(Duration::from_secs(60), self.reader.batch(self.at, self.max, Some(until)));
            let batch = batch.await.expect("in time")?;
            assert_eq!(batch.from, self.at);
            let LogPayload::Changes(changes) = LogPayload::read(batch.payload).expect("changes") else { panic!() };
            self.applier.apply(batch.from, batch.to, changes).await?;
            self.at = batch.to;
        }
        Ok(())
    }

    /// All tables hold the same rows on both sides, duplicates included.
    pub(super) async fn assert_same(&self) {
        let tables = "SELECT c.oid::regclass FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace \
                      ORDER BY 1";
        for table in self.source.column("postgres", tables).await {
            let query = format!(
                "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")), '') \
                 FROM ONLY {table} t"
            );
            let (here, there) =
                (self.source.value("postgres", &query).await, self.dest.value("postgres", &query).await);
            if here != there {
                let rows = format!("SELECT left(t::text, 200) FROM ONLY {table} t ORDER BY 1 LIMIT 20");
                let (here_rows, there_rows) =
                    (self.source.column("postgres", &rows).await, self.dest.column("postgres", &rows).await);
                panic!("{table}: {here} at the source, {there} at the destination\n{here_rows:#?}\n{there_rows:#?}");
            }
        }
    }
}
