//! Making room for a reset of a WAL that has grown because the hold stands in it.

use super::{Sink, Tail};
use crate::{Result, sqlite::source::connect};
use rusqlite::Connection;
use std::time::Duration;

/// The longest that a rotation tries for the write lock; it does not block anyone while it tries.
const LOCK_WAIT: Duration = Duration::from_millis(50);
/// The most frames that are backfilled under the write lock: a few milliseconds, which writers wait.
const REST_MAX: u32 = 1000;
/// How often the write lock is looked at between two turns of the tail: a fraction of a millisecond.
const LOOKS: u32 = 150;
/// How long a foothold in the lock is kept: longer than a writer takes from one transaction to the next.
const FOOTHOLD: Duration = Duration::from_micros(150);
/// How often a checkpoint of an application's own is waited for, and how long each time.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_micros(200);
/// How long to leave a WAL alone after a rotation that failed: an application's old reader hinders it, or its load.
const AFTER_FAILURE: Duration = Duration::from_millis(50);
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
        // While the fence stands nobody writes, so nothing grows, and nobody gets a write lock.
        if self.fenced || self.cursor.frame < threshold || sink.now() < self.rotation.not_before {
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
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => connect::open(&self.path)?,
        };
        let locked = self.lock(&writer, sink.now() + LOCK_WAIT, sink, &|| false)?;
        let rotated = if locked { self.rotate_locked(sink) } else { Ok(false) };
        connect::end(&writer)?;
        self.writer = Some(writer);
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

    /// Takes the write lock on a connection; false if it was not free until then or `stop` says so.
    ///
    /// A busy writer leaves it free for microseconds only, fewer than a BEGIN takes. So once that was lost to a writer, a
    /// free lock is first held in the index alone, until the writer has run into it and sleeps: SQLite's sleep is a
    /// millisecond at least. Between looks this drains and moves the hold, because the lock's owner may be a checkpoint
    /// that waits for that very hold.
    pub(super) fn lock(
        &mut self,
        writer: &Connection,
        until: Duration,
        sink: &mut dyn Sink,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let mut foothold = Duration::ZERO;
        loop {
            for _ in 0..LOOKS {
                if self.index.hold_write_lock(foothold) {
                    if connect::try_begin_write(writer)? {
                        return Ok(true);
                    }
                    foothold = FOOTHOLD;
                }
                std::hint::spin_loop();
            }
            if sink.now() >= until || stop() {
                return Ok(false);
            }
            self.turn(sink)?;
            // Whoever spins on the writer's own processor never sees the lock free: a sleeper wakes up on another one.
            std::thread::sleep(PAUSE / 4);
        }
    }
}

/// A passive checkpoint: it waits for nobody. That it could not do everything shows in the index.
fn checkpoint(db: &Connection) {
    if let Err(e) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::debug!(error = %e, "a passive checkpoint did nothing");
    }
}
