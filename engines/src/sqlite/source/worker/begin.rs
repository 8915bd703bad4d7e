//! Beginning a log, going on with the one of an earlier agent, and beginning anew when it was lost.

use super::{Mode, SeedState, Setting, Worker};
use crate::{
    Error, Result,
    sqlite::{
        disk, files,
        header::Header,
        source::{generation::Generation, hashes::Hashes, passes::Passes, spool::Spool, tail::Tail, wal::Cursor},
        wire::{Journal, PART_BYTES, Point, SeedHeader},
    },
};
use handover::source_role::Phase;
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::{Arc, PoisonError},
};

impl Worker {
    /// Makes sure that there is a log: resumes an earlier agent's, once, or begins a new generation.
    pub(super) fn ensure_begun(&mut self) -> Result<()> {
        if self.mode.is_some() {
            return Ok(());
        }
        if !self.begun {
            match self.resume() {
                Ok(true) => {
                    self.begun = true;
                    return Ok(());
                }
                Ok(false) => {}
                Err(Error::LogLost(why)) => {
                    tracing::info!(operation = %self.setting.role.operation, why, "the seed has to be verified");
                }
                Err(e) => return Err(e),
            }
        }
        self.regenerate(0)
    }

    fn resume(&mut self) -> Result<bool> {
        let Setting { dir, path, role, config, store, feed, .. } = self.setting.clone();
        let Some(generation) = Generation::load(&dir)? else { return Ok(false) };
        let epoch = store.check()?.0;
        let start = generation.start()?;
        let mut spool = match Spool::recover(&dir, epoch, config.spool_segment_bytes)? {
            Some(spool) => spool,
            // Nothing was read since the generation began.
            None => Spool::create(&dir, epoch, config.spool_segment_bytes, start)?,
        };
        if spool.end().seq() < start.seq() {
            return Err(Error::LogLost("the retained log is of an earlier generation".to_owned()));
        }
        let mut hashes = None;
        let mode = match generation.header.journal {
            Journal::Wal => {
                let cursor = Cursor::of(&spool.end());
                let cursor = cursor.ok_or_else(|| Error::LogLost("the journal mode was another one".to_owned()))?;
                let tail = match Tail::resume(&path, &role.incarnation, cursor) {
                    Err(Error::LogLost(why)) if self.reached_fence(&generation, &mut spool)? => {
                        let tail = Tail::join(&path, &role.incarnation, cursor.seq)?;
                        tracing::info!(operation = %role.operation, why, "the standing fence proves that nobody wrote");
                        tail
                    }
                    other => other?,
                };
                same_page_size(tail.page_size(), &generation)?;
                Mode::Wal(Box::new(tail))
            }
            Journal::Rollback => {
                if !generation.same_boot()? {
                    return Err(Error::LogLost("the machine was restarted".to_owned()));
                }
                let known = Arc::new(Hashes::open(&dir, epoch, true)?);
                let passes = Passes::begin(&path, &role.incarnation, known.clone(), spool.end())?;
                same_page_size(passes.page_size(), &generation)?;
                hashes = Some(known);
                Mode::Rollback(Box::new(passes))
            }
        };
        generation.save(&dir, epoch)?;
        feed.begin(generation.generation, generation.header.page_size, spool);
        self.cap_recovered()?;
        self.mode = Some(mode);
        self.set_seed(SeedState { generation, hashes });
        Ok(true)
    }

    /// Whether the retained log goes at least to this operation's own fence, should that stand.
    fn reached_fence(&self, generation: &Generation, spool: &mut Spool) -> Result<bool> {
        match &self.setting.role.phase {
            Phase::Fenced { position, .. } => Ok(spool.holds(Point::parse(position)?)),
            // The log was read to its end before the fence was written. It was not synced, so a power cut may have taken
            // some of it, and here no position tells.
            Phase::Fencing { saved, .. } => Ok(!saved.is_empty() && generation.same_boot()?),
            Phase::Replicating | Phase::Releasing { .. } | Phase::Released { .. } | Phase::CleaningUp { .. } => {
                Ok(false)
            }
        }
    }

    /// An attempt has one position: in a fenced role nothing beyond it is given, whichever agent gives it.
    fn cap_recovered(&self) -> Result<()> {
        if let Phase::Fenced { position, .. } = &self.setting.role.phase {
            let point = Point::parse(position)?;
            if self.setting.feed.holds(point) {
                self.setting.feed.cap(Some(point))?;
            }
        }
        Ok(())
    }

    /// Begins a new generation, greater than the one before and than `above`.
    pub(super) fn regenerate(&mut self, above: u64) -> Result<()> {
        let Setting { dir, path, role, config, store, feed, .. } = self.setting.clone();
        // All connections go first: within a process SQLite shares what it knows of a WAL index among them.
        self.mode = None;
        self.fencer = None;
        let epoch = store.check()?.0;
        let before = Generation::load(&dir)?;
        let last = before.as_ref().map_or(0, |g| g.generation).max(feed.generation().unwrap_or(0));
        let seq = match (feed.end(), &before) {
            (Some(end), _) => end.seq() + 1,
            // What an agent before us showed lies beyond any log that one generation can have read.
            (None, Some(before)) => before.start()?.seq() + (1 << 40),
            (None, None) => 0,
        };
        disk::make_dir(&dir)?;

        let file = files::open(&path)?;
        let header = Header::of(&file)?.ok_or_else(|| Error::Corrupt("the database file is empty".to_owned()))?;
        let (mode, journal, hashes, start) = if header.is_wal() {
            let tail = Tail::begin(&path, &role.incarnation, seq)?;
            let start = tail.cursor().point();
            (Mode::Wal(Box::new(tail)), Journal::Wal, None, start)
        } else {
            let hashes = Arc::new(Hashes::open(&dir, epoch, false)?);
            let start = Point::Rollback { pass: 0, seq };
            let passes = Passes::begin(&path, &role.incarnation, hashes.clone(), start)?;
            (Mode::Rollback(Box::new(passes)), Journal::Rollback, Some(hashes), start)
        };
        // Only now: what the file grows by from here on is in the log.
        let meta = file.metadata().map_err(|e| Error::io("examine the database file", e))?;
        let page_size = header.page_size;
        let header = SeedHeader {
            page_size,
            journal,
            file_bytes: meta.size() / u64::from(page_size) * u64::from(page_size),
            part_bytes: PART_BYTES,
            mode: meta.permissions().mode() & 0o7777,
        };
        let generation = Generation::new(last.max(above) + 1, header, start)?;
        store.check()?;
        let spool = Spool::create(&dir, epoch, config.spool_segment_bytes, start)?;
        generation.save(&dir, epoch)?;
        feed.begin(generation.generation, page_size, spool);
        self.begun = true;
        self.mode = Some(mode);
        self.set_seed(SeedState { generation, hashes });
        Ok(())
    }

    fn set_seed(&self, state: SeedState) {
        *self.setting.seed.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    pub(super) fn seed_state(&self) -> Result<SeedState> {
        let state = self.setting.seed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        state.ok_or_else(|| Error::Busy("the log has not begun yet".to_owned()))
    }
}

fn same_page_size(found: u32, generation: &Generation) -> Result<()> {
    match found == generation.header.page_size {
        true => Ok(()),
        false => Err(Error::LogLost(format!("the page size is {found} now"))),
    }
}
