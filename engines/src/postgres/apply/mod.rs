//! Applies the log of a source to a replica: what many changes come to, by several connections side by side.
//!
//! A row belongs to the share of one worker, by the hash of its key; each worker applies its share in the order of the log, and
//! moves its checkpoint in the same transaction. After a crash the log is sent again from the oldest checkpoint, and every
//! worker passes over what it has: everything is applied once.

pub(crate) mod helpers;
mod net;
mod rope;
mod router;
mod script;
mod session;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod worker;

use super::{
    config::PostgresConfig,
    position::{Lsn, Point},
    wire::Wire,
};
use crate::{Error, Result};
use bytes::Bytes;
use handover::Epoch;
use router::{Order, Router, Share};
use rustc_hash::FxHashMap;
use session::Session;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};
use table::Table;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use worker::{Payload, Worker};

const WHAT: &str = "open the apply";

/// Log that is queued or being applied: enough for a transaction of 8 MiB in each of four workers.
const QUEUED_BYTES_MAX: u32 = 32 << 20;

/// The applier of one replica. Dropping it ends its sessions; what they did not commit is not applied.
pub(crate) struct Applier {
    shared: Arc<Shared>,
    config: PostgresConfig,
    database: String,
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
    workers: usize,
    resume: Point,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// A session whose commits wait for the disk.
    flusher: Mutex<Option<Wire>>,
}

/// What all parts of an applier share.
struct Shared {
    room: Arc<Semaphore>,
    failed: Mutex<Option<Error>>,
    touched: Mutex<HashSet<(String, String)>>,
}

impl Shared {
    /// Records why nothing more is applied, unless that is known.
    fn fail(&self, error: Error) {
        tracing::debug!(%error, "the apply ended");
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        // Whoever waits for room waits in vain.
        self.room.close();
    }

    fn check(&self) -> Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map_or(Ok(()), |error| Err(error.repeat()))
    }

    fn error(&self) -> Error {
        self.check().err().unwrap_or_else(|| Error::Misuse("the apply was closed".to_owned()))
    }

    fn touch(&self, table: &Table) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.insert((table.schema.clone(), table.name.clone()));
    }
}

impl Applier {
    /// Connects to a replica. `start` is where the log begins, if nothing was applied yet. From here on an applier of an older
    /// epoch changes nothing; one of a newer epoch is [`Error::Superseded`].
    pub(crate) async fn open(config: &PostgresConfig, database: &str, epoch: Epoch, start: Point) -> Result<Self> {
        let mut wire = Wire::connect(config, database, "dest apply", false).await?;
        // Not even `IF NOT EXISTS` where they exist: after a marker the user's event triggers may fire for it.
        let missing = wire.query(WHAT, "SELECT 1 WHERE to_regclass('causeway.checkpoint') IS NULL").await?;
        if !missing.is_empty() {
            wire.query(WHAT, &format!("{}; {}", helpers::CHECKPOINTS, helpers::EMPTIED)).await?;
        }
        let start = if start.in_extras() { Point::at(start.lsn) } else { start };
        let checkpoints = take_over(&mut wire, epoch, start, config.apply_connections()).await?;
        let resume = checkpoints.iter().min().copied().unwrap_or(start);
        let shared = Arc::new(Shared {
            room: Arc::new(Semaphore::new(QUEUED_BYTES_MAX as usize)),
            failed: Mutex::new(None),
            touched: Mutex::new(HashSet::new()),
        });
        let (orders, receiver) = mpsc::unbounded_channel();
        let (mut shares, mut workers) = (Vec::new(), Vec::new());
        for (number, checkpoint) in checkpoints.into_iter().enumerate() {
            let session = Session::connect(config, database, number, epoch).await?;
            let (jobs, queue) = mpsc::unbounded_channel();
            shares.push(Share { jobs, checkpoint });
            let worker =
                Worker { number, session, jobs: queue, shared: shared.clone(), next: None, open: false, asked: None };
            workers.push(worker);
        }
        let router = Router {
            wire,
            orders: receiver,
            shared: shared.clone(),
            shares,
            at: resume,
            tables: Arc::new(Vec::new()),
            relations: FxHashMap::default(),
        };
        let count = workers.len();
        let mut tasks: Vec<_> = workers.into_iter().map(|worker| tokio::spawn(worker.run())).collect();
        tasks.push(tokio::spawn(router.run()));
        Ok(Self {
            shared,
            config: config.clone(),
            database: database.to_owned(),
            orders: Mutex::new(Some(orders)),
            workers: count,
            resume,
            tasks: Mutex::new(tasks),
            flusher: Mutex::new(None),
        })
    }

    /// Where the log has to go on after what was applied before this applier was opened.
    pub(crate) fn resume_point(&self) -> Point {
        self.resume
    }

    /// Queues a piece of the log (the content of a payload of changes). It waits for room when much is queued. What is held is
    /// passed over. The first error of any piece is the answer to all calls from then on.
    pub(crate) async fn apply(&self, from: Point, to: Point, changes: Bytes) -> Result<()> {
        self.shared.check()?;
        // One piece that is larger than all the room gets all of it.
        let bytes = u32::try_from(changes.len()).unwrap_or(u32::MAX).clamp(1, QUEUED_BYTES_MAX);
        let permit = self.shared.room.clone().acquire_many_owned(bytes).await;
        let permit = permit.map_err(|_| self.shared.error())?;
        self.order(Order::Apply { from, to, payload: Payload { bytes: changes, _permit: permit } })
    }

    /// Waits until everything queued is committed; answers up to where that is.
    pub(crate) async fn flush(&self) -> Result<Point> {
        self.sync(false).await
    }

    /// Waits until everything queued is committed, and raises what is remembered of it; answers the point from which the log
    /// has to be sent again after any crash, once a later commit of this server has waited for the disk.
    pub(crate) async fn committed(&self) -> Result<Point> {
        self.sync(true).await
    }

    /// Makes everything queued so far durable; answers the point from which the log has to be sent again after any crash.
    pub(crate) async fn durable(&self) -> Result<Point> {
        let point = self.committed().await?;
        // One commit that waits for the disk takes all that were before it in the log of this server along.
        let wire = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut wire = match wire {
            Some(wire) => wire,
            None => Wire::connect(&self.config, &self.database, "dest apply flush", false).await?,
        };
        wire.query("make the replica durable", "SELECT pg_logical_emit_message(true, 'causeway', '')").await?;
        *self.flusher.lock().unwrap_or_else(PoisonError::into_inner) = Some(wire);
        Ok(point)
    }

    /// The tables that changed since this was asked last, as (schema, name).
    pub(crate) fn touched(&self) -> HashSet<(String, String)> {
        std::mem::take(&mut *self.shared.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the sessions after what is queued; what failed is known to the calls before.
    pub(crate) async fn close(&self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks.into_iter().rev() {
            let _ = task.await;
        }
    }

    async fn sync(&self, lift: bool) -> Result<Point> {
        self.shared.check()?;
        let (dones, waits): (Vec<_>, Vec<_>) = (0..self.workers).map(|_| oneshot::channel()).unzip();
        let (at, point) = oneshot::channel();
        self.order(Order::Sync { lift, at, dones })?;
        let point = point.await.map_err(|_| self.shared.error())?;
        for wait in waits {
            wait.await.map_err(|_| self.shared.error())?;
        }
        Ok(point)
    }

    fn order(&self, order: Order) -> Result<()> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if sent { Ok(()) } else { Err(self.shared.error()) }
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// Takes the checkpoints over and reads them; makes them if there are none.
async fn take_over(wire: &mut Wire, epoch: Epoch, start: Point, workers: usize) -> Result<Vec<Point>> {
    let newest = wire.query(WHAT, "SELECT coalesce(max(epoch), 0) FROM causeway.checkpoint").await?;
    let newest: u64 = newest.first().and_then(|row| row[0].as_deref()?.parse().ok()).unwrap_or(0);
    if newest > epoch.0 {
        return Err(Error::Superseded { ours: epoch.0, newer: newest });
    }
    // A session of an agent that was stopped in the middle holds its checkpoint's lock.
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                  AND application_name ~ '^causeway dest apply' AND pid <> pg_backend_pid()";
    wire.query(WHAT, others).await?;
    wire.query(WHAT, &format!("UPDATE causeway.checkpoint SET epoch = {0} WHERE epoch <= {0}", epoch.0)).await?;
    let query = "SELECT lsn, index, epoch FROM causeway.checkpoint ORDER BY worker";
    let mut points = Vec::new();
    for row in wire.query(WHAT, query).await? {
        let [Some(lsn), Some(index), Some(found)] = row.as_slice() else {
            return Err(Error::Corrupt("a checkpoint of the apply cannot be read".to_owned()));
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| Error::Corrupt(format!("{text:?} in a checkpoint")));
        let (lsn, index, found): (Lsn, _, _) = (lsn.parse()?, number(index)?, number(found)?);
        if found != epoch.0 {
            return Err(Error::Superseded { ours: epoch.0, newer: found });
        }
        points.push(Point { lsn, index });
    }
    // The shares may be cut anew only where all of them stand at the same place.
    let level = points.windows(2).all(|pair| pair[0] == pair[1]);
    if level && points.len() != workers {
        let start = points.first().copied().unwrap_or(start);
        let make = format!(
            "BEGIN; DELETE FROM causeway.checkpoint; INSERT INTO causeway.checkpoint \
             SELECT n, '{}', {}, {} FROM generate_series(0, {}) n; COMMIT",
            start.lsn,
            start.index,
            epoch.0,
            workers.saturating_sub(1)
        );
        wire.query(WHAT, &make).await?;
        points = vec![start; workers];
    }
    Ok(points)
}
