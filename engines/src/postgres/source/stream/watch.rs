//! Looking after the slot: how far it is behind, what it retains, whether it still is.

use super::{Gate, Stream};
use crate::{
    Error, Result,
    postgres::{
        position::{Lsn, Point},
        rows::one,
        source::budget,
        sql::literal,
    },
    source::Backlog,
};
use handover::Position;
use std::collections::VecDeque;

/// Moments at which the log's end was looked at. With ten a second at the most it is a while before the oldest are thinned out.
const SAMPLES_MAX: usize = 4096;

/// What ended a stream; it is told again and again.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    Budget { used: u64, budget: u64 },
    GivenUp,
    Ddl(String),
}

impl Ended {
    fn error(&self) -> Error {
        match self {
            Ended::Budget { used, budget } => Error::Budget { used: *used, budget: *budget },
            Ended::GivenUp => Error::Unsupported {
                code: "SLOT_INVALIDATED",
                message: "the server gave the operation's replication slot up to keep its disk from filling, as \
                          max_slot_wal_keep_size tells it"
                    .to_owned(),
                remedy:
                    "raise max_slot_wal_keep_size or keep the outages of agents and destination short, then start again"
                        .to_owned(),
            },
            Ended::Ddl(command) => Error::Unsupported {
                code: "DDL",
                message: format!("a definition was changed while the operation ran: {command}"),
                remedy: "start again when no definitions are changed, or have them refused with --on-ddl block"
                    .to_owned(),
            },
        }
    }
}

/// When the end of the log was where.
#[derive(Default)]
pub(super) struct Samples(VecDeque<(Lsn, i64)>);

impl Samples {
    fn add(&mut self, lsn: Lsn, now_ms: i64) {
        if self.0.back().is_none_or(|(known, _)| *known < lsn) {
            self.0.push_back((lsn, now_ms));
        }
        if self.0.len() > SAMPLES_MAX {
            let mut even = false;
            self.0.retain(|_| {
                even = !even;
                even
            });
        }
    }

    /// When log after a position was first seen.
    fn first_after(&mut self, lsn: Lsn) -> Option<i64> {
        while self.0.front().is_some_and(|(known, _)| *known <= lsn) {
            self.0.pop_front();
        }
        self.0.front().map(|(_, at)| *at)
    }
}

/// The slot as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotState {
    /// The end of the log.
    pub(super) now: Lsn,
    /// Up to where the destination has confirmed; nothing if there is no slot.
    pub(super) confirmed: Option<Lsn>,
    /// Bytes that it retains.
    pub(super) retained: u64,
    /// How many it may.
    pub(super) budget: u64,
    /// The server gave it up to save its disk, as `max_slot_wal_keep_size` told it.
    pub(super) lost: bool,
}

/// Looks at the slot; fails with what ended the stream.
pub(super) async fn look(stream: &Stream) -> Result<SlotState> {
    ended(stream)?;
    observe(stream).await
}

/// Looks at the slot for those who have no use for the log yet. One that is lost is no use to anybody.
pub(super) async fn holding(stream: &Stream) -> Result<SlotState> {
    let slot = observe(stream).await?;
    if slot.lost {
        ended(stream)?;
    }
    Ok(slot)
}

async fn observe(stream: &Stream) -> Result<SlotState> {
    let sql = stream.watch_session().await?;
    let query = format!(
        "SELECT pg_current_wal_lsn(), s.confirmed_flush_lsn, s.wal_status,
                greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint
         FROM (VALUES (1)) one LEFT JOIN pg_replication_slots s ON s.slot_name = {}",
        literal(&stream.names.slot)
    );
    let row = one(&sql, "look at the replication slot", &query).await?;
    let lost = row.maybe(2) == Some("lost");
    let retained = match (lost, row.maybe(3)) {
        (false, Some(_)) => row.parse(3)?,
        _ => 0,
    };
    let budget = budget::cap(&stream.inner, &sql, stream.role.log_budget_bytes, retained).await?;
    let ended = match lost {
        true => Some(Ended::GivenUp),
        false => (retained > budget).then_some(Ended::Budget { used: retained, budget }),
    };
    if let Some(ended) = ended {
        stream.state().ended = Some(ended);
    }
    let confirmed = row.maybe(1).filter(|_| !lost).map(str::parse).transpose()?;
    Ok(SlotState { now: row.text(0).parse()?, confirmed, retained, budget, lost })
}

/// Notes that the transaction of a command was seen in the log.
pub(super) fn ddl(stream: &Stream, command: String) -> Error {
    let ended = Ended::Ddl(command);
    let error = ended.error();
    stream.state().ended = Some(ended);
    error
}

/// Fails with what ended the stream, if something did.
pub(super) fn ended(stream: &Stream) -> Result<()> {
    let state = stream.state();
    state.ended.as_ref().map_or(Ok(()), |ended| Err(ended.error()))
}

pub(super) async fn backlog(stream: &Stream, after: &Position) -> Result<Backlog> {
    let after = Point::read(after)?;
    let slot = look(stream).await?;
    ended(stream)?;
    let now_ms = stream.inner.host.now_ms();
    // A fenced source's log ends where its marker is, whatever the rest of the server writes.
    let end = match *stream.gate.borrow() {
        Gate::Until(lsn) => lsn,
        Gate::Open | Gate::Hold => slot.now,
    };
    // What neighbours write, and what the server writes by itself, is not behind.
    let log = stream.state().log.clone();
    let idle = log.and_then(|log| log.idle_until(after));
    let from = idle.map_or(after.lsn, |seen| seen.max(after.lsn));
    let bytes = end.0.saturating_sub(from.0);
    let mut state = stream.state();
    state.samples.add(slot.now, now_ms);
    let oldest_ms = if bytes == 0 { 0 } else { state.samples.first_after(from).unwrap_or(now_ms) };
    Ok(Backlog { bytes, oldest_ms, retained_bytes: slot.retained, budget_bytes: slot.budget })
}

pub(super) async fn health(stream: &Stream) -> Result<()> {
    match look(stream).await {
        // A server that is away, or a stream that was closed, did not end the operation.
        Err(error) if error.retryable() || matches!(error, Error::Misuse(_)) => {}
        other => drop(other?),
    }
    ended(stream)?;
    let log = stream.state().log.clone();
    match log.map(|log| log.health()) {
        Some(Err(error)) if !error.retryable() && !matches!(error, Error::LogLost(_)) => Err(error),
        _ => Ok(()),
    }
}
