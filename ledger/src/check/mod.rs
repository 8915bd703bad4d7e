//! Holds a database against the histories of its writers.
//!
//! For every writer: each acknowledged transaction is there (none lost), each one there was attempted (none invented),
//! they are 1..N without a hole and with the right content, at most the last is of unknown outcome, the chain row is
//! the hash over exactly these in this order. Over all: every list is in the order in which the writers saw themselves
//! appended, and holds the same transactions as the ledger; balances are what the ledger says and sum to 0; the
//! engine's own check of the file passes. A copy may end earlier, but then everywhere at the same moment.

mod contents;
mod expected;
mod report;

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;

pub use self::report::Report;
use crate::{
    driver::{self, View},
    history::{History, now_us},
    postgres::{self, PostgresView},
    sqlite::{SqliteView, pages},
};

/// Why a check could not be made; what it finds is no error but in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A history could not be read.
    #[error("read the history {path}")]
    History {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A database could not be opened.
    #[error("open {place} for reading")]
    Open {
        /// Which, without a password.
        place: String,
        /// Why.
        #[source]
        cause: driver::Error,
    },
}

/// What to compare with what. The field docs are the help text of the command.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckOptions {
    /// The database to check, a SQLite file or a PostgreSQL connection string; only read, and nothing is created beside it
    #[arg(long, visible_alias = "postgres", value_name = "FILE|DSN")]
    pub db: PathBuf,
    /// The histories of its writers; a later one continues an earlier one
    #[arg(long, required = true, num_args = 1..)]
    pub history: Vec<PathBuf>,
    /// Another database with which every table must agree
    #[arg(long, value_name = "FILE|DSN")]
    pub same_as: Option<PathBuf>,
    /// Another SQLite database with which every page must agree
    #[arg(long)]
    pub pages: Option<PathBuf>,
    /// The database is a copy that ended at some moment: the newest transactions may be missing, all after one moment
    #[arg(long)]
    pub prefix: bool,
    /// With --prefix: what was acknowledged before this time, in microseconds since the epoch, must be there
    #[arg(long, value_name = "T_US", requires = "prefix")]
    pub acknowledged_before: Option<u64>,
    /// Compute the content hash even without --same-as
    #[arg(long)]
    pub content_hash: bool,
    /// Leave out the engine's own check of the file
    #[arg(long)]
    pub no_integrity: bool,
}

impl CheckOptions {
    /// A full check of one database against one history.
    pub fn new(db: impl Into<PathBuf>, history: impl Into<PathBuf>) -> Self {
        Self { db: db.into(), history: vec![history.into()], ..Self::default() }
    }

    /// Every table must also agree with that of another database.
    #[must_use]
    pub fn same_as(mut self, other: impl Into<PathBuf>) -> Self {
        self.same_as = Some(other.into());
        self
    }

    /// Every page must also agree with that of another database.
    #[must_use]
    pub fn pages_of(mut self, other: impl Into<PathBuf>) -> Self {
        self.pages = Some(other.into());
        self
    }

    /// The database is a copy that ended at some moment.
    #[must_use]
    pub fn prefix(mut self) -> Self {
        self.prefix = true;
        self
    }

    /// The database is a copy that ended after everything acknowledged before this time.
    #[must_use]
    pub fn acknowledged_before(mut self, at_us: u64) -> Self {
        (self.prefix, self.acknowledged_before) = (true, Some(at_us));
        self
    }

    /// The histories of further writers, for instance of those that write at a copy only.
    #[must_use]
    pub fn and_history(mut self, history: impl Into<PathBuf>) -> Self {
        self.history.push(history.into());
        self
    }

    /// Compute the content hash too.
    #[must_use]
    pub fn with_content_hash(mut self) -> Self {
        self.content_hash = true;
        self
    }
}

/// Checks a database. Writers may be at work: what is acknowledged after the check began is left out.
pub fn check(options: &CheckOptions) -> Result<Report, Error> {
    let due_us = now_us();
    let view = open(&options.db)?;
    let other = options.same_as.as_deref().map(open).transpose()?;
    let mut report = check_view(&*view, other.as_deref(), options, due_us)?;
    if let Some(other) = &options.pages {
        let found = pages::compare(&options.db, other).map_err(unopened(other))?;
        report.pages_compared = Some(found.pages);
        found.differences.into_iter().for_each(|difference| report.add("differs", difference));
    }
    Ok(report)
}

/// Opens a view of a database of either kind.
pub fn open(place: &Path) -> Result<Box<dyn View>, Error> {
    let opened = match postgres::is_place(place) {
        true => PostgresView::open(&place.to_string_lossy()).map(|view| Box::new(view) as Box<dyn View>),
        false => SqliteView::open(place).map(|view| Box::new(view) as Box<dyn View>),
    };
    opened.map_err(unopened(place))
}

fn unopened(place: &Path) -> impl Fn(driver::Error) -> Error {
    let text = place.to_string_lossy();
    let place = if postgres::is_place(place) { postgres::name(&text) } else { text.into_owned() };
    move |cause| Error::Open { place: place.clone(), cause }
}

/// Checks a view of any engine's database, taken at `due_us` or later; of the options the paths of databases are left
/// out. What was acknowledged after `due_us` need not be there.
pub fn check_view(
    view: &dyn View,
    other: Option<&dyn View>,
    options: &CheckOptions,
    due_us: u64,
) -> Result<Report, Error> {
    // The history after the snapshot: so it has the attempt of everything the snapshot has.
    let mut history = History::default();
    for path in &options.history {
        history.read_file(path).map_err(|cause| Error::History { path: path.clone(), cause })?;
    }
    let mut report = Report::default();
    check_ledger(view, &history, options, due_us, &mut report);
    if !options.no_integrity {
        match view.integrity() {
            Ok(found) => {
                if found != "ok" {
                    report.add("corrupt", format!("integrity check: {found}"));
                }
                report.integrity = Some(found);
            }
            Err(error) => report.unreadable(&error),
        }
    }
    if options.content_hash || other.is_some() {
        contents::compare(view, other, &mut report);
    }
    Ok(report)
}

fn check_ledger(view: &dyn View, history: &History, options: &CheckOptions, due_us: u64, report: &mut Report) {
    report.attempted(history, due_us);
    let mut ledger = expected::Ledger::new(history, options, due_us);
    let read = view
        .ledger(&mut |row| ledger.row(row, report))
        .and_then(|()| view.items(&mut |item| ledger.item(item, report)));
    let rest = read.and_then(|()| Ok((view.chains()?, view.balances()?)));
    match rest {
        Ok((chains, balances)) => {
            ledger.completeness(report);
            ledger.chains(&chains, report);
            ledger.balances(&balances, report);
        }
        Err(error) => report.unreadable(&error),
    }
}
