//! What the tests of the ledger share: a directory with a writer to run in it.

// Every test binary uses its own part of this.
#![allow(dead_code)]

use std::{path::PathBuf, time::Duration};

use causeway_ledger::{CheckOptions, Process, Program, Report, Summary, WriteOptions, check};
use rusqlite::Connection;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory can be made") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An unhurried writer that ends only when told to.
    pub fn options(&self) -> WriteOptions {
        WriteOptions { duration: 0.0, rate: 1000.0, ..WriteOptions::new(self.path("app.db"), self.path("app.hist")) }
    }

    pub fn spawn(&self, options: &WriteOptions) -> Process {
        let program = Program::at(env!("CARGO_BIN_EXE_causeway-ledger"));
        Process::spawn(&program, options).expect("the writer starts")
    }

    /// Runs a writer until so many transactions were acknowledged.
    pub fn run(&self, options: &WriteOptions, commits: u64) -> Summary {
        let mut writer = self.spawn(options);
        writer.wait_for_commits(commits, PATIENCE).expect("the writer commits");
        writer.stop().expect("the writer stops")
    }

    pub fn check(&self) -> Report {
        self.check_with(self.check_options())
    }

    pub fn check_options(&self) -> CheckOptions {
        CheckOptions::new(self.path("app.db"), self.path("app.hist"))
    }

    pub fn check_with(&self, options: CheckOptions) -> Report {
        check(&options).expect("the check can be made")
    }

    /// Does something to the database behind the writers' backs.
    pub fn tamper(&self, sql: &str) {
        let conn = Connection::open(self.path("app.db")).expect("the database opens");
        conn.execute_batch(sql).expect("the tampering works");
    }

    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).expect("the directory can be read");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

pub fn assert_ok(report: &Report) {
    assert!(report.is_ok(), "{report}");
}
