//! An application at work: writer processes that keep a ledger, and the check of a database against it.

use crate::{binaries, cluster::Cluster, wait::PATIENCE};
use ledger::{CheckOptions, Process, Program, Report, Summary, WriteOptions, check};
use std::path::{Path, PathBuf};

/// What an application will do.
#[derive(Debug, Clone)]
pub struct Plan {
    options: WriteOptions,
}

/// Writers at work in processes of their own. Dropped, they are killed.
#[derive(Debug)]
pub struct Application {
    process: Process,
    history: PathBuf,
}

impl Cluster {
    /// An application at west's database of this name: two writer processes, 500 transactions a second together; it
    /// finds the database at east when it moves there.
    pub fn application(&self, database: &str) -> Plan {
        let history = self.dir().join(format!("{database}.history"));
        let mut options = WriteOptions::new(self.database("west", database), history);
        options.follow = vec![self.database("east", database)];
        (options.writers, options.processes, options.rate, options.duration) = (2, true, 500.0, 0.0);
        // A database that exists keeps its mode.
        options.journal_mode = String::new();
        Plan { options }
    }

    /// Holds a database against the history of its application; panics unless everything is right.
    #[track_caller]
    pub fn assert_sound(&self, database: &Path, history: &Path) -> Report {
        assert_sound(&CheckOptions::new(database, history))
    }
}

/// Panics unless the check finds everything right.
#[track_caller]
pub fn assert_sound(options: &CheckOptions) -> Report {
    let report = check(options).unwrap_or_else(|e| panic!("check {}: {e:?}", options.db.display()));
    assert!(report.is_ok(), "{}:\n{report}", options.db.display());
    assert!(report.acknowledged > 0, "nothing was acknowledged, so nothing was tested");
    report
}

impl Plan {
    /// Changes any option.
    pub fn with(mut self, change: impl FnOnce(&mut WriteOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// It does what makes a log hard to follow: transactions that overlap, savepoints, rollbacks, large values, TRUNCATE.
    pub fn interleaved(self) -> Self {
        self.with(|options| {
            (options.writers, options.rate, options.churn) = (8, 400.0, 2000);
            (options.savepoint_every, options.linger_every, options.rollback_every) = (3, 5, 31);
            (options.truncate_every, options.reopen_every, options.big_every) = (211, 97, 151);
        })
    }

    /// It makes a new database in WAL mode.
    pub fn new_database(self) -> Self {
        self.with(|options| options.journal_mode = "WAL".to_owned())
    }

    /// It stays where it is, whatever happens: for copies.
    pub fn staying(self) -> Self {
        self.with(|options| options.follow.clear())
    }

    /// It checkpoints, reopens, spills, rolls back, and rewrites the file with VACUUM.
    pub fn restless(self) -> Self {
        self.with(|options| {
            (options.truncate_every, options.reopen_every, options.vacuum_every) = (150, 97, 700);
            (options.big_every, options.rollback_every, options.churn) = (301, 331, 2000);
        })
    }

    /// Starts it and waits until it has written something.
    pub fn start(self) -> Application {
        let program = Program::at(binaries::path("causeway-ledger"));
        let history = self.options.history.clone();
        let mut process = Process::spawn(&program, &self.options).expect("start the application");
        process.wait_for_commits(20, PATIENCE).unwrap_or_else(|e| panic!("the application does not write: {e}"));
        Application { process, history }
    }
}

impl Application {
    /// Where its history lies.
    pub fn history(&self) -> &Path {
        &self.history
    }

    /// Waits until so many more transactions were acknowledged, wherever.
    #[track_caller]
    pub fn until_more_commits(&mut self, count: u64) {
        self.process.wait_for_more_commits(count, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Waits until so many transactions were acknowledged at this place.
    #[track_caller]
    pub fn until_commits_at(&mut self, place: &Path, count: u64) {
        self.process.wait_for_commits_at(place, count, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Waits until a fence refused it.
    #[track_caller]
    pub fn until_fenced(&mut self) {
        self.process.wait_for_fence(1, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Signals its process; with writers in processes of their own, those too.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let group = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        let group = group.expect("a process id");
        rustix::process::kill_process_group(group, signal).expect("signal a child that was not reaped");
    }

    /// Ends it; what it says of its run.
    #[track_caller]
    pub fn finish(self) -> Summary {
        let summary = self.process.stop().unwrap_or_else(|e| panic!("stop the application: {e}"));
        assert_eq!(summary.losses_noticed, 0, "the application found transactions missing: {summary:?}");
        assert_eq!(summary.torn, 0, "a reader saw a state that never was: {summary:?}");
        summary
    }
}
