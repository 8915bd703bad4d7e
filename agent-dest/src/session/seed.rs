//! Lanes 1 and up: chunks of the seed, and digests where data are only compared.

use super::{
    error::{Error, Result},
    lane::{Lane, Next, misplaced},
};
use handover::dest_role::Phase;
use proto::v1::{Digest, DigestRequest, SeedAck, SeedChunk, dest_frame::Frame as Answer, source_frame::Frame};
use std::collections::BTreeMap;

/// The longest range of which a digest is taken at once: many chunks, and still a small frame.
const DIGEST_RANGE_MAX: u32 = 16 << 20;

/// What a seed lane remembers between two frames.
pub(super) struct Seed {
    generation: u64,
    /// The parts that came on this lane and what was last acknowledged of each; one leaves when it is done.
    parts: BTreeMap<u32, Option<u64>>,
}

impl Seed {
    pub(super) fn new(generation: u64) -> Self {
        Self { generation, parts: BTreeMap::new() }
    }

    /// Takes the lane's frames until it ends.
    pub(super) async fn run(mut self, lane: &mut Lane) -> Result<()> {
        loop {
            match lane.next().await? {
                Next::Frame(Frame::Chunk(chunk)) => self.chunk(lane, chunk).await?,
                Next::Frame(Frame::Digest(request)) => self.digest(lane, request).await?,
                Next::Frame(frame) => return Err(misplaced(&frame, "a seed lane carries chunks and digest requests")),
                Next::Synced => self.acknowledge(lane).await?,
                Next::End => {
                    // The source may only have closed its half, and wait for the last acknowledgements.
                    if !self.parts.is_empty() {
                        lane.replica.syncer.flush(&*lane.replica.engine).await;
                        self.acknowledge(lane).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn chunk(&mut self, lane: &mut Lane, chunk: SeedChunk) -> Result<()> {
        self.expect_seeding(lane)?;
        if chunk.generation != self.generation {
            return Err(Error::WrongGeneration { given: chunk.generation, held: self.generation });
        }
        known(lane, chunk.part)?;
        if chunk.next_offset < chunk.offset {
            return Err(Error::frame(format!("chunk {} of part {} ends before it begins", chunk.offset, chunk.part)));
        }
        let sent = chunk.payload.len();
        let payload = lane.unpack("a chunk", chunk.payload, chunk.crc32c, chunk.uncompressed).await?;
        lane.until_takes(chunk.part).await?;
        lane.replica.engine.chunk(chunk.part, chunk.offset, payload, chunk.next_offset, chunk.last).await?;
        lane.session.meter.rows(chunk.rows);
        self.parts.entry(chunk.part).or_default();
        lane.replica.syncer.wrote(sent, chunk.last);
        Ok(())
    }

    async fn digest(&mut self, lane: &mut Lane, request: DigestRequest) -> Result<()> {
        self.expect_seeding(lane)?;
        let DigestRequest { part, offset, length } = request;
        known(lane, part)?;
        if length == 0 || length > DIGEST_RANGE_MAX || offset.checked_add(u64::from(length)).is_none() {
            return Err(Error::frame(format!(
                "a digest covers 1 to {DIGEST_RANGE_MAX} bytes, not {length} from {offset}"
            )));
        }
        let payload = lane.replica.engine.digest(part, offset, length as usize).await?;
        lane.send(Answer::Digest(Digest { part, offset, payload })).await
    }

    fn expect_seeding(&self, lane: &Lane) -> Result<()> {
        match &lane.session.view().role.phase {
            Phase::Seeding => Ok(()),
            phase => Err(Error::NotReplicating { phase: phase.as_str(), what: "seed" }),
        }
    }

    async fn acknowledge(&mut self, lane: &mut Lane) -> Result<()> {
        let synced = lane.synced.borrow_and_update().clone()?;
        for held in &synced.held.parts {
            let Some(told) = self.parts.get_mut(&held.part) else { continue };
            if *told == Some(held.durable) && !held.done {
                continue;
            }
            *told = Some(held.durable);
            if held.done {
                self.parts.remove(&held.part);
            }
            lane.send(Answer::SeedAck(SeedAck { part: held.part, durable: held.durable, done: held.done })).await?;
        }
        Ok(())
    }
}

fn known(lane: &Lane, part: u32) -> Result<()> {
    match lane.session.meter.has_part(part) {
        // A process that has not heard the plan itself leaves the judgement to the engine.
        Some(true) | None => Ok(()),
        Some(false) => Err(Error::frame(format!("the plan has no part {part}"))),
    }
}
