//! What the reading side of a stream sees of the log: how far it may be read, and why it ended.

use super::spool::Spool;
use crate::source::{Backlog, LogBatch};
use crate::{
    Error, Result,
    host::Host,
    sqlite::{
        SqliteConfig,
        wire::{self, Point},
    },
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Samples of when the log was seen, for its age. Thinned out when there are more.
const SAMPLES_MAX: usize = 4096;
/// How close two samples may be, in milliseconds.
const SAMPLE_EVERY_MS: i64 = 10;
/// How often the free space of the disk is asked for.
const BUDGET_EVERY: Duration = Duration::from_millis(100);

/// Shared between the worker that fills it and the stream that reads it.
pub struct Feed {
    config: Arc<SqliteConfig>,
    host: Arc<dyn Host>,
    /// The operation's own cap, 0 for none.
    budget_bytes: u64,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// None until the first generation began.
    log: Option<Log>,
    failure: Option<Error>,
    budget: (Duration, u64),
}

struct Log {
    generation: u64,
    page_size: u32,
    spool: Spool,
    /// How far the log may be read: it is durable at the source.
    visible: Point,
    /// While the fence stands, or is about to: nothing beyond is given.
    cap: Option<Point>,
    samples: VecDeque<(u64, i64)>,
    /// What the log will still get but is not in it yet, in bytes and since when; of use for rollback journals only.
    pending: (u64, i64),
    /// A record could not be read back: the generation cannot go on.
    damaged: bool,
}

impl Feed {
    /// One without a log.
    pub fn new(config: Arc<SqliteConfig>, host: Arc<dyn Host>, budget_bytes: u64) -> Self {
        let state = State { log: None, failure: None, budget: (Duration::ZERO, 0) };
        Self { config, host, budget_bytes, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new or recovered log. All of a recovered one was visible before.
    pub fn begin(&self, generation: u64, page_size: u32, spool: Spool) {
        let visible = spool.end();
        let samples = spool.ages().collect();
        let log = Log { generation, page_size, spool, visible, cap: None, samples, pending: (0, 0), damaged: false };
        self.state().log = Some(log);
        self.changed.notify_waiters();
    }

    /// Ends it: whoever waits gets the reason, the first one that was given.
    pub fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
        self.changed.notify_waiters();
    }

    /// Why it ended, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.state().failure.as_ref().map(again)
    }

    /// The generation, if one began.
    pub fn generation(&self) -> Option<u64> {
        self.state().log.as_ref().map(|log| log.generation)
    }

    /// Where the log ends, read by whomever or not.
    pub fn end(&self) -> Option<Point> {
        self.state().log.as_ref().map(|log| log.spool.end())
    }

    /// Whether the log can be read from `point`.
    pub fn holds(&self, point: Point) -> bool {
        self.state().log.as_mut().is_some_and(|log| !log.damaged && log.spool.holds(point))
    }

    /// Adds to the log, without showing it yet. Fails with [`Error::Budget`] before the cap would be passed.
    pub fn append(&self, to: Point, frames: &[u8], transactions: u64) -> Result<()> {
        let now_ms = self.host.now_ms();
        let mut state = self.state();
        let used = state.log.as_ref().map_or(0, |log| log.spool.bytes());
        let budget = self.budget(&mut state, used)?;
        let log = state.log.as_mut().ok_or_else(|| Error::Internal("log before its beginning".to_owned()))?;
        if used + frames.len() as u64 > budget {
            return Err(Error::Budget { used, budget });
        }
        let from = log.spool.end().seq();
        match log.spool.append(to, frames, transactions, now_ms) {
            // A disk that is full is the very thing that the cap is there to prevent.
            Err(Error::DiskFull(_)) => return Err(Error::Budget { used, budget: used }),
            other => other?,
        }
        if log.samples.back().is_none_or(|(_, ms)| now_ms - ms >= SAMPLE_EVERY_MS) {
            if log.samples.len() >= SAMPLES_MAX {
                let mut keep = false;
                log.samples.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            log.samples.push_back((from, now_ms));
        }
        Ok(())
    }

    fn budget(&self, state: &mut State, used: u64) -> Result<u64> {
        let now = self.host.monotonic();
        if state.budget.1 == 0 || now.saturating_sub(state.budget.0) >= BUDGET_EVERY {
            let mut budget = self.config.log_budget(used)?;
            if self.budget_bytes != 0 {
                let mut own = (*self.config).clone();
                own.log_budget_bytes = self.budget_bytes;
                budget = own.log_budget(used)?;
            }
            state.budget = (now, budget);
        }
        Ok(state.budget.1)
    }

    /// Shows everything that was appended.
    pub fn publish(&self) {
        if let Some(log) = self.state().log.as_mut() {
            log.visible = log.spool.end();
        }
        self.changed.notify_waiters();
    }

    /// Gives nothing beyond the present end of the log, or beyond an earlier point of it, until [`Feed::uncap`].
    pub fn cap(&self, at: Option<Point>) -> Result<Point> {
        let mut state = self.state();
        let log = state.log.as_mut().ok_or_else(|| Error::Busy("the log has not begun yet".to_owned()))?;
        let at = at.unwrap_or_else(|| log.spool.end());
        log.cap = Some(at);
        Ok(at)
    }

    /// Gives everything again.
    pub fn uncap(&self) {
        if let Some(log) = self.state().log.as_mut() {
            log.cap = None;
        }
        self.changed.notify_waiters();
    }

    /// Says what the log will get later.
    pub fn set_pending(&self, bytes: u64, since_ms: i64) {
        if let Some(log) = self.state().log.as_mut() {
            log.pending = (bytes, since_ms);
        }
    }

    /// Forgets what is durable at the destination.
    pub fn confirm(&self, durable: &Point) -> Result<()> {
        match self.state().log.as_mut() {
            Some(log) if durable.seq() <= log.spool.end().seq() => log.spool.confirm(durable),
            _ => Ok(()),
        }
    }

    /// Waits until there is log after `after` and not beyond `until`, and answers how far it may be read.
    pub async fn wait(&self, after: Point, until: Option<Point>) -> Result<u64> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(limit) = self.limit(after, until)? {
                return Ok(limit);
            }
            changed.await;
        }
    }

    fn limit(&self, after: Point, until: Option<Point>) -> Result<Option<u64>> {
        let state = self.state();
        if let Some(failure) = &state.failure {
            return Err(again(failure));
        }
        let Some(log) = &state.log else { return Ok(None) };
        let held = log.spool.start().seq()..=log.spool.end().seq();
        if !held.contains(&after.seq()) || (after.seq() == log.spool.end().seq() && after != log.spool.end()) {
            return Err(Error::LogLost(format!("nothing is retained after {after}")));
        }
        let mut limit = log.visible.seq();
        for bound in [log.cap, until].into_iter().flatten() {
            limit = limit.min(bound.seq());
        }
        Ok((limit > after.seq()).then_some(limit))
    }

    /// Reads what [`Feed::wait`] found. Blocks.
    pub fn read(&self, after: Point, max: usize, limit: u64) -> Result<LogBatch> {
        let mut state = self.state();
        let log = state.log.as_mut().ok_or_else(|| Error::LogLost("the log has not begun yet".to_owned()))?;
        let mut payload = BytesMut::with_capacity(max.min(4 << 20) + 64);
        wire::begin_log(&mut payload, log.page_size);
        let read = log.spool.read(after, max, limit, &mut payload);
        log.damaged |= matches!(read, Err(Error::LogLost(_)));
        let piece = read?;
        let payload: Bytes = payload.freeze();
        let (from, to) = (after.position(), piece.to.position());
        Ok(LogBatch { from, to, payload, transactions: piece.transactions, seen_ms: piece.seen_ms })
    }

    /// How far the log is ahead of `after`.
    pub fn backlog(&self, after: &Point) -> Result<Backlog> {
        let mut state = self.state();
        let retained_bytes = state.log.as_ref().map_or(0, |log| log.spool.bytes());
        let budget_bytes = self.budget(&mut state, retained_bytes)?;
        let Some(log) = &state.log else {
            return Ok(Backlog { bytes: 0, oldest_ms: 0, retained_bytes, budget_bytes });
        };
        let end = log.cap.map_or(log.spool.end().seq(), |cap| cap.seq());
        let frames = end.saturating_sub(after.seq());
        let bytes = frames * (8 + u64::from(log.page_size)) + log.pending.0;
        let oldest_ms = match frames {
            0 => log.pending.1,
            _ => {
                let later = log.samples.partition_point(|(seq, _)| *seq <= after.seq());
                log.samples.get(later.saturating_sub(1)).map_or(0, |(_, ms)| *ms)
            }
        };
        Ok(Backlog { bytes, oldest_ms, retained_bytes, budget_bytes })
    }
}

/// The same error for everybody who asks.
fn again(error: &Error) -> Error {
    match error {
        Error::Superseded { ours, newer } => Error::Superseded { ours: *ours, newer: *newer },
        Error::Budget { used, budget } => Error::Budget { used: *used, budget: *budget },
        Error::Incarnation(why) => Error::Incarnation(why.clone()),
        Error::Corrupt(why) => Error::Corrupt(why.clone()),
        Error::Misuse(why) => Error::Misuse(why.clone()),
        Error::Unsupported { code, message, remedy } => {
            Error::Unsupported { code, message: message.clone(), remedy: remedy.clone() }
        }
        other => Error::Internal(other.to_string()),
    }
}
