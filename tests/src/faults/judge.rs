//! What has to hold at the end of every cell.

use super::{Engine, What, cell::Stage, user::Seen};
use crate::{
    application::{self, Application},
    operation::story,
    v1::{DescribeRequest, State},
    wait::{self, PATIENCE},
};
use ledger::CheckOptions;
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

/// Transactions that have to be acknowledged where the database is, once all is over.
const AFTER: u64 = 20;

/// How long anything of an operation that has ended may still lie around.
const LEFT_FOR: Duration = Duration::from_secs(20);

impl Stage {
    /// Panics unless everything is right: the operation ended as it should, the application writes where it should, every
    /// acknowledged transaction is found and none is invented, nobody wrote at both sides, and nothing is left over.
    #[track_caller]
    pub fn judge(&self, what: What, seen: &Seen, mut application: Application) {
        let wanted = if what == What::Cancel { State::Cancelled } else { State::Succeeded };
        assert_eq!(seen.operation.state(), wanted, "{}", story(&seen.operation));

        let (west, east) = (self.place("west"), self.place("east"));
        let moved = matches!(what, What::Move | What::Retry);
        match moved {
            true => application.until_commits_at(&east, AFTER),
            false => application.until_more_commits(AFTER),
        }
        let history = application.history().to_owned();
        let summary = application.finish();
        for moved in &summary.moves {
            assert!(moved.freeze_ms > 0.0, "acknowledged at two places at once: {moved:?}");
        }
        application::assert_sound(&CheckOptions::new(if moved { &east } else { &west }, &history));
        if what == What::Copy {
            application::assert_sound(&CheckOptions::new(&east, &history).acknowledged_before(seen.completed_us));
        }
        self.judge_places(!moved, what != What::Cancel);
        self.judge_records();
    }

    /// The place of the database at an instance.
    pub fn place(&self, instance: &str) -> std::path::PathBuf {
        self.cluster.database(instance, self.database())
    }

    /// The database is open where it should be, and gone where it should be; nothing else is there.
    #[track_caller]
    pub fn judge_places(&self, at_west: bool, at_east: bool) {
        self.judge_place("west", at_west);
        self.judge_place("east", at_east);
    }

    /// The same for one instance.
    #[track_caller]
    pub fn judge_place(&self, instance: &str, open: bool) {
        match self.engine {
            Engine::Sqlite => self.judge_directory(instance, open),
            Engine::Postgres => self.judge_server(instance, open),
        }
    }

    #[track_caller]
    fn judge_directory(&self, instance: &str, open: bool) {
        let (place, database) = (self.cluster.place(instance), self.database());
        // A move leaves a tombstone at the source.
        let there = open || instance == "west";
        let expected: BTreeSet<String> = there.then(|| database.to_owned()).into_iter().collect();
        let (mut found, began) = (place.traces(), Instant::now());
        while found != expected && began.elapsed() < LEFT_FOR {
            thread::sleep(Duration::from_millis(50));
            found = place.traces();
        }
        assert_eq!(found, expected, "what there is at {instance}");
        assert_eq!(place.is_writable(database), open, "whether {instance} takes writes");
        assert_eq!(place.is_tombstone(database), there && !open, "whether there is a tombstone at {instance}");
    }

    #[track_caller]
    fn judge_server(&self, instance: &str, open: bool) {
        let server = self.cluster.postgres(instance);
        let expected: Vec<String> = open.then(|| self.database().to_owned()).into_iter().collect();
        server.until_clean();
        assert_eq!(server.databases(), expected, "the databases of {instance}");
        assert!(!open || server.is_writable(self.database()), "{instance} takes no writes");
    }

    /// Neither agent remembers anything.
    #[track_caller]
    pub fn judge_records(&self) {
        let (mut source, mut dest) = (self.cluster.source_agent("west"), self.cluster.dest_agent("east"));
        wait::until("agents without records", PATIENCE, || {
            let source = self.cluster.call(source.describe(DescribeRequest {})).ok()?;
            let dest = self.cluster.call(dest.describe(DescribeRequest {})).ok()?;
            (source.operations.is_empty() && dest.operations.is_empty()).then_some(())
        });
    }
}
