//! The end of an attempt's log. Clients wait meanwhile, so each step tells what it costs.

use super::{
    super::{
        catalog,
        position::Point,
        sql::{Sql, failed},
        steps::Steps,
    },
    live::Live,
};
use crate::{Error, Result};
use std::sync::{Arc, PoisonError};

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
        let armed = self.log.armed();
        let objects = async {
            match armed {
                true => Ok(()),
                false => self.unlink_others(position, &sql).await,
            }
        };
        let (came, unlinked) = tokio::join!(all_rows_came(&sql), objects);
        came?;
        unlinked?;
        if !armed {
            steps.done("large objects");
            self.refresh_touched().await?;
            steps.done("views");
            self.arm(&sql).await?;
            steps.done("triggers");
        }
        self.compare_catalog(position, &sql).await?;
        steps.done("compare");
        self.sessions.give_back(sql);
        let (synced, ours) = tokio::join!(self.sync(), self.shared.store.check());
        synced?;
        ours?;
        let survived = self.log.survived();
        if survived < position {
            return Err(Error::Internal(format!(
                "the log is durable up to {survived} only, not to the marker {position}"
            )));
        }
        steps.done("sync");
        tracing::info!(operation = %self.operation, %position, took_us = %steps, "prepared a marker");
        Ok(())
    }

    /// Called before a fence, while the log waits: what takes long goes on behind it.
    pub(super) async fn settle(self: &Arc<Self>) -> Result<()> {
        if self.seeded() {
            self.refresh_behind();
            self.look_ahead();
            self.connect_ahead();
        }
        Ok(())
    }

    /// Connects for the flip, behind the caller's back.
    fn connect_ahead(&self) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            if let Err(error) = shared.connect_ahead().await {
                tracing::debug!(%error, "connect before the flip");
            }
        });
    }

    /// Reads the definitions here, behind the caller's back.
    fn look_ahead(self: &Arc<Self>) {
        let live = self.clone();
        tokio::spawn(async move {
            let looked = async {
                let sql = live.sessions.take().await?;
                let known = catalog::look_ahead(&sql).await?;
                live.sessions.give_back(sql);
                Ok::<_, Error>(known)
            };
            match looked.await {
                Ok(known) => *live.known.lock().unwrap_or_else(PoisonError::into_inner) = known.map(Arc::new),
                Err(error) => tracing::debug!(%error, "read the definitions before the marker"),
            }
        });
    }
}

/// Fails for a table that lost its rows before they were sent, while the log does not tell how.
async fn all_rows_came(sql: &Sql) -> Result<()> {
    let names = "SELECT string_agg(relation::regclass::text, ', ') FROM causeway.emptied";
    let row = sql.query_typed_one(names, &[]).await;
    let row = row.map_err(|error| failed("look for tables without their rows", &error))?;
    match row.get::<_, Option<&str>>(0) {
        None => Ok(()),
        Some(names) => Err(Error::Corrupt(format!(
            "rows of {names} were gone before they were sent, and the log tells of no TRUNCATE: copy the database anew"
        ))),
    }
}
