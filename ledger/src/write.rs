//! A run of the application: writers and readers over one database, each with its own connection and thread.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    driver::{self, Driver},
    history::{Appender, History},
    reader::Reader,
    sqlite::Places,
    summary::Summary,
    writer::Writer,
};

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be prepared, or the history not be written.
    #[error(transparent)]
    Driver(#[from] driver::Error),
    /// The history of earlier runs could not be read.
    #[error("open the history")]
    History(#[source] io::Error),
    /// A thread or process of the run could not be started.
    #[error("start a writer")]
    Start(#[source] io::Error),
    /// A process of the run ended without a summary.
    #[error("a writer process ended without its summary")]
    NoSummary,
}

/// How the application behaves. The field docs are the help text of the command.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct WriteOptions {
    /// The database file
    #[arg(long)]
    pub db: PathBuf,
    /// The history to append to
    #[arg(long)]
    pub history: PathBuf,
    /// Where the database may have moved to when it turns read-only; may be given several times
    #[arg(long)]
    pub follow: Vec<PathBuf>,
    /// How many writers
    #[arg(long, default_value_t = 1)]
    pub writers: u32,
    /// The number of the first writer
    #[arg(long, default_value_t = 0)]
    pub first_writer: u32,
    /// Run each writer in a process of its own, not in a thread
    #[arg(long)]
    pub processes: bool,
    /// How many readers that hold snapshots
    #[arg(long, default_value_t = 0)]
    pub readers: u32,
    /// How long a reader holds a snapshot, in milliseconds
    #[arg(long, default_value_t = 500)]
    pub reader_hold_ms: u64,
    /// Transactions a second over all writers; 0: as fast as it goes
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Seconds until it ends by itself; 0: only by SIGTERM or SIGINT
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// End each writer after so many commits; 0: no limit
    #[arg(long, default_value_t = 0)]
    pub transactions: u64,
    /// Bytes of a ledger row's note
    #[arg(long, default_value_t = 200)]
    pub payload: usize,
    /// Also insert scratch rows of up to so many bytes, and delete them now and then; 0: none
    #[arg(long, default_value_t = 0)]
    pub churn: u32,
    /// PRAGMA synchronous of every connection
    #[arg(long, default_value = "NORMAL")]
    pub synchronous: String,
    /// Journal mode set at the start; empty: leave it as it is
    #[arg(long, default_value = "WAL")]
    pub journal_mode: String,
    /// Page size, if the database is new; 0: SQLite's own
    #[arg(long, default_value_t = 0)]
    pub page_size: u32,
    /// NONE, FULL or INCREMENTAL, if the database is new; empty: SQLite's own
    #[arg(long, default_value = "")]
    pub auto_vacuum: String,
    /// A further NAME=VALUE set on every connection, for instance locking_mode=EXCLUSIVE; may be given several times
    #[arg(long)]
    pub pragma: Vec<String>,
    /// Checkpoint with TRUNCATE after every so many transactions of a writer; 0: never
    #[arg(long, default_value_t = 0)]
    pub truncate_every: u64,
    /// Close and open the connection after every so many
    #[arg(long, default_value_t = 0)]
    pub reopen_every: u64,
    /// VACUUM after every so many
    #[arg(long, default_value_t = 0)]
    pub vacuum_every: u64,
    /// Make every so manyth transaction so big that the page cache spills
    #[arg(long, default_value_t = 0)]
    pub big_every: u64,
    /// Roll every so manyth transaction back after it spilled
    #[arg(long, default_value_t = 0)]
    pub rollback_every: u64,
    /// How long a statement waits for a lock, in milliseconds
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
    /// Go on trying when the database is read-only (implied by --follow)
    #[arg(long)]
    pub keep_trying: bool,
    /// End a writer when it is refused as read-only, even with --follow
    #[arg(long)]
    pub exit_when_fenced: bool,
    /// Transactions that take longer count as stalls, in milliseconds
    #[arg(long, default_value_t = 50)]
    pub stall_ms: u64,
    /// Same seed, same sizes of scratch rows
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The database has its tables already; do not create anything
    #[arg(long)]
    pub no_setup: bool,
    /// End at once when the process that started this one ends
    #[arg(long, hide = true)]
    pub die_with_parent: bool,
}

impl WriteOptions {
    /// One writer as fast as it goes for ten seconds; change the fields for anything else.
    pub fn new(db: impl Into<PathBuf>, history: impl Into<PathBuf>) -> Self {
        Self {
            db: db.into(),
            history: history.into(),
            follow: Vec::new(),
            writers: 1,
            first_writer: 0,
            processes: false,
            readers: 0,
            reader_hold_ms: 500,
            rate: 0.0,
            duration: 10.0,
            transactions: 0,
            payload: 200,
            churn: 0,
            synchronous: "NORMAL".into(),
            journal_mode: "WAL".into(),
            page_size: 0,
            auto_vacuum: String::new(),
            pragma: Vec::new(),
            truncate_every: 0,
            reopen_every: 0,
            vacuum_every: 0,
            big_every: 0,
            rollback_every: 0,
            timeout_ms: 5000,
            keep_trying: false,
            exit_when_fenced: false,
            stall_ms: 50,
            seed: 1,
            no_setup: false,
            die_with_parent: false,
        }
    }

    /// The arguments of the `write` command that mean these options.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut value = |name: &str, value: OsString| {
            let mut arg = OsString::from(format!("--{name}="));
            arg.push(value);
            args.push(arg);
        };
        value("db", self.db.clone().into());
        value("history", self.history.clone().into());
        self.follow.iter().for_each(|path| value("follow", path.clone().into()));
        self.pragma.iter().for_each(|pragma| value("pragma", pragma.into()));
        for (name, number) in [
            ("writers", self.writers.into()),
            ("first-writer", self.first_writer.into()),
            ("readers", self.readers.into()),
            ("reader-hold-ms", self.reader_hold_ms),
            ("transactions", self.transactions),
            ("payload", self.payload as u64),
            ("churn", self.churn.into()),
            ("page-size", self.page_size.into()),
            ("truncate-every", self.truncate_every),
            ("reopen-every", self.reopen_every),
            ("vacuum-every", self.vacuum_every),
            ("big-every", self.big_every),
            ("rollback-every", self.rollback_every),
            ("timeout-ms", self.timeout_ms),
            ("stall-ms", self.stall_ms),
            ("seed", self.seed),
        ] {
            value(name, number.to_string().into());
        }
        value("rate", self.rate.to_string().into());
        value("duration", self.duration.to_string().into());
        value("synchronous", self.synchronous.clone().into());
        value("journal-mode", self.journal_mode.clone().into());
        value("auto-vacuum", self.auto_vacuum.clone().into());
        for (name, on) in [
            ("--processes", self.processes),
            ("--keep-trying", self.keep_trying),
            ("--exit-when-fenced", self.exit_when_fenced),
            ("--no-setup", self.no_setup),
            ("--die-with-parent", self.die_with_parent),
        ] {
            if on {
                args.push(name.into());
            }
        }
        args
    }

    /// Where the application looks for its SQLite database.
    fn places(&self) -> Places {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut creation_pragmas = Vec::new();
        if self.page_size > 0 {
            creation_pragmas.push(pair("page_size", &self.page_size.to_string()));
        }
        if !self.auto_vacuum.is_empty() {
            creation_pragmas.push(pair("auto_vacuum", &self.auto_vacuum));
        }
        if !self.journal_mode.is_empty() {
            creation_pragmas.push(pair("journal_mode", &self.journal_mode));
        }
        let mut pragmas = vec![pair("synchronous", &self.synchronous)];
        pragmas.extend(self.pragma.iter().filter_map(|p| p.split_once('=')).map(|(name, value)| pair(name, value)));
        let paths = std::iter::once(&self.db).chain(&self.follow).cloned().collect();
        Places { paths, busy_timeout: Duration::from_millis(self.timeout_ms), pragmas, creation_pragmas }
    }
}

/// What the writers and readers of a run share.
pub(crate) struct Run<'a> {
    pub(crate) options: &'a WriteOptions,
    pub(crate) driver: &'a dyn Driver,
    pub(crate) history: &'a Appender,
    stop: &'a AtomicBool,
    until: Option<Instant>,
}

impl Run<'_> {
    /// Whether it is time to end, by the clock or because somebody said so.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether a fence ends a writer.
    pub(crate) fn ends_at_fence(&self) -> bool {
        let goes_on = self.options.keep_trying || !self.options.follow.is_empty();
        self.options.exit_when_fenced || !goes_on
    }

    /// Sleeps until `due`, but not beyond the end of the run.
    pub(crate) fn sleep_until(&self, due: Instant) {
        /// How late a run may notice that it is over.
        const SLICE: Duration = Duration::from_millis(10);
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.is_over() {
                return;
            }
            thread::sleep(left.min(SLICE));
        }
    }
}

/// Creates the tables unless told not to.
pub(crate) fn set_up(options: &WriteOptions) -> Result<(), Error> {
    match options.no_setup {
        true => Ok(()),
        false => Ok(options.places().set_up()?),
    }
}

/// Runs the application in threads of this process until its time is over, every writer ended by itself, or `stop` is
/// set: then each finishes its transaction.
pub fn write(options: &WriteOptions, stop: &AtomicBool) -> Result<Summary, Error> {
    set_up(options)?;
    write_with(&options.places(), options, stop)
}

/// The same over any engine, whose tables exist; of the options only those count that are no engine's.
pub fn write_with(driver: &dyn Driver, options: &WriteOptions, stop: &AtomicBool) -> Result<Summary, Error> {
    let history = Appender::open(&options.history).map_err(Error::History)?;
    let earlier = History::read(&[&options.history]).map_err(Error::History)?;
    let started = Instant::now();
    let until = (options.duration > 0.0).then(|| started + Duration::from_secs_f64(options.duration.min(1e9)));
    let writers_done = AtomicBool::new(false);
    let run = Run { options, driver, history: &history, stop, until };
    let idle = Run { stop: &writers_done, ..run };
    let (run, idle) = (&run, &idle);
    thread::scope(|scope| {
        let start = |name: String| thread::Builder::new().name(name);
        let writers = (options.first_writer..).take(options.writers as usize).map(|id| {
            let acknowledged = earlier.acknowledged_last(id);
            start(format!("writer-{id}")).spawn_scoped(scope, move || Writer::new(run, id, acknowledged).run())
        });
        let writers = writers.collect::<io::Result<Vec<_>>>();
        // Without writers the readers run until the end, with writers until the last of them has ended.
        let alone = options.writers == 0;
        let readers = (0..options.readers).map(|id| {
            let run = if alone { run } else { idle };
            start(format!("reader-{id}")).spawn_scoped(scope, move || Reader::new(run, id).run())
        });
        let readers = readers.collect::<io::Result<Vec<_>>>();
        let mut summary = Summary::default();
        let mut failed = None;
        let mut join =
            |threads: io::Result<Vec<thread::ScopedJoinHandle<'_, Result<Summary, driver::Error>>>>| match threads {
                Err(e) => failed = failed.take().or(Some(Error::Start(e))),
                Ok(threads) => {
                    for thread in threads {
                        match thread.join() {
                            Ok(Ok(part)) => summary.add(part),
                            Ok(Err(e)) => failed = failed.take().or(Some(e.into())),
                            Err(panic) => std::panic::resume_unwind(panic),
                        }
                    }
                }
            };
        join(writers);
        writers_done.store(true, Ordering::Relaxed);
        join(readers);
        match failed {
            Some(error) => Err(error),
            None => Ok(summary.conclude(started.elapsed().as_secs_f64())),
        }
    })
}
