//! The log: kept while the seed is not whole, applied afterwards, and what a marker asks of it.

use super::{Shared, sync::Bound};
use crate::{
    Error, Result,
    source::LogBatch,
    sqlite::{
        dest::{apply, check, spool},
        wire::{Log, Point},
    },
};
use handover::Position;
use std::sync::{Arc, PoisonError};

impl Shared {
    pub(super) fn take_log(self: &Arc<Self>, batch: &LogBatch) -> Result<()> {
        let using = self.enter()?;
        let files = using.files()?;
        let _order = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (Point::parse(&batch.from)?, Point::parse(&batch.to)?);
        let (seeded, end, page_size, spool_bytes) = {
            let state = self.state();
            let received = state.received()?;
            (received.seeded, received.log_end().clone(), received.header.page_size, received.spool_bytes)
        };
        let stands = Point::parse(&end)?;
        if to.seq() <= stands.seq() {
            return Ok(());
        }
        if from.seq() > stands.seq() || (from.seq() == stands.seq() && from != stands) {
            return Err(Error::Gap { expected: end.to_string(), got: batch.from.to_string() });
        }
        let log = Log::decode(&batch.payload)?;
        if log.page_size() != page_size {
            return Err(Error::Corrupt(format!("the log has pages of {} bytes, not {page_size}", log.page_size())));
        }
        self.store.check()?;
        let (outcome, spool_bytes) = if seeded {
            self.raise_bound(to.seq())?;
            self.state().touched = to.seq();
            (apply::apply(&files.db, &log)?, spool_bytes)
        } else {
            (apply::outcome(&log), spool::append(&files.spool, spool_bytes, &batch.payload)?)
        };
        {
            let mut state = self.state();
            let received = state.received_mut()?;
            received.log = Some(batch.to.clone());
            received.at_commit = outcome.at_commit;
            received.pages = outcome.pages.unwrap_or(received.pages);
            received.spool_bytes = spool_bytes;
        }
        self.wrote(batch.payload.len() as u64);
        Ok(())
    }

    /// Sees to it that the record allows the file to be ahead as far as `seq`.
    fn raise_bound(&self, seq: u64) -> Result<()> {
        if self.state().received()?.bound >= seq {
            return Ok(());
        }
        let syncing = self.syncing();
        // Only the bound: what was received meanwhile is not synced.
        let Some(mut next) = self.state().durable.clone() else {
            return Err(Error::Internal("a seeded replica has no record".to_owned()));
        };
        next.bound = seq.saturating_add(self.config.apply_ahead_frames);
        self.record(next, &syncing)
    }

    pub(super) fn prepare_marker(&self, position: &Position) -> Result<()> {
        let using = self.enter()?;
        let _order = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (stands, touched) = {
            let state = self.state();
            (state.received()?.clone(), state.touched)
        };
        let end = Point::parse(stands.log_end())?;
        if !stands.seeded || end != Point::parse(position)? || touched > end.seq() {
            return Err(Error::Gap { expected: stands.log_end().to_string(), got: position.to_string() });
        }
        if !stands.at_commit {
            return Err(Error::Corrupt("the marker is amid a transaction".to_owned()));
        }
        let files = using.files()?;
        check::check(&files.db, &self.db_path(), stands.header.page_size, stands.database_bytes())?;
        self.sync_files(files, Bound::Vouched)
    }
}
