//! The thread behind an open stream: it alone owns the connections to the database, drains the log and fences.

mod begin;
mod plan;

use super::{
    connect,
    feed::Feed,
    fence::Call,
    generation::Generation,
    hashes::Hashes,
    passes::Passes,
    tail::{Sink, Tail},
};
use crate::{
    Error, Result,
    host::Host,
    source::{Held, Plan},
    sqlite::{SqliteConfig, store::Store, wire::Point},
};
use handover::source_role::SourceRole;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// How long to wait after a failure before the next try.
const RETRY: Duration = Duration::from_millis(100);
/// How often it is checked that this agent still holds the lock: one that was superseded lets go.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// After a fence was announced the WAL is not rotated for so long, unless it has grown to a multiple of the threshold.
const QUIET: Duration = Duration::from_secs(5);
const QUIET_FACTOR: u32 = 4;

/// What the thread is asked for.
pub enum Work {
    /// Join what the destination holds with the log.
    Plan(Held, Reply<Plan>),
    /// The seed has been read: passes over a rollback-journal database may begin.
    Seeded(Reply<()>),
    /// Close the database. Answers the role as it was recorded.
    Fence(Box<SourceRole>, Duration, Reply<(SourceRole, Point)>),
    /// Take a consistent point.
    Mark(Reply<Point>),
    /// Begin or resume the log, if that has not happened yet.
    Begin(Reply<()>),
    /// Do now what a fence would have to wait for.
    Settle(Reply<()>),
    /// The fence was lifted.
    Lifted(Reply<()>),
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T>>;

/// What the stream holds of the thread.
pub struct Handle {
    work: mpsc::Sender<Work>,
    feed: Arc<Feed>,
    flags: Arc<Flags>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Flags {
    closing: AtomicBool,
    /// How much work waits: a long pass over a file makes way.
    waiting: AtomicU32,
}

/// What the thread and the stream share.
#[derive(Clone)]
pub struct Setting {
    /// The configuration.
    pub config: Arc<SqliteConfig>,
    /// Clock.
    pub host: Arc<dyn Host>,
    /// Lock and role records.
    pub store: Arc<Store>,
    /// The database file.
    pub path: PathBuf,
    /// The operation's directory.
    pub dir: PathBuf,
    /// The role with which the stream was opened.
    pub role: Arc<SourceRole>,
    /// Where the log goes.
    pub feed: Arc<Feed>,
    /// The hashes of a rollback-journal database and the present generation, for whoever reads chunks.
    pub seed: Arc<Mutex<Option<SeedState>>>,
}

/// What a reader of chunks needs.
#[derive(Clone)]
pub struct SeedState {
    /// The present generation.
    pub generation: Generation,
    /// Page hashes to note what is read, with a rollback journal.
    pub hashes: Option<Arc<Hashes>>,
}

impl Handle {
    /// Starts the thread. It begins or resumes the log before it answers anything.
    pub fn start(setting: Setting) -> Result<Self> {
        let flags = Arc::new(Flags::default());
        let (work, queue) = mpsc::channel();
        let feed = setting.feed.clone();
        let worker = Worker {
            setting,
            flags: flags.clone(),
            queue,
            mode: None,
            fencer: None,
            unsynced: false,
            synced_at: Duration::ZERO,
            checked_at: Duration::ZERO,
            quiet_until: Duration::ZERO,
            begun: false,
        };
        let thread = std::thread::Builder::new()
            .name("sqlite-tail".to_owned())
            .spawn(move || worker.run())
            .map_err(|e| Error::io("start a thread", e))?;
        Ok(Self { work, feed, flags, thread: Mutex::new(Some(thread)) })
    }

    /// Asks and waits for the answer.
    pub async fn ask<T>(&self, work: impl FnOnce(Reply<T>) -> Work) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.flags.waiting.fetch_add(1, Ordering::SeqCst);
        let ended = || Err(self.feed.failure().unwrap_or_else(closed));
        if self.work.send(work(reply)).is_err() {
            return ended();
        }
        answer.await.unwrap_or_else(|_| ended())
    }

    /// Tells the thread to end.
    pub fn signal(&self) {
        self.flags.closing.store(true, Ordering::SeqCst);
        self.feed.fail(closed());
    }

    /// Ends the thread, which lets go of everything. Blocks for what it is doing.
    pub fn stop(&self) {
        self.signal();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread of a SQLite stream panicked");
        }
    }
}

/// The answer of a stream that ended.
pub fn closed() -> Error {
    Error::Misuse("the stream is closed".to_owned())
}

enum Mode {
    Wal(Box<Tail>),
    Rollback(Box<Passes>),
}

struct Worker {
    setting: Setting,
    flags: Arc<Flags>,
    queue: mpsc::Receiver<Work>,
    /// None while the log has to begin anew.
    mode: Option<Mode>,
    /// A connection that was opened ahead for a fence.
    fencer: Option<rusqlite::Connection>,
    unsynced: bool,
    synced_at: Duration,
    checked_at: Duration,
    quiet_until: Duration,
    /// Whether a log was begun or resumed in this thread's life.
    begun: bool,
}

/// Appends to the feed.
struct FeedSink<'a>(&'a Feed, &'a dyn Host);

impl Sink for FeedSink<'_> {
    fn frames(&mut self, to: Point, frames: &[u8], transactions: u64) -> Result<()> {
        self.0.append(to, frames, transactions)
    }

    fn now(&self) -> Duration {
        self.1.monotonic()
    }
}

impl Worker {
    fn run(mut self) {
        let feed = self.setting.feed.clone();
        let mut pause = Duration::ZERO;
        loop {
            if self.flags.closing.load(Ordering::SeqCst) {
                feed.fail(closed());
                return;
            }
            match self.queue.recv_timeout(pause) {
                Ok(work) => {
                    self.flags.waiting.fetch_sub(1, Ordering::SeqCst);
                    self.perform(work);
                    pause = Duration::ZERO;
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            pause = match self.turn() {
                Ok(true) => self.setting.config.poll_active,
                Ok(false) => self.setting.config.poll_idle,
                Err(error) => match self.trouble(error) {
                    Some(pause) => pause,
                    None => return,
                },
            };
        }
    }

    /// What follows from an error: how long to wait, or nothing if the stream has ended.
    fn trouble(&mut self, error: Error) -> Option<Duration> {
        match error {
            Error::LogLost(why) => {
                tracing::warn!(operation = %self.setting.role.operation, why, "the log was interrupted; it begins anew");
                // Once at once; when that is lost too, something is wrong that takes its time.
                Some(if self.mode.take().is_some() { Duration::ZERO } else { RETRY })
            }
            error if error.retryable() => {
                tracing::debug!(operation = %self.setting.role.operation, %error, "read the log");
                Some(RETRY)
            }
            error => {
                tracing::warn!(operation = %self.setting.role.operation, %error, "the log ends");
                // Letting go of the database is part of it: nothing may make it wait any more.
                self.mode = None;
                self.fencer = None;
                self.setting.feed.fail(error);
                None
            }
        }
    }

    /// Reads what is new, answers whether there was something.
    fn turn(&mut self) -> Result<bool> {
        let Setting { feed, host, config, .. } = self.setting.clone();
        let now = host.monotonic();
        if now.saturating_sub(self.checked_at) >= CHECK_EVERY {
            self.checked_at = now;
            self.setting.store.check()?;
        }
        self.ensure_begun()?;
        let flags = self.flags.clone();
        let stop = || flags.closing.load(Ordering::SeqCst) || flags.waiting.load(Ordering::SeqCst) > 0;
        let mut sink = FeedSink(&feed, &*host);
        match &mut self.mode {
            Some(Mode::Wal(tail)) => {
                let frames = tail.turn(&mut sink)?;
                self.unsynced |= frames > 0;
                let threshold = match now < self.quiet_until {
                    true => config.rotate_frames.saturating_mul(QUIET_FACTOR),
                    false => config.rotate_frames,
                };
                tail.rotate(threshold, &mut sink)?;
                if self.unsynced && now.saturating_sub(self.synced_at) >= config.wal_sync_interval {
                    self.show()?;
                }
                Ok(frames > 0 || self.unsynced)
            }
            Some(Mode::Rollback(passes)) => passes.turn(&feed, &mut sink, host.now_ms(), &stop),
            None => Ok(false),
        }
    }

    /// Makes durable at the source what was read, and shows it.
    fn show(&mut self) -> Result<()> {
        if let Some(Mode::Wal(tail)) = &self.mode {
            tail.sync()?;
        }
        self.unsynced = false;
        self.synced_at = self.setting.host.monotonic();
        self.setting.feed.publish();
        Ok(())
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Plan(held, reply) => answer(reply, self.noticing(|w| w.plan(&held))),
            Work::Seeded(reply) => {
                if let Some(Mode::Rollback(passes)) = &mut self.mode {
                    passes.seeded = true;
                }
                answer(reply, Ok(()));
            }
            Work::Fence(role, grace, reply) => answer(reply, self.noticing(|w| w.fence(*role, grace))),
            Work::Mark(reply) => answer(reply, self.noticing(Self::mark)),
            Work::Begin(reply) => answer(reply, self.noticing(|_| Ok(()))),
            Work::Settle(reply) => answer(reply, self.noticing(Self::settle)),
            Work::Lifted(reply) => answer(reply, self.noticing(Self::lifted)),
        }
    }

    /// Performs; a lost log begins anew whoever found out.
    fn noticing<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let done = self.ensure_begun().and_then(|()| work(self));
        if let Err(Error::LogLost(why)) = &done {
            tracing::warn!(operation = %self.setting.role.operation, why, "the log was interrupted; it begins anew");
            self.mode = None;
        }
        done
    }

    fn fence(&mut self, mut role: SourceRole, grace: Duration) -> Result<(SourceRole, Point)> {
        let Setting { feed, host, store, .. } = self.setting.clone();
        let flags = self.flags.clone();
        let mut call = Call { store: &store, role: &mut role, grace, stop: &|| flags.closing.load(Ordering::SeqCst) };
        let mut sink = FeedSink(&feed, &*host);
        let fencer = self.fencer.take();
        self.unsynced = true;
        let point = match &mut self.mode {
            Some(Mode::Wal(tail)) => tail.fence(fencer, &feed, &mut sink, &mut call)?,
            Some(Mode::Rollback(passes)) => passes.fence(&feed, &mut sink, &mut call)?,
            None => return Err(Error::Busy("the log begins anew".to_owned())),
        };
        Ok((role, point))
    }

    fn mark(&mut self) -> Result<Point> {
        let Setting { feed, host, .. } = self.setting.clone();
        let flags = self.flags.clone();
        let mut sink = FeedSink(&feed, &*host);
        match &mut self.mode {
            // What the index says is committed ends with a transaction, and the record ends there too.
            Some(Mode::Wal(tail)) => {
                tail.check_files()?;
                tail.drain(&mut sink)?;
                self.show()?;
                feed.end().ok_or_else(|| Error::Internal("a log without an end".to_owned()))
            }
            Some(Mode::Rollback(passes)) => passes.mark(&feed, &mut sink, &|| flags.closing.load(Ordering::SeqCst)),
            None => Err(Error::Busy("the log begins anew".to_owned())),
        }
    }

    fn settle(&mut self) -> Result<()> {
        let Setting { feed, host, path, .. } = self.setting.clone();
        self.quiet_until = host.monotonic() + QUIET;
        if let Some(Mode::Wal(tail)) = &mut self.mode {
            tail.drain(&mut FeedSink(&feed, &*host))?;
            if self.fencer.is_none() {
                let db = connect::open(&path)?;
                connect::first_page(&db)?;
                self.fencer = Some(db);
            }
        }
        self.show()
    }

    fn lifted(&mut self) -> Result<()> {
        let Setting { feed, host, .. } = self.setting.clone();
        self.fencer = None;
        feed.uncap();
        match &mut self.mode {
            Some(Mode::Wal(tail)) => tail.reconnect(&mut FeedSink(&feed, &*host)),
            _ => Ok(()),
        }
    }
}

fn answer<T>(reply: Reply<T>, with: Result<T>) {
    // Whoever asked may be gone; the effect stands, and asking again finds it.
    let _ = reply.send(with);
}
