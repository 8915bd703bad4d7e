//! The reading half of one operation: the seed by parts, the log in order, and where an attempt ends.
//!
//! Opening touches nothing: a fenced database cannot be connected to, and the role may have to be settled first.

mod log;
mod plan;
mod watch;

pub(super) use log::{Gate, reader as log_reader};

use super::{
    Inner,
    extras::Marker,
    holder,
    memo::Memo,
    names::Names,
    seed::{reader, reader::Reader, schema},
};
use crate::{
    Error, Result,
    postgres::{catalog, log::LogReader, sql::Sql, wire::Wire},
    source::{Backlog, Chunk, Held, LogBatch, Plan, SourceStream},
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{Position, source_role::SourceRole};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use watch::{Ended, Samples};

/// Sessions that are kept for the next part; more than there are lanes are of no use.
const IDLE_MAX: usize = 8;

/// A look at the definitions before a fence may take so long.
const LOOK_AHEAD_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Stream {
    pub(super) inner: Arc<Inner>,
    pub(super) role: SourceRole,
    pub(super) names: Names,
    state: Mutex<State>,
    /// Whether the seed of the plan in force is at the destination: the log follows then.
    seeded: tokio::sync::watch::Sender<bool>,
    /// How far the log may go.
    pub(super) gate: tokio::sync::watch::Sender<Gate>,
    /// Only one call makes a session or starts the log at a time.
    making: tokio::sync::Mutex<()>,
    /// The extras of a marker that are on their way.
    extras: tokio::sync::Mutex<Option<log::Extras>>,
}

#[derive(Default)]
struct State {
    memo: Option<Arc<Memo>>,
    schema: Option<Bytes>,
    readers: HashMap<u32, Reader>,
    idle: Vec<Wire>,
    /// With the database.
    sql: Option<Arc<Sql>>,
    /// With the maintenance database, which is there whatever becomes of the other.
    watch: Option<Arc<Sql>>,
    log: Option<Arc<LogReader>>,
    marker: Option<Arc<Marker>>,
    /// The definitions as they were when a fence was announced.
    known: Option<Arc<catalog::Known>>,
    ended: Option<Ended>,
    samples: Samples,
    closed: bool,
    /// The seed cannot be read to its end in the held snapshot.
    stale: bool,
}

impl Stream {
    pub(super) fn new(inner: Arc<Inner>, role: SourceRole) -> Self {
        Self {
            names: Names::of(&role.operation),
            inner,
            role,
            state: Mutex::default(),
            seeded: tokio::sync::watch::Sender::new(false),
            gate: tokio::sync::watch::Sender::new(Gate::Open),
            making: tokio::sync::Mutex::default(),
            extras: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database's name.
    pub(super) fn database(&self) -> &str {
        self.role.database.as_str()
    }

    /// The session with the database, made if need be.
    pub(super) async fn session(&self) -> Result<Arc<Sql>> {
        let _alone = self.making.lock().await;
        self.still_open()?;
        let known = self.state().sql.clone();
        if let Some(sql) = known.filter(|sql| !sql.is_closed()) {
            return Ok(sql);
        }
        let sql = Arc::new(self.inner.sql(self.database(), "source stream").await?);
        self.state().sql = Some(sql.clone());
        Ok(sql)
    }

    /// The session with the maintenance database, made if need be.
    async fn watch_session(&self) -> Result<Arc<Sql>> {
        let _alone = self.making.lock().await;
        self.still_open()?;
        let known = self.state().watch.clone();
        if let Some(sql) = known.filter(|sql| !sql.is_closed()) {
            return Ok(sql);
        }
        let sql = Arc::new(self.inner.maintenance("source watch").await?);
        self.state().watch = Some(sql.clone());
        Ok(sql)
    }

    fn still_open(&self) -> Result<()> {
        match self.state().closed {
            false => Ok(()),
            true => Err(Error::Misuse("the stream was closed".to_owned())),
        }
    }

    fn memo(&self) -> Result<Arc<Memo>> {
        self.state().memo.clone().ok_or_else(|| Error::Misuse("the seed was not planned yet".to_owned()))
    }

    /// The marker that was taken last, until it is given up.
    pub(super) fn set_marker(&self, marker: Option<Arc<Marker>>) {
        self.state().marker = marker;
    }

    /// Begins to read what belongs to a marker before it is asked for.
    pub(super) async fn read_ahead(&self, marker: &Marker) -> Result<()> {
        *self.extras.lock().await = Some(log::Extras::begin(marker, 0).await?);
        Ok(())
    }

    /// The definitions as they were before the fence, if there was time to look.
    pub(super) fn known(&self) -> Option<Arc<catalog::Known>> {
        self.state().known.clone()
    }

    fn marker(&self) -> Option<Arc<Marker>> {
        self.state().marker.clone()
    }

    /// Lets go of the sessions that read the seed.
    fn forget_readers(&self) {
        let mut state = self.state();
        let gone = (std::mem::take(&mut state.readers), std::mem::take(&mut state.idle), state.schema.take());
        drop(state);
        drop(gone);
    }

    async fn schema(&self) -> Result<Bytes> {
        let known = self.state().schema.clone();
        if let Some(schema) = known {
            return Ok(schema);
        }
        let memo = self.memo()?;
        let slot = memo.slot.as_ref().ok_or_else(|| Error::LogLost("there is no slot".to_owned()))?;
        let sql = self.inner.sql(self.database(), "source schema").await?;
        holder::import(&sql, slot).await?;
        let schema = schema::read(&self.inner.config, &sql, self.database(), &self.names, &memo).await?;
        self.state().schema = Some(schema.clone());
        Ok(schema)
    }

    async fn schema_chunk(&self, offset: u64, max: usize) -> Result<Chunk> {
        let schema = self.schema().await?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(schema.len());
        let end = from.saturating_add(max.max(1)).min(schema.len());
        let last = end == schema.len();
        Ok(Chunk { payload: schema.slice(from..end), next_offset: end as u64, last, rows: 0 })
    }

    /// The reader of a part that stands at an offset: the one at hand, or a new one.
    async fn reader(&self, part: u32, offset: u64) -> Result<Reader> {
        let (at_hand, idle) = {
            let mut state = self.state();
            let at_hand = state.readers.remove(&part).filter(|reader| reader.offset() == offset);
            let idle = if at_hand.is_none() { state.idle.pop() } else { None };
            (at_hand, idle)
        };
        if let Some(reader) = at_hand {
            return Ok(reader);
        }
        let memo = self.memo()?;
        let (Some(slot), Some(plan)) = (&memo.slot, &memo.plan) else {
            return Err(Error::LogLost("the seed has no plan".to_owned()));
        };
        let wire = match idle {
            Some(mut wire) => {
                reader::enter(&mut wire, slot).await?;
                wire
            }
            None => reader::connect(&self.inner.config, self.database(), slot).await?,
        };
        Reader::open(wire, plan, part, offset).await
    }
}

#[async_trait]
impl SourceStream for Stream {
    async fn plan(&self, held: &Held) -> Result<Plan> {
        plan::plan(self, held).await
    }

    fn in_order(&self) -> bool {
        !self.inner.config.setup().split_tables
    }

    async fn chunk(&self, part: u32, offset: u64, max: usize, _digest: Option<Bytes>) -> Result<Chunk> {
        self.still_open()?;
        if part == 0 {
            return self.schema_chunk(offset, max).await;
        }
        let reader = self.reader(part, offset).await;
        // The next plan has to be another one.
        self.state().stale |= matches!(reader, Err(Error::LogLost(_)));
        let mut reader = reader?;
        let chunk = reader.next(max).await?;
        if !chunk.last {
            self.state().readers.insert(part, reader);
            return Ok(chunk);
        }
        let wire = reader.finish().await?;
        let mut state = self.state();
        if state.idle.len() < IDLE_MAX {
            state.idle.push(wire);
        }
        Ok(chunk)
    }

    async fn seed_done(&self) -> Result<()> {
        plan::seed_done(self).await
    }

    async fn log(&self, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch> {
        log::log(self, after, max, until).await
    }

    async fn confirm(&self, durable: &Position) -> Result<()> {
        log::confirm(self, durable)
    }

    async fn backlog(&self, after: &Position) -> Result<Backlog> {
        watch::backlog(self, after).await
    }

    async fn health(&self) -> Result<()> {
        watch::health(self).await
    }

    async fn settle(&self) -> Result<()> {
        // What a fence needs is connected before, so that it does not take its time from the clients.
        if !*self.seeded.borrow() {
            return Ok(());
        }
        let sql = self.session().await?;
        let known = tokio::time::timeout(LOOK_AHEAD_MAX, catalog::look_ahead(&sql)).await;
        self.state().known = known.ok().and_then(Result::ok).flatten().map(Arc::new);
        Ok(())
    }

    async fn close(&self) {
        let log = {
            let mut state = self.state();
            state.closed = true;
            state.log.take()
        };
        if let Some(log) = log {
            log.stop().await;
        }
        *self.extras.lock().await = None;
        let rest = {
            let mut state = self.state();
            State { closed: true, ..std::mem::take(&mut *state) }
        };
        self.state().closed = true;
        drop(rest);
        self.gate.send_replace(Gate::Open);
    }
}
