//! A run of the application: writers and readers over one database, each with its own connection and thread.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    driver::{self, Driver},
    history::{Appender, History},
    options::WriteOptions,
    reader::Reader,
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
    write_with(&*options.places(), options, stop)
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
