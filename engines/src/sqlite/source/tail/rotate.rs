//! Making room for a reset of a WAL that has grown because the hold stands in it.

use super::{Sink, Tail};
use crate::{Result, sqlite::source::connect};
use std::time::Duration;

/// The longest that a rotation tries for the write lock; it does not block anyone while it tries.
const LOCK_WAIT: Duration = Duration::from_millis(50);
/// The most frames that are backfilled under the write lock: a few milliseconds, which writers wait.
const REST_MAX: u32 = 1000;
/// How often a checkpoint of an application's own is waited for, and how long each time.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_micros(200);
/// How long to leave a WAL alone after a rotation that failed: an application's old reader hinders it, or its load.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How long after one that worked, so that the next writer can begin anew.
const AFTER_SUCCESS: Duration = Duration::from_millis(20);

/// When to rotate again.
#[derive(Debug, Default)]
pub struct Rotation {
    not_before: Duration,
}

impl Tail {
    /// Makes room when the WAL has at least `threshold` frames: backfills it without a lock first, the rest under the
    /// write lock, and leaves the hold on lock 0 so that the next writer begins the WAL anew.
    pub fn rotate(&mut self, threshold: u32, sink: &mut dyn Sink) -> Result<()> {
        if self.cursor.frame < threshold || sink.now() < self.rotation.not_before {
            return Ok(());
        }
        let rotated = self.rotate_now(sink);
        let pause = if matches!(rotated, Ok(true)) { AFTER_SUCCESS } else { AFTER_FAILURE };
        self.rotation.not_before = sink.now() + pause;
        rotated.map(|_| ())
    }

    fn rotate_now(&mut self, sink: &mut dyn Sink) -> Result<bool> {
        let salt = self.cursor.salt;
        self.rehold(sink)?;
        for _ in 0..TRIES {
            checkpoint(self.index.anchor());
            self.drain(sink)?;
            if self.index.backfilled() >= self.held.frame || self.cursor.salt != salt {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        let rest = self.index.header()?.frames.saturating_sub(self.index.backfilled());
        if self.cursor.salt != salt || rest > REST_MAX {
            return Ok(self.cursor.salt != salt);
        }
        if !self.lock(LOCK_WAIT, sink, &|| false)? {
            return Ok(false);
        }
        let rotated = self.rotate_locked(sink);
        connect::end(self.index.anchor())?;
        rotated
    }

    fn rotate_locked(&mut self, sink: &mut dyn Sink) -> Result<bool> {
        self.rehold(sink)?;
        for _ in 0..TRIES {
            checkpoint(&self.spare);
            if self.index.backfilled() == self.index.header()?.frames {
                self.rehold(sink)?;
                return Ok(true);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    }

    /// Takes the write lock on the index's connection; false if it was not free for so long or `stop` says so.
    pub(super) fn lock(&mut self, wait: Duration, sink: &mut dyn Sink, stop: &dyn Fn() -> bool) -> Result<bool> {
        let until = sink.now() + wait;
        loop {
            if connect::try_begin_write(self.index.anchor())? {
                return Ok(true);
            }
            if sink.now() >= until || stop() {
                return Ok(false);
            }
            self.yield_to_writers(sink)?;
        }
    }

    /// Between two tries for the write lock: its owner may be a checkpoint that waits for our hold.
    pub fn yield_to_writers(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.turn(sink)?;
        std::thread::sleep(PAUSE / 2);
        Ok(())
    }
}

/// A passive checkpoint: it waits for nobody. That it could not do everything shows in the index.
fn checkpoint(db: &rusqlite::Connection) {
    if let Err(e) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::debug!(error = %e, "a passive checkpoint did nothing");
    }
}
