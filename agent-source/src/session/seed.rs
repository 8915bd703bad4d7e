//! Sending the seed: parts from one queue over several lanes, each part resumed where the destination has it.

use super::{
    Error, Session,
    lane::{self, Frames, Lane, send},
    pace::Pace,
    parts::{Left, Parts},
};
use bytes::Bytes;
use engines::source::{Held, Part, Plan, SourceStream};
use proto::v1::{self, dest_frame, source_frame};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// About how large a chunk is; the wire allows this and a small header.
const CHUNK_BYTES: usize = 1 << 20;

/// Digests asked for ahead of the chunk being compared: hides the round trip, at 4 KiB of digest each.
const DIGESTS_AHEAD: u64 = 16;

/// What the lanes of a seed share.
struct Seed<'a> {
    stream: &'a Arc<dyn SourceStream>,
    plan: &'a Plan,
    parts: Parts,
    pace: Pace,
}

/// What the receiving half of a lane tells the sending half.
#[derive(Default)]
struct Answers {
    state: Mutex<AnswerState>,
    told: Notify,
}

#[derive(Default)]
struct AnswerState {
    done: HashSet<u32>,
    digests: HashMap<(u32, u64), Bytes>,
}

impl Answers {
    fn lock(&self) -> std::sync::MutexGuard<'_, AnswerState> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Waits until `look` finds what it looks for.
    async fn wait<T>(&self, mut look: impl FnMut(&mut AnswerState) -> Option<T>) -> T {
        loop {
            let told = self.told.notified();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            told.await;
        }
    }
}

impl Session {
    /// Sends every part that the destination does not hold; returns when all are durable there.
    pub(super) async fn send_seed(
        &self,
        stream: &Arc<dyn SourceStream>,
        plan: &Plan,
        held: &Held,
    ) -> Result<(), Error> {
        let same = held.generation == plan.generation;
        let known: HashMap<u32, _> = held.parts.iter().filter(|_| same).map(|p| (p.part, *p)).collect();
        let todo: Vec<Left> = plan
            .parts
            .iter()
            .filter(|part| !known.get(&part.part).is_some_and(|held| held.done))
            .map(|part| (part.clone(), known.get(&part.part).map_or(0, |held| held.durable)))
            .collect();
        let lanes = (self.shared.settings.seed_lanes as usize).min(todo.len());
        let seed = Seed {
            stream,
            plan,
            parts: Parts::new(todo, !stream.in_order()),
            pace: Pace::new(self.shared.settings.seed_bytes_per_second),
        };
        let all = (1..=lanes as u32).map(|number| self.seed_lane(number, &seed));
        futures::future::try_join_all(all).await?;
        Ok(())
    }

    async fn seed_lane(&self, number: u32, seed: &Seed<'_>) -> Result<(), Error> {
        let Lane { tx, mut rx, .. } = Lane::open(self, number, seed.plan.generation).await?;
        let answers = Answers::default();
        let sending = async {
            let mut sent = Vec::new();
            while let Some((part, from)) = seed.parts.next(number) {
                self.send_part(&tx, seed, &part, from, &answers).await?;
                sent.push(part.part);
            }
            answers.wait(|state| sent.iter().all(|part| state.done.contains(part)).then_some(())).await;
            Ok(())
        };
        tokio::select! {
            sent = sending => sent,
            failed = self.receive_answers(&mut rx, &answers) => failed.map(|never| match never {}),
        }
    }

    async fn receive_answers(&self, rx: &mut Frames, answers: &Answers) -> Result<std::convert::Infallible, Error> {
        loop {
            match lane::next(rx).await? {
                dest_frame::Frame::SeedAck(ack) => {
                    self.meter.durable(ack.part, ack.durable, ack.done);
                    if ack.done {
                        answers.lock().done.insert(ack.part);
                        answers.told.notify_one();
                    }
                }
                dest_frame::Frame::Digest(digest) => {
                    answers.lock().digests.insert((digest.part, digest.offset), digest.payload);
                    answers.told.notify_one();
                }
                _ => return Err(Error::Protocol("a frame that does not belong on a seed lane".to_owned())),
            }
        }
    }

    async fn send_part(
        &self,
        tx: &mpsc::Sender<v1::SourceFrame>,
        seed: &Seed<'_>,
        part: &Part,
        from: u64,
        answers: &Answers,
    ) -> Result<(), Error> {
        let mut offset = from;
        let mut asked = from;
        loop {
            let digest = match seed.plan.verify {
                true => Some(self.digest(tx, part, offset, &mut asked, answers).await?),
                false => None,
            };
            let chunk = seed.stream.chunk(part.part, offset, CHUNK_BYTES, digest).await?;
            let bytes = chunk.payload.len() as u64;
            let packed = lane::pack(self, chunk.payload).await;
            let frame = v1::SeedChunk {
                generation: seed.plan.generation,
                part: part.part,
                offset,
                next_offset: chunk.next_offset,
                last: chunk.last,
                payload: packed.payload,
                crc32c: packed.crc32c,
                uncompressed: packed.uncompressed,
                rows: chunk.rows,
            };
            send(tx, source_frame::Frame::Chunk(frame)).await?;
            self.meter.sent(&part.object, bytes, chunk.rows);
            let env = &self.shared.env;
            match seed.pace.wait(bytes, env.monotonic()) {
                Duration::ZERO => {}
                wait => env.sleep(wait).await,
            }
            if chunk.last {
                return Ok(());
            }
            offset = chunk.next_offset;
        }
    }

    /// The destination's digest of the range at `offset`; asks for those after it as well.
    async fn digest(
        &self,
        tx: &mpsc::Sender<v1::SourceFrame>,
        part: &Part,
        offset: u64,
        asked: &mut u64,
        answers: &Answers,
    ) -> Result<Bytes, Error> {
        let length = CHUNK_BYTES as u64;
        // An engine may cut chunks otherwise than it was asked to: then begin to ask anew from here.
        if *asked < offset || !(*asked - offset).is_multiple_of(length) {
            *asked = offset;
        }
        let ahead = offset.saturating_add(DIGESTS_AHEAD * length).min(part.bytes.max(offset + 1));
        while *asked < ahead {
            let request = v1::DigestRequest { part: part.part, offset: *asked, length: length as u32 };
            send(tx, source_frame::Frame::Digest(request)).await?;
            *asked += length;
        }
        Ok(answers.wait(|state| state.digests.remove(&(part.part, offset))).await)
    }
}
