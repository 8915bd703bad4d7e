//! The log: what the slot gives, up to a marker; then what the log does not carry.

use super::{
    super::{ddl, holder},
    Stream, watch,
};
use crate::{
    Error, Result,
    postgres::{
        log::LogReader,
        payload::LogPayload,
        position::{Lsn, Point},
        rows::one,
        source::extras::{Item, Marker},
        types::{CARRIED, OID_BOUND},
    },
    source::LogBatch,
};
use handover::Position;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// While nothing is given the slot is looked at this often, because somebody else's log fills the disk too.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is said for how long the snapshot of the seed has been keeping vacuum from its work.
const SAY_AGE: Duration = Duration::from_secs(60);

/// How far the log may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres::source) enum Gate {
    /// As far as there is some.
    Open,
    /// Not at all: a fence is looking for its position.
    Hold,
    /// Up to the position of the fence.
    Until(Lsn),
}

/// The extras of a marker on their way.
pub(super) struct Extras {
    lsn: Lsn,
    /// The index of the next one.
    next: u64,
    items: mpsc::Receiver<Result<Item>>,
}

impl Extras {
    /// Those of a marker from an index on.
    pub(super) async fn begin(marker: &Marker, index: u64) -> Result<Self> {
        Ok(Self { lsn: marker.lsn, next: index, items: marker.read_from(index).await? })
    }
}

pub(super) async fn log(stream: &Stream, after: &Position, max: usize, until: Option<&Position>) -> Result<LogBatch> {
    let at = Point::read(after)?;
    let until = until.map(Point::read).transpose()?;
    let mut gate = stream.gate.subscribe();
    wait_for_seed(stream).await?;
    loop {
        watch::ended(stream)?;
        stream.still_open()?;
        let limit = *gate.borrow_and_update();
        let marker = marker(stream, limit, until);
        let next = async {
            match (limit, marker) {
                (Gate::Hold, _) => std::future::pending().await,
                (_, Some(marker)) if at >= Point::at(marker.lsn) => extra(stream, &marker, after, at).await,
                (_, Some(marker)) => changes(stream, after, at, max, Some(Point::at(marker.lsn))).await,
                (Gate::Until(lsn), None) => changes(stream, after, at, max, Some(Point::at(lsn))).await,
                (Gate::Open, None) => changes(stream, after, at, max, until).await,
            }
        };
        let mut next = Box::pin(next);
        loop {
            tokio::select! {
                biased;
                _ = gate.changed() => break,
                batch = &mut next => return batch,
                // The others' log fills the disk too while this stream waits.
                () = tokio::time::sleep(LOOK) => look(stream).await?,
            }
        }
    }
}

/// The marker that counts: that of the fence, or the mark up to which the caller wants the log. A caller who wants more has given
/// the mark up.
fn marker(stream: &Stream, limit: Gate, until: Option<Point>) -> Option<Arc<Marker>> {
    let marker = stream.marker()?;
    match (limit, until) {
        (Gate::Until(lsn), _) => Some(marker).filter(|marker| marker.lsn == lsn),
        (_, Some(until)) if until == Point::end(marker.lsn) => Some(marker),
        (_, None) => {
            stream.set_marker(None);
            None
        }
        (_, Some(_)) => None,
    }
}

/// Waits until the seed is at the destination; the slot retains the log meanwhile.
async fn wait_for_seed(stream: &Stream) -> Result<()> {
    let mut seeded = stream.seeded.subscribe();
    let mut said = Instant::now();
    loop {
        let waited = async { seeded.wait_for(|seeded| *seeded).await.is_ok() };
        tokio::select! {
            open = waited => {
                return if open { Ok(()) } else { Err(Error::Internal("the stream is gone".to_owned())) };
            }
            () = tokio::time::sleep(LOOK) => look(stream).await?,
        }
        if said.elapsed() >= SAY_AGE {
            said = Instant::now();
            let sql = stream.watch_session().await?;
            if let Some(transactions) = holder::age(&sql, &stream.names).await? {
                tracing::info!(operation = %stream.role.operation, transactions,
                    "the snapshot of the seed keeps vacuum from what was removed in this many transactions");
            }
        }
    }
}

/// Looks at the slot; a server that is away for a moment is for those who read from it.
async fn look(stream: &Stream) -> Result<()> {
    match watch::look(stream).await {
        Err(error) if error.retryable() => {}
        other => drop(other?),
    }
    watch::ended(stream)
}

/// The next changes from the slot.
async fn changes(stream: &Stream, after: &Position, at: Point, max: usize, until: Option<Point>) -> Result<LogBatch> {
    // After an attempt that came to nothing the log goes on behind its marker.
    let from = if at.in_extras() { Point::at(at.lsn) } else { at };
    let log = reader(stream, from.lsn).await?;
    let batch = match log.batch(from, max, until).await {
        Err(Error::LogLost(why)) => {
            look(stream).await?;
            return Err(Error::LogLost(why));
        }
        other => other?,
    };
    if let Some(marker) = batch.markers.iter().find(|marker| marker.prefix == ddl::MESSAGE) {
        return Err(watch::ddl(stream, String::from_utf8_lossy(&marker.content).into_owned()));
    }
    Ok(LogBatch {
        from: after.clone(),
        to: batch.to.position(),
        payload: batch.payload,
        transactions: batch.transactions,
        seen_ms: batch.seen_ms,
    })
}

/// The reader of the slot, started if need be.
pub(in crate::postgres::source) async fn reader(stream: &Stream, from: Lsn) -> Result<Arc<LogReader>> {
    let known = stream.state().log.clone();
    if let Some(log) = known {
        return Ok(log);
    }
    let sql = stream.session().await?;
    let _alone = stream.making.lock().await;
    stream.still_open()?;
    let known = stream.state().log.clone();
    if let Some(log) = known {
        return Ok(log);
    }
    let query = format!(
        "{OID_BOUND} SELECT NOT EXISTS (SELECT FROM pg_attribute a JOIN oid_bound b ON b.oid = a.atttypid
             JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE a.attnum > 0 AND NOT a.attisdropped AND {CARRIED} AND c.relpersistence = 'p')"
    );
    let binary = one(&sql, "look for types that travel as text", &query).await?.flag(0);
    let (config, slot) = (&stream.inner.config, &stream.names.slot);
    let log = Arc::new(LogReader::start(config, stream.database(), slot, slot, from, binary).await?);
    stream.state().log = Some(log.clone());
    Ok(log)
}

pub(super) fn confirm(stream: &Stream, durable: &Position) -> Result<()> {
    let point = Point::read(durable)?;
    let log = stream.state().log.clone();
    if let Some(log) = log {
        log.confirm(point.lsn);
    }
    Ok(())
}

/// The next of what the log does not carry; behind the last there is nothing, until the marker is given up.
async fn extra(stream: &Stream, marker: &Arc<Marker>, after: &Position, at: Point) -> Result<LogBatch> {
    if at == Point::end(marker.lsn) {
        std::future::pending::<()>().await;
    }
    let index = if at.in_extras() { at.index - Point::EXTRAS } else { 0 };
    let mut extras = stream.extras.lock().await;
    // Those on their way may be of another marker, or the destination may have lost some.
    if !extras.as_ref().is_some_and(|extras| extras.lsn == marker.lsn && extras.next == index) {
        *extras = Some(Extras::begin(marker, index).await?);
    }
    let Some(on_their_way) = extras.as_mut() else {
        return Err(Error::Internal("extras that are not there".to_owned()));
    };
    let gone = || Error::Database {
        what: "read what the log does not carry".to_owned(),
        message: "the session that reads it is gone".to_owned(),
        transient: true,
    };
    let item = match on_their_way.items.recv().await.unwrap_or_else(|| Err(gone())) {
        Ok(item) => item,
        Err(error) => {
            *extras = None;
            // Behind a fence nothing changes, so it can be read again. What a mark's snapshot showed is gone with its session.
            return match (*stream.gate.borrow(), error) {
                (Gate::Open, error) if error.retryable() => Err(Error::PointLost(error.to_string())),
                (_, error) => Err(error),
            };
        }
    };
    on_their_way.next += 1;
    let to = match item.last {
        true => Point::end(marker.lsn),
        false => Point { lsn: marker.lsn, index: Point::EXTRAS + index + 1 },
    };
    Ok(LogBatch {
        from: after.clone(),
        to: to.position(),
        payload: LogPayload::extra(&item.extra, &item.raw)?,
        transactions: 0,
        seen_ms: stream.inner.host.now_ms(),
    })
}
