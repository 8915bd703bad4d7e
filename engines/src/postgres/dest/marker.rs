//! The end of an attempt's log. Clients wait meanwhile, so each step tells what it costs.

use super::{super::position::Point, live::Live};
use crate::{Error, Result};
use std::{sync::Arc, time::Instant};

impl Live {
    /// Makes the replica what the source is at `position`, durably.
    pub(super) async fn prepare_marker(self: &Arc<Self>, position: Point) -> Result<()> {
        if !self.seeded() {
            return Err(Error::Gap { expected: "the rest of the seed".to_owned(), got: position.to_string() });
        }
        let mut steps = Steps::default();
        self.stand_at(position).await?;
        steps.done("apply");
        let sql = self.sessions.take().await?;
        self.end_behind(&sql).await?;
        // Once armed, nothing has changed since the replica was prepared here: log would have disarmed it.
        if !self.log.armed() {
            self.unlink_others(position, &sql).await?;
            steps.done("large objects");
            self.refresh_touched().await?;
            steps.done("views");
            self.arm(&sql).await?;
            steps.done("triggers");
        }
        self.compare_catalog(position, &sql).await?;
        steps.done("compare");
        self.sessions.give_back(sql);
        self.sync().await?;
        let survived = self.log.survived();
        if survived < position {
            return Err(Error::Internal(format!(
                "the log is durable up to {survived} only, not to the marker {position}"
            )));
        }
        self.shared.store.check().await?;
        steps.done("sync");
        tracing::info!(operation = %self.operation, %position, took_us = %steps, "prepared a marker");
        Ok(())
    }

    /// Called before a fence, while the log waits: what takes long goes on behind it.
    pub(super) async fn settle(self: &Arc<Self>) -> Result<()> {
        if self.seeded() {
            self.refresh_behind();
        }
        Ok(())
    }
}

/// What each step took, in microseconds.
struct Steps {
    since: Instant,
    took: Vec<(&'static str, u128)>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { since: Instant::now(), took: vec![] }
    }
}

impl Steps {
    fn done(&mut self, step: &'static str) {
        self.took.push((step, self.since.elapsed().as_micros()));
        self.since = Instant::now();
    }
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (step, took) in &self.took {
            write!(f, "{step} {took} ")?;
        }
        Ok(())
    }
}
