//! Lane 0: the plan, the log, and what belongs to a completion.

use super::{
    error::{Error, Result},
    lane::{Lane, Next, misplaced},
};
use engines::source::LogBatch;
use handover::{Position, dest_role::Phase};
use proto::{
    convert::{self, BadField},
    v1::{LogAck, LogRecord, SeedEnd, Settled, dest_frame::Frame as Answer, source_frame::Frame},
};
use std::time::Duration;

/// Acknowledgements wait so long at the most for more log to cover; the source's windows hold far more.
const ACK_EVERY: Duration = Duration::from_millis(50);

/// What lane 0 remembers between two frames.
pub(super) struct Control {
    /// The generation of the plan that this stream began with.
    pub(super) generation: Option<u64>,
    received: Option<Position>,
    durable: Option<Position>,
    transactions: u64,
    bytes: u64,
    /// Since when something waits for an acknowledgement.
    unacked: Option<Duration>,
}

impl Control {
    pub(super) fn new() -> Self {
        Self { generation: None, received: None, durable: None, transactions: 0, bytes: 0, unacked: None }
    }

    /// Takes the lane's frames until it ends. Frames that are there already are taken one after the other; one
    /// acknowledgement is for all of them.
    pub(super) async fn run(mut self, lane: &mut Lane) -> Result<()> {
        loop {
            let next = match lane.ready()? {
                Some(next) => next,
                None => {
                    self.acknowledge(lane).await?;
                    lane.next().await?
                }
            };
            match next {
                Next::Frame(frame) => self.take(lane, frame).await?,
                Next::Synced => self.synced(lane)?,
                Next::End => {
                    // The source may only have closed its half, and wait for the last acknowledgement.
                    if self.received.is_some() {
                        lane.replica.syncer.flush(&*lane.replica.engine).await;
                        self.synced(lane)?;
                        self.acknowledge(lane).await?;
                    }
                    return Ok(());
                }
            }
            if self.unacked.is_some_and(|since| lane.env.monotonic() - since >= ACK_EVERY) {
                if lane.synced.has_changed().unwrap_or(false) {
                    self.synced(lane)?;
                }
                self.acknowledge(lane).await?;
            }
        }
    }

    async fn take(&mut self, lane: &mut Lane, frame: Frame) -> Result<()> {
        match frame {
            Frame::Plan(plan) => self.plan(lane, plan).await,
            Frame::Hello(_) => Err(misplaced(&frame, "this lane has had its Hello")),
            Frame::Chunk(_) | Frame::Digest(_) => Err(misplaced(&frame, "the seed travels on lanes 1 and up")),
            _ if self.generation.is_none() => Err(misplaced(&frame, "the plan comes first")),
            Frame::Log(record) => self.log(lane, record).await,
            Frame::SeedEnd(end) => self.seed_end(lane, end).await,
            Frame::Marker(marker) => self.marker(lane, marker).await,
            Frame::Settle(_) => {
                lane.replica.engine.settle().await?;
                lane.send(Answer::Settled(Settled {})).await
            }
        }
    }

    async fn log(&mut self, lane: &mut Lane, record: LogRecord) -> Result<()> {
        let role = lane.session.view().role;
        match role.phase {
            Phase::Seeding | Phase::Replica => {}
            // What follows a marker belongs to no attempt, until that one is closed.
            Phase::Prepared { .. } | Phase::Primary { .. } | Phase::Discarding | Phase::Discarded => {
                return Err(Error::NotReplicating { phase: role.phase.as_str(), what: "log" });
            }
        }
        let sent = record.payload.len();
        let payload = lane.unpack("a log record", record.payload, record.crc32c, record.uncompressed).await?;
        let to = position("log.to", &record.to)?;
        let batch = LogBatch {
            from: position("log.from", &record.from)?,
            to: to.clone(),
            payload,
            transactions: record.transactions,
            seen_ms: record.seen_unix_ms,
        };
        lane.replica.engine.log(batch).await?;
        lane.replica.syncer.wrote(sent, false);
        lane.session.meter.logged(sent, record.transactions);
        self.received = Some(to);
        self.transactions = self.transactions.saturating_add(record.transactions);
        self.bytes = self.bytes.saturating_add(sent as u64);
        self.waiting(lane);
        Ok(())
    }

    async fn seed_end(&mut self, lane: &mut Lane, end: SeedEnd) -> Result<()> {
        let generation = self.generation.unwrap_or(0);
        if end.generation != generation {
            return Err(Error::WrongGeneration { given: end.generation, held: generation });
        }
        lane.session.load_seed(&lane.replica).await?;
        lane.send(Answer::Seeded(proto::v1::Seeded { generation })).await
    }

    fn synced(&mut self, lane: &mut Lane) -> Result<()> {
        let synced = lane.synced.borrow_and_update().clone()?;
        if synced.log != self.durable {
            self.durable.clone_from(&synced.log);
            self.waiting(lane);
        }
        Ok(())
    }

    fn waiting(&mut self, lane: &Lane) {
        self.unacked.get_or_insert_with(|| lane.env.monotonic());
    }

    /// What is durable when the stream begins.
    pub(super) fn begin(&mut self, lane: &Lane, durable: Option<Position>) {
        self.durable = durable;
        if self.durable.is_some() {
            self.waiting(lane);
        }
    }

    /// The marker's position is applied and durable.
    pub(super) fn reached(&mut self, lane: &Lane, position: &Position) {
        self.received = Some(position.clone());
        self.durable = Some(position.clone());
        self.waiting(lane);
    }

    async fn acknowledge(&mut self, lane: &mut Lane) -> Result<()> {
        if self.unacked.take().is_none() {
            return Ok(());
        }
        let text = |position: &Option<Position>| position.as_ref().map(|p| p.as_str().to_owned()).unwrap_or_default();
        let ack = LogAck {
            received: text(&self.received),
            durable: text(&self.durable),
            transactions: self.transactions,
            bytes: self.bytes,
        };
        lane.send(Answer::LogAck(ack)).await
    }
}

/// Reads a position that has to be given.
pub(super) fn position(field: &str, text: &str) -> Result<Position> {
    if text.is_empty() {
        return Err(BadField { field: field.to_owned(), problem: "a position has to be given".to_owned() }.into());
    }
    Ok(convert::position(field, text)?)
}
