//! The log: changes go to the applier, the rest of a marker to [`super::extras`].

use super::{
    super::{apply::Applier, payload::LogPayload, position::Point},
    live::Live,
};
use crate::{Error, Result, source::LogBatch};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Mutex as AsyncMutex;

/// Where the log is.
pub(super) struct Log {
    state: Mutex<State>,
    /// Held by the one call that goes on: log comes in order.
    turn: AsyncMutex<()>,
}

struct State {
    applier: Option<Arc<Applier>>,
    /// Up to where log was taken.
    received: Point,
    /// Up to where it survives any crash.
    survived: Point,
    /// The end of the extras that were applied last.
    extras: Option<Point>,
    /// Whether what is restored last is there and fires.
    armed: bool,
}

impl Log {
    pub(super) fn new(start: Point, extras: Option<Point>, armed: bool) -> Self {
        let at = extras.map_or(start, |extras| extras.max(start));
        let state = State { applier: None, received: at, survived: at, extras, armed };
        Self { state: Mutex::new(state), turn: AsyncMutex::default() }
    }

    /// Up to where log was taken.
    pub(super) fn received(&self) -> Point {
        self.state().received
    }

    /// Up to where it need not be sent again after any crash.
    pub(super) fn survived(&self) -> Point {
        self.state().survived
    }

    pub(super) fn armed(&self) -> bool {
        self.state().armed
    }

    pub(super) fn set_armed(&self, armed: bool) {
        self.state().armed = armed;
    }

    /// An extra that ends here is committed.
    pub(super) fn took_extra(&self, to: Point) {
        let mut state = self.state();
        (state.received, state.extras) = (to, Some(to));
    }

    pub(super) async fn close(&self) {
        let applier = self.state().applier.take();
        if let Some(applier) = applier {
            applier.close().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Takes one piece of the log.
    pub(super) async fn log(&self, batch: LogBatch) -> Result<()> {
        let _turn = self.log.turn.lock().await;
        let (from, to) = (Point::read(&batch.from)?, Point::read(&batch.to)?);
        if !self.seeded() {
            // The source gives none before; its slot keeps it.
            return Err(Error::Misuse("log came before the seed was whole".to_owned()));
        }
        let applier = self.applier().await?;
        let received = self.log.received();
        if to <= received {
            return Ok(());
        }
        if from != received {
            return Err(Error::Gap { expected: received.to_string(), got: from.to_string() });
        }
        let payload = LogPayload::read(batch.payload)?;
        // After an attempt that was closed.
        self.disarm().await?;
        match payload {
            LogPayload::Changes(changes) => {
                if to.in_extras() {
                    return Err(Error::Corrupt(format!("changes cannot end at {to}, among a marker's extras")));
                }
                let boundary = if from.in_extras() { Point::at(from.lsn) } else { from };
                let applied = applier.apply(boundary, to, changes).await;
                self.or_give_up(applied)?;
                self.log.state().received = to;
                Ok(())
            }
            LogPayload::Extra(extra, raw) => {
                if !to.in_extras() || to.lsn != from.lsn {
                    return Err(Error::Corrupt(format!("what ends a marker cannot lead from {from} to {to}")));
                }
                if !from.in_extras() {
                    self.end_changes(&applier, from).await?;
                    self.forget_marker().await?;
                }
                let applied = self.unless_interrupted(self.extra(extra, raw, to)).await;
                applied.map(|()| self.log.took_extra(to))
            }
        }
    }

    /// Everything before a marker's extras is applied, and survives: the log goes on behind them.
    async fn end_changes(&self, applier: &Applier, at: Point) -> Result<()> {
        let flushed = self.or_give_up(applier.flush().await)?;
        if flushed != at {
            return Err(Error::Gap { expected: flushed.to_string(), got: at.to_string() });
        }
        let durable = self.or_give_up(applier.durable().await)?;
        match durable == at {
            true => Ok(()),
            false => Err(Error::Internal(format!("the log is applied up to {at}, and durable up to {durable} only"))),
        }
    }

    /// Forgets what came with an earlier marker, or with this one before a crash.
    async fn forget_marker(&self) -> Result<()> {
        let forget =
            "SET LOCAL synchronous_commit = off; DELETE FROM causeway.catalog; DELETE FROM causeway.large_object";
        self.transact("forget an earlier marker", forget).await
    }

    /// The applier, opened anew after an error; then the log goes on from where the destination is.
    async fn applier(&self) -> Result<Arc<Applier>> {
        if let Some(applier) = self.log.state().applier.clone() {
            return Ok(applier);
        }
        let extras = self.log.state().extras;
        let start = extras.map_or(self.start, |extras| self.start.max(Point::at(extras.lsn)));
        let opened = Applier::open(&self.shared.config, &self.database, self.epoch, start).await;
        let applier = Arc::new(self.checked(opened)?);
        let mut resume = applier.resume_point();
        // Extras are committed only when all before them is durable, and no change is applied before them.
        if let Some(extras) = extras
            && resume <= Point::at(extras.lsn)
        {
            resume = extras;
        }
        let mut state = self.log.state();
        (state.received, state.applier) = (resume, Some(applier.clone()));
        Ok(applier)
    }

    /// After an error the applier is of no use; another one goes on from what is committed.
    fn or_give_up<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            // Closed when the last user drops it.
            self.log.state().applier = None;
        }
        self.checked(result)
    }

    /// Opens the applier, so that what is answered about the log is what is there.
    pub(super) async fn find_position(&self) -> Result<()> {
        if !self.seeded() {
            return Ok(());
        }
        let _turn = self.log.turn.lock().await;
        self.applier().await.map(|_| ())
    }

    /// Makes everything durable that is committed, seed and log.
    pub(super) async fn sync(&self) -> Result<()> {
        let parts = self.snapshot();
        let (applier, received, extras) = {
            let state = self.log.state();
            (state.applier.clone(), state.received, state.extras)
        };
        let ours = applier.is_none() || received.in_extras();
        let durable = match applier {
            Some(applier) => {
                // A commit of ours that waits for the disk takes along what the applier committed.
                let durable = if ours { applier.committed().await } else { applier.durable().await };
                let durable = self.or_give_up(durable)?;
                self.views.touch(applier.touched());
                Some(durable)
            }
            None => None,
        };
        if ours {
            self.flush_to_disk().await?;
        }
        self.survives(parts);
        let mut state = self.log.state();
        let extras = extras.filter(|extras| durable.is_none_or(|durable| durable <= Point::at(extras.lsn)));
        if let Some(durable) = extras.max(durable) {
            state.survived = state.survived.max(durable);
        }
        Ok(())
    }

    /// Applies what was taken; fails with [`Error::Gap`] unless the log stands exactly here.
    pub(super) async fn stand_at(&self, position: Point) -> Result<()> {
        let _turn = self.log.turn.lock().await;
        let applier = self.applier().await?;
        let received = self.log.received();
        if received != position {
            return Err(Error::Gap { expected: received.to_string(), got: position.to_string() });
        }
        self.or_give_up(applier.flush().await)?;
        self.views.touch(applier.touched());
        Ok(())
    }
}
