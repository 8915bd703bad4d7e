//! What survives a crash: files first, then the record that says how far they are.

use super::{Files, Shared};
use crate::{Error, Result, sqlite::wire::Point};
use rustix::fs::Advice;
use std::{
    fs::File,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

/// The usual block of a file system. A database with smaller pages stays in the page cache: to write one of them the kernel
/// would have to read the rest of its block from the disk again.
const BLOCK_BYTES: u32 = 4096;

/// What a sync does with the bound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// It stays as it is, ahead of what is applied, so that the next piece of log need not raise it.
    Keep,
    /// It comes down to what is applied, if that is known.
    IfKnown,
    /// It comes down to what is applied: a marker vouches that nothing beyond was ever sent.
    Vouched,
}

impl Shared {
    /// Makes everything received durable, and records it.
    pub(super) fn sync(&self, bound: Bound) -> Result<()> {
        let using = self.enter()?;
        self.sync_files(using.files()?, bound)
    }

    /// The same for a caller that shares the files already: to ask for them twice could wait for itself.
    pub(super) fn sync_files(&self, files: &Files, bound: Bound) -> Result<()> {
        let syncing = self.syncing();
        let Some(mut next) = self.state().received.clone() else { return Ok(()) };
        let end = Point::parse(next.log_end())?.seq();
        let known = {
            let state = self.state();
            end >= state.touched.max(state.unsure)
        };
        if bound == Bound::Vouched || (bound == Bound::IfKnown && known) {
            next.bound = end;
        }
        if self.state().durable.as_ref() == Some(&next) {
            // Whatever is on its way to the disk is not told of yet.
            return self.store.check().map(|_| ());
        }
        self.flush_db(&files.db, &syncing)?;
        if next.spool_bytes > 0 {
            self.flush(&files.spool, &syncing)?;
        }
        self.record(next, &syncing)?;
        if bound == Bound::Vouched {
            self.state().unsure = 0;
        }
        Ok(())
    }

    /// Writes the progress record.
    pub(super) fn record(&self, next: super::Progress, _syncing: &MutexGuard<'_, ()>) -> Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(Error::io("sync the replica", std::io::Error::other("an earlier sync failed")));
        }
        self.store.check()?;
        next.write(&self.dir)?;
        self.store.check()?;
        let mut state = self.state();
        if let Some(received) = &mut state.received {
            received.bound = next.bound;
        }
        state.durable = Some(next);
        Ok(())
    }

    /// Makes a file durable. When that fails, what was written since the last time counts as lost.
    pub(super) fn flush(&self, file: &File, _syncing: &MutexGuard<'_, ()>) -> Result<()> {
        file.sync_data().map_err(|e| {
            self.lost.store(true, Ordering::Release);
            Error::io("sync the replica", e)
        })
    }

    /// The same for the replica's own file. What is durable of a seed leaves the page cache at once: the next chunks then
    /// go through the same little memory, which is warm, and the cache of whatever else this machine serves stays as it
    /// is. Log is written to pages again and again, so it stays.
    pub(super) fn flush_db(&self, file: &File, syncing: &MutexGuard<'_, ()>) -> Result<()> {
        self.flush(file, syncing)?;
        let seeding = |p: &super::Progress| !p.seeded && p.header.page_size >= BLOCK_BYTES;
        if self.state().received.as_ref().is_some_and(seeding) {
            // Only advice: what it fails with matters to nobody.
            let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    pub(super) fn syncing(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes written, and syncs beside the writing once there are enough of them.
    pub(super) fn wrote(self: &Arc<Self>, bytes: u64) {
        let dirty = self.dirty.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if dirty < self.config.sync_every_bytes || self.flushing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.dirty.store(0, Ordering::Relaxed);
        let shared = self.clone();
        self.host.blocking(Box::new(move || {
            if let Ok(using) = shared.enter()
                && let Ok(files) = using.files()
            {
                // A failure is remembered and answered by the next call.
                let _ = shared.flush_db(&files.db, &shared.syncing());
                let _ = shared.flush(&files.spool, &shared.syncing());
            }
            shared.flushing.store(false, Ordering::Release);
        }));
    }
}
