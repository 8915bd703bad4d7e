//! The end of an attempt's log. Clients wait meanwhile, so each step tells what it costs.

use super::{
    super::{catalog, position::Point, sql::Sql},
    live::Live,
};
use crate::{Error, Result};
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Instant,
};

impl Live {
    /// Makes the replica what the source is at `position`, durably.
    pub(super) async fn prepare_marker(self: &Arc<Self>, position: Point) -> Result<()> {
        if !self.seeded() {
            return Err(Error::Gap { expected: "the rest of the seed".to_owned(), got: position.to_string() });
        }
        let mut steps = Steps::default();
        self.stand_at(position).await?;
        steps.done("apply");
        let warm = self.warm().take().filter(|sql| !sql.is_closed());
        let sql = match warm {
            Some(sql) => sql,
            None => self.sessions.take().await?,
        };
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
            self.warm_behind();
            self.refresh_behind();
        }
        Ok(())
    }

    /// Reads the catalog once behind the log's back, in the session that will compare it at the marker: a server process is
    /// slow the first time only.
    fn warm_behind(self: &Arc<Self>) {
        let live = self.clone();
        let task = tokio::spawn(async move {
            let warmed = async {
                let sql = live.sessions.connect().await?;
                catalog::lines(&sql).await?;
                *live.warm() = Some(sql);
                Ok::<_, Error>(())
            };
            if let Err(error) = warmed.await {
                tracing::debug!(operation = %live.operation, %error, "read the catalog before the marker");
            }
        });
        self.views.behind(task.abort_handle());
    }

    fn warm(&self) -> MutexGuard<'_, Option<Sql>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
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
