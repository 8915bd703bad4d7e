//! Gives each change to the worker whose share its key is in, and holds everybody up where order matters between shares.

use super::{
    Shared,
    net::{self, Act, Images, Item},
    script,
    table::{Key, Table},
    worker::{Barrier, Changes, Job, Payload, Tables},
};
use crate::{
    Error, Result,
    postgres::{
        SCHEMA,
        log::pgoutput::{self, Change, Message, Relation},
        position::Point,
        wire::Wire,
    },
};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::sync::{Arc, atomic::Ordering};
use tokio::sync::{mpsc, oneshot};

/// What callers want.
pub(super) enum Order {
    Apply {
        from: Point,
        to: Point,
        payload: Payload,
    },
    /// Answers, by `dones`, when everything so far is committed; and at once up to where that is.
    Sync {
        lift: bool,
        at: oneshot::Sender<Point>,
        dones: Vec<oneshot::Sender<()>>,
    },
}

/// The end of a worker's queue, and what it had done when it started.
pub(super) struct Share {
    pub(super) jobs: mpsc::UnboundedSender<Job>,
    pub(super) checkpoint: Point,
}

/// The router.
pub(super) struct Router {
    pub(super) wire: Wire,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) shared: Arc<Shared>,
    pub(super) shares: Vec<Share>,
    /// Everything up to here was given to workers.
    pub(super) at: Point,
    pub(super) tables: Tables,
    /// Relations of the source by number: the message that described it, and its table; none if it is not applied.
    pub(super) relations: FxHashMap<u32, (Bytes, Option<u32>)>,
}

/// A payload being read.
struct Reading {
    payload: Arc<Payload>,
    items: Vec<Vec<Item>>,
    /// The open transaction, after so many of its changes.
    inside: Option<Point>,
    images: Images,
}

impl Router {
    /// Works until there is nothing more to come, or until something fails.
    pub(super) async fn run(mut self) {
        while let Some(order) = self.orders.recv().await {
            let done = match order {
                Order::Apply { from, to, payload } => self.route(from, to, payload).await,
                Order::Sync { lift, at, dones } => {
                    for (share, done) in self.shares.iter().zip(dones) {
                        let _ = share.jobs.send(Job::Sync { to: self.at, lift, done });
                    }
                    let _ = at.send(self.at);
                    Ok(())
                }
            };
            if let Err(error) = done {
                return self.shared.fail(error);
            }
        }
    }

    async fn route(&mut self, from: Point, to: Point, payload: Payload) -> Result<()> {
        let from = if from.in_extras() { Point::at(from.lsn) } else { from };
        if from > self.at {
            return Err(Error::Gap { expected: self.at.to_string(), got: from.to_string() });
        }
        if to <= self.at {
            return Ok(());
        }
        let inside = (from.index > 0).then_some(from);
        let items = self.shares.iter().map(|_| Vec::new()).collect();
        let mut reading = Reading { payload: Arc::new(payload), items, inside, images: Images::default() };
        let bytes = reading.payload.bytes.clone();
        let mut at = 0;
        while at < bytes.len() {
            let cut = || Error::Corrupt("a log message is cut off".to_owned());
            let len = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
            let start = at + 4;
            at = start + u32::from_be_bytes(*len) as usize;
            let message = bytes.get(start..at).ok_or_else(cut)?;
            let start = u32::try_from(start).map_err(|_| cut())?;
            match pgoutput::read(message)? {
                Message::Begin { commit } => reading.inside = Some(pgoutput::inside(commit)),
                Message::Commit { .. } => reading.inside = None,
                Message::Relation { id, body } => self.describe(&mut reading, id, body).await?,
                Message::Row { change, relation } => {
                    let point = reading.step()?;
                    if point > self.at
                        && let Some(table) = self.table(relation)?
                        && let Some(barrier) = self.row(&mut reading, &bytes, point, table, change, start)?
                    {
                        self.barrier(&mut reading, point, barrier).await?;
                    }
                }
                Message::Truncate { relations, cascade, restart_identity } => {
                    let point = reading.step()?;
                    if point > self.at {
                        self.truncate(&mut reading, point, relations, cascade, restart_identity).await?;
                    }
                }
                Message::Logical { .. } => drop(reading.step()?),
                Message::Other => {}
            }
        }
        self.hand_out(&mut reading, to);
        self.at = to;
        Ok(())
    }

    /// Learns what a relation looks like. Every payload says it again, so mostly this is known.
    async fn describe(&mut self, reading: &mut Reading, id: u32, body: &[u8]) -> Result<()> {
        if let Some((known, table)) = self.relations.get(&id)
            && known == body
        {
            if let Some(table) = table {
                self.shared.touch(&self.tables[*table as usize]);
            }
            return Ok(());
        }
        let relation = Relation::read(body)?;
        if relation.schema == SCHEMA {
            self.relations.insert(id, (Bytes::copy_from_slice(body), None));
            return Ok(());
        }
        // What was read before it was meant for the table as it was.
        let before = reading.inside.unwrap_or(self.at);
        self.settle(reading, before).await?;
        let table = Arc::new(Table::load(&mut self.wire, &relation).await?);
        self.shared.touch(&table);
        let mut tables = self.tables.to_vec();
        tables.push(table);
        let place = u32::try_from(tables.len() - 1).unwrap_or(u32::MAX);
        self.tables = Arc::new(tables);
        self.relations.insert(id, (Bytes::copy_from_slice(body), Some(place)));
        Ok(())
    }

    fn table(&self, relation: u32) -> Result<Option<u32>> {
        let unknown = || Error::Corrupt("a change of a relation that was not described".to_owned());
        self.relations.get(&relation).map(|(_, table)| *table).ok_or_else(unknown)
    }

    /// Finds the shares of a row's change. Answers it if it has to be applied alone.
    fn row(
        &self,
        reading: &mut Reading,
        bytes: &Bytes,
        point: Point,
        place: u32,
        change: Change,
        at: u32,
    ) -> Result<Option<Barrier>> {
        let table = &self.tables[place as usize];
        reading.images.read(table, bytes, at, change, 0)?;
        let Images { old, new, .. } = &reading.images;
        let needs_old = matches!(table.key, Key::Whole { .. }) && change != Change::Insert;
        if !reading.images.whole && (needs_old || change == Change::Delete && old.is_empty()) {
            let Table { schema, name, .. } = &**table;
            return Err(Error::Corrupt(format!("the log of {schema}.{name} does not tell which row changed")));
        }
        let (one, two) = match change {
            Change::Insert => (Some((Act::Insert, net::hash(table, new, bytes))), None),
            Change::Delete => (Some((Act::Delete, net::hash(table, old, bytes))), None),
            Change::Update if old.is_empty() => (Some((Act::Update, net::hash(table, new, bytes))), None),
            Change::Update => {
                let (before, after) = (net::hash(table, old, bytes), net::hash(table, new, bytes));
                let same = net::same_key(table, old, new, bytes);
                if same && table.key_columns().is_some() {
                    (Some((Act::Update, after)), None)
                } else if same {
                    // The row is the same as before, and there may be several of them.
                    (None, None)
                } else if script::is_partial(new) {
                    return Ok(Some(Barrier::Move { payload: reading.payload.clone(), table: table.clone(), at }));
                } else {
                    (Some((Act::Leave, before)), Some((Act::Arrive, after)))
                }
            }
        };
        let shares = self.shares.len();
        for (act, hash) in [one, two].into_iter().flatten() {
            let share = (if table.serial { table.home } else { hash >> 32 }) as usize % shares;
            if point > self.shares[share].checkpoint {
                reading.items[share].push(Item { table: place, at, act, hash });
            }
        }
        Ok(None)
    }

    async fn truncate(
        &mut self,
        reading: &mut Reading,
        point: Point,
        relations: &[[u8; 4]],
        cascade: bool,
        restart_identity: bool,
    ) -> Result<()> {
        let mut names = Vec::new();
        let mut emptied = Vec::new();
        for id in relations {
            if let Some(table) = self.table(u32::from_be_bytes(*id))? {
                let table = &self.tables[table as usize];
                names.push(format!("ONLY {}", table.quoted()));
                emptied.extend(table.may_lack_rows().then(|| table.clone()));
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        let restart = if restart_identity { " RESTART IDENTITY" } else { "" };
        let cascade = if cascade { " CASCADE" } else { "" };
        let sql = format!("TRUNCATE {}{restart}{cascade}", names.join(", "));
        self.barrier(reading, point, Barrier::Truncate { sql, emptied: emptied.clone() }).await?;
        emptied.iter().for_each(|table| table.emptied.store(false, Ordering::Relaxed));
        Ok(())
    }

    /// Applies something alone, unless it was before the last crash.
    async fn barrier(&mut self, reading: &mut Reading, to: Point, barrier: Barrier) -> Result<()> {
        // All checkpoints are moved by a barrier, so they are all before it or all behind it.
        if self.shares.iter().all(|share| share.checkpoint >= to) {
            return Ok(());
        }
        let before = Point { index: to.index - 1, ..to };
        self.settle(reading, before).await?;
        let (done, wait) = oneshot::channel();
        let workers = self.shares.len() as u64;
        let _ = self.shares[0].jobs.send(Job::Barrier { barrier, to, workers, done });
        wait.await.map_err(|_| self.shared.error())
    }

    /// Waits until everything read so far, which is up to `to`, is committed.
    async fn settle(&mut self, reading: &mut Reading, to: Point) -> Result<()> {
        self.hand_out(reading, to);
        let mut waits = Vec::new();
        for share in &self.shares {
            let (done, wait) = oneshot::channel();
            let _ = share.jobs.send(Job::Sync { to: self.at, lift: false, done });
            waits.push(wait);
        }
        for wait in waits {
            wait.await.map_err(|_| self.shared.error())?;
        }
        Ok(())
    }

    fn hand_out(&mut self, reading: &mut Reading, to: Point) {
        for (share, items) in self.shares.iter().zip(&mut reading.items) {
            if !items.is_empty() {
                let (payload, tables) = (reading.payload.clone(), self.tables.clone());
                // It may be gone: the error is known to everybody then.
                let _ = share.jobs.send(Job::Changes(Changes { payload, tables, items: std::mem::take(items), to }));
            }
        }
    }
}

impl Reading {
    /// The point behind the next change.
    fn step(&mut self) -> Result<Point> {
        let inside = self.inside.as_mut();
        let inside = inside.ok_or_else(|| Error::Corrupt("a change outside of any transaction".to_owned()))?;
        inside.index += 1;
        Ok(*inside)
    }
}
