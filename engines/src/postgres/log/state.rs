//! What the reader's task and its callers share: pieces of the log, and what is known about its end.

use super::{
    pgoutput::{self, Message},
    segment::{self, Builder, Context, Cut, Marker, RawBatch},
};
use crate::{
    Error, Result,
    postgres::{
        payload::LogPayload,
        position::{Lsn, Point},
        wire::{broken, frame_len, server_error},
    },
};
use bytes::BytesMut;
use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Pieces are about as large as the caller asks for, at most this: a frame of the transfer.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// Bytes read ahead of the caller. Beyond it the walsender waits: eight of the largest pieces keep both sides busy.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// While there is a backlog a piece waits until it has so much: small ones cost a transaction each at the destination.
const HELD_BYTES_MIN: usize = 64 << 10;
/// A large row that is passed over goes by in steps of about so much.
const PASS_BYTES: usize = 256 << 10;
/// When a session was not the way to read a backlog, the walsender is it for so long.
const WITHOUT_SESSION: Duration = Duration::from_secs(60);
/// Markers remembered for callers who ask later; an operation has one an attempt.
const MARKERS_MAX: usize = 64;
/// A position moves without changes when the log has grown by so much, or after so long, so that the slot follows.
const PROGRESS_BYTES: u64 = 1 << 20;
const PROGRESS_TIME: Duration = Duration::from_secs(5);

pub(super) const WHAT: &str = "read the log";

/// The shared state.
pub(super) struct State {
    /// Finished pieces: those that nobody asked for yet, and those that the caller may ask for again.
    queue: VecDeque<RawBatch>,
    builder: Builder,
    /// Markers of the piece in the making.
    markers: Vec<Marker>,
    context: Context,
    /// Transactions whose commit record starts before this are held by the caller.
    start: Lsn,
    skipping: bool,
    /// There is a backlog, and more comes at once.
    pub(super) hold: bool,
    /// Size of the next pieces.
    max: usize,
    /// Every commit that ends at or before this came in.
    pub(super) seen: Lsn,
    /// Ends of transactions that may be confirmed, and what was.
    boundaries: VecDeque<Lsn>,
    pub(super) confirmed: Lsn,
    pub(super) known: VecDeque<Marker>,
    moved: Instant,
    /// The caller waits for an end that only a keepalive can tell.
    pub(super) ask: bool,
    pub(super) asked: Instant,
    /// The caller wants the log from here, which is not buffered.
    pub(super) restart: Option<Point>,
    /// The server has to hear what was confirmed.
    pub(super) ask_status: bool,
    pub(super) demand: bool,
    /// The server accepted the request for the stream.
    pub(super) streaming: bool,
    /// The walsender has to do until then, however much there is.
    no_session_until: Option<Instant>,
    /// And until a caller takes something again.
    untaken: bool,
    pub(super) stopping: bool,
    pub(super) failed: Option<Error>,
    pub(super) reported: bool,
}

/// What [`State::take`] finds.
pub(super) enum Take {
    Batch(RawBatch),
    Wait,
    /// It is not buffered: the walsender has to start again.
    Restart(Point),
}

/// Where the bytes of a large message go as they come.
pub(super) enum Large {
    /// Into the piece that they are.
    Row(Builder),
    /// Nowhere: the caller has that row.
    Passed(BytesMut),
    /// Together, for what is no row is looked at as a whole.
    Message(BytesMut),
}

impl Large {
    /// For the next bytes.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        match self {
            Self::Row(builder) => builder.buffer(),
            Self::Passed(bytes) => {
                bytes.clear();
                bytes
            }
            Self::Message(bytes) => bytes,
        }
    }
}

impl State {
    pub(super) fn new(from: Lsn) -> Self {
        Self {
            queue: VecDeque::new(),
            builder: Builder::new(Point::at(from)),
            markers: Vec::new(),
            context: Context::default(),
            start: from,
            skipping: false,
            hold: false,
            max: PIECE_BYTES_MAX,
            seen: Lsn(0),
            boundaries: VecDeque::new(),
            confirmed: Lsn(0),
            known: VecDeque::new(),
            moved: Instant::now(),
            ask: false,
            asked: Instant::now(),
            restart: None,
            ask_status: false,
            demand: true,
            streaming: false,
            no_session_until: None,
            untaken: false,
            stopping: false,
            failed: None,
            reported: false,
        }
    }

    /// Prepares for a new walsender: what was read is forgotten, except what is known about markers.
    pub(super) fn begin(&mut self, from: Point) {
        // Inside a transaction all of it comes again, and `take` passes over what the caller has.
        let from = Point::at(from.lsn);
        self.queue.clear();
        self.boundaries.clear();
        self.builder = Builder::new(from);
        (self.markers, self.context, self.skipping) = (Vec::new(), Context::default(), false);
        self.hold = false;
        (self.start, self.restart, self.failed) = (from.lsn, None, None);
        // Seen counts for what is buffered: a later call must not take the end of the earlier stream for that of this one.
        self.seen = Lsn(0);
    }

    /// Where the buffered log begins.
    pub(super) fn first(&self) -> Point {
        self.queue.front().map_or(self.builder.from(), |batch| batch.from)
    }

    /// Whether the reader may go on.
    pub(super) fn has_room(&self) -> bool {
        self.queue.is_empty() || self.held() < AHEAD_BYTES_MAX
    }

    /// What callers want of the reader: to ask the server, to start elsewhere, to start again.
    pub(super) fn wishes(&self) -> (bool, Option<Point>, bool) {
        (self.ask, self.restart, self.demand)
    }

    /// Whether what was read ends with a transaction.
    pub(super) fn between_transactions(&self) -> bool {
        !self.context.in_transaction() && !self.skipping
    }

    /// Where what was read ends.
    pub(super) fn read_to(&self) -> Point {
        self.builder.to()
    }

    /// No session reads for a while; one that does ends with its call.
    pub(super) fn leave_to_walsender(&mut self) {
        self.no_session_until = Some(Instant::now() + WITHOUT_SESSION);
    }

    /// Nobody takes anything: no session reads until somebody does.
    pub(super) fn is_untaken(&mut self) {
        self.untaken = true;
    }

    /// Whether a session may read a backlog.
    pub(super) fn may_have_session(&self) -> bool {
        !self.untaken && self.no_session_until.is_none_or(|until| Instant::now() >= until)
    }

    /// The walsender may begin at `lsn`, where a transaction ended.
    pub(super) fn go_on_at(&mut self, lsn: Lsn) {
        (self.start, self.hold) = (self.start.max(lsn), false);
    }

    /// Bytes of log in memory.
    pub(super) fn held(&self) -> usize {
        self.queue.iter().map(|batch| batch.payload.len()).sum::<usize>() + self.builder.len()
    }

    /// Takes in the whole messages at the front of `bytes`, as long as there is room. Answers how many bytes that were, and
    /// whether the server wants to hear from us.
    pub(super) fn consume(&mut self, bytes: &[u8]) -> Result<(usize, bool)> {
        let (mut at, mut reply) = (0, false);
        let now = now_ms();
        while let Some(len) = frame_len(WHAT, &bytes[at..])?.filter(|len| at + len <= bytes.len()) {
            let frame = &bytes[at..at + len];
            match (frame[0], frame.get(5)) {
                (b'd', Some(b'w')) => {
                    let message = frame.get(30..).ok_or_else(|| broken(WHAT, "a log message is cut off"))?;
                    if self.take_in(message, now)? && !self.has_room() {
                        return Ok((at + len, reply));
                    }
                }
                (b'd', Some(b'k')) => reply |= self.keepalive(&frame[6..], now)?,
                (b'E', _) => return Err(server_error(WHAT, &frame[5..])),
                (b'c' | b'C' | b'Z', _) => {
                    let message = "the server ended the stream".to_owned();
                    return Err(Error::Database { what: WHAT.to_owned(), message, transient: true });
                }
                _ => {}
            }
            at += len;
        }
        Ok((at, reply))
    }

    /// Takes a message in. Answers whether a piece was finished by it.
    pub(super) fn take_in(&mut self, message: &[u8], now: i64) -> Result<bool> {
        self.message(message)?;
        // A piece ends with a transaction, unless that is a large one.
        let enough = if self.context.in_transaction() { 2 * self.max } else { self.max };
        let full = self.builder.len() >= enough;
        if full {
            self.seal(now);
        }
        Ok(full)
    }

    fn message(&mut self, bytes: &[u8]) -> Result<()> {
        let first = bytes.first().copied().unwrap_or_default();
        if first == b'B' || self.skipping {
            match pgoutput::read(bytes)? {
                Message::Begin { commit } => self.skipping = pgoutput::inside(commit).lsn < self.start,
                Message::Commit { end } if self.skipping => {
                    self.skipping = false;
                    self.saw(end);
                    return Ok(());
                }
                _ => {}
            }
            // What relations look like is said once.
            if self.skipping && first != b'R' {
                return Ok(());
            }
        }
        let markers = self.builder.push(&mut self.context, bytes)?;
        if first == b'C' {
            self.saw(self.builder.to().lsn);
            self.moved = Instant::now();
            for marker in markers {
                if self.known.len() == MARKERS_MAX {
                    self.known.pop_front();
                }
                self.known.push_back(marker.clone());
                self.markers.push(marker);
            }
        }
        Ok(())
    }

    fn keepalive(&mut self, body: &[u8], now: i64) -> Result<bool> {
        let cut = || broken(WHAT, "a keepalive is cut off");
        let end = Lsn(u64::from_be_bytes(*body.first_chunk().ok_or_else(cut)?));
        let reply = *body.get(16).ok_or_else(cut)? == 1;
        self.reached(end, now);
        Ok(reply)
    }

    /// Goes on to `end`, up to which everything came in.
    pub(super) fn reached(&mut self, end: Lsn, now: i64) {
        self.saw(end);
        let idle = !self.context.in_transaction() && self.builder.is_empty() && !self.skipping;
        let to = self.builder.to();
        if idle && end > to.lsn && (end.0 - to.lsn.0 >= PROGRESS_BYTES || self.moved.elapsed() >= PROGRESS_TIME) {
            self.moved = Instant::now();
            match self.queue.back_mut() {
                // Nobody gains from two pieces without content.
                Some(back) if back.payload.len() <= 1 => back.to = Point::at(end),
                _ => {
                    let empty = LogPayload::changes_buffer(0).freeze();
                    let (from, to) = (to, Point::at(end));
                    let batch =
                        RawBatch { from, to, payload: empty, transactions: 0, seen_ms: now, markers: Vec::new() };
                    self.queue.push_back(batch);
                }
            }
            self.builder = Builder::new(Point::at(end));
            self.boundaries.push_back(end);
        }
    }

    /// Everything that ends at or before `lsn` came in.
    pub(super) fn saw(&mut self, lsn: Lsn) {
        self.seen = self.seen.max(lsn);
    }

    fn seal(&mut self, now: i64) {
        if self.builder.is_empty() || self.builder.to() == self.builder.from() {
            return;
        }
        let next = Builder::new(self.builder.to());
        let done = std::mem::replace(&mut self.builder, next).seal(now, std::mem::take(&mut self.markers));
        if done.to.index == 0 {
            self.boundaries.push_back(done.to.lsn);
        }
        self.queue.push_back(done);
    }

    /// Begins a message of `len` bytes that is too large to be in memory twice; `head` is its beginning. A row ends up alone in
    /// its piece.
    pub(super) fn begin_large(&mut self, head: &[u8], len: usize) -> Result<Large> {
        if !matches!(head.first(), Some(b'I' | b'U' | b'D')) {
            return Ok(Large::Message(BytesMut::with_capacity(len)));
        }
        if self.skipping {
            return Ok(Large::Passed(BytesMut::with_capacity(PASS_BYTES)));
        }
        self.seal(now_ms());
        let after = Builder::new(self.builder.to());
        let mut builder = std::mem::replace(&mut self.builder, after);
        builder.begin_row(&mut self.context, head, len)?;
        Ok(Large::Row(builder))
    }

    /// Takes it in, now that all of it is there.
    pub(super) fn end_large(&mut self, large: Large) -> Result<()> {
        match large {
            Large::Row(builder) => {
                self.builder = builder;
                self.seal(now_ms());
            }
            Large::Passed(_) => {}
            Large::Message(message) => drop(self.take_in(&message, now_ms())?),
        }
        Ok(())
    }

    /// The next piece for a caller who has everything up to `after`.
    pub(super) fn take(&mut self, after: Point, max: usize, until: Option<Point>) -> Result<Take> {
        let after = if after.in_extras() { Point::at(after.lsn) } else { after };
        let until = until.map(|until| Point::at(until.lsn));
        self.max = max.clamp(1, PIECE_BYTES_MAX);
        while self.queue.front().is_some_and(|batch| batch.to <= after) {
            self.queue.pop_front();
        }
        let enough = !self.hold || until.is_some() || self.builder.len() >= HELD_BYTES_MIN;
        if self.queue.is_empty() && !self.context.in_transaction() && enough {
            self.seal(now_ms());
            while self.queue.front().is_some_and(|batch| batch.to <= after) {
                self.queue.pop_front();
            }
        }
        if after < self.first() {
            return Ok(Take::Restart(after));
        }
        let Some(front) = self.queue.pop_front() else { return Ok(self.at_the_end(after, until)) };
        let mut front = match front.from < after {
            true => RawBatch { from: after, ..segment::cut(&front, Cut::At(after))?.1 },
            false => front,
        };
        if let Some(until) = until.filter(|until| front.to > *until) {
            let (before, behind) = segment::cut(&front, Cut::At(until))?;
            self.queue.push_front(behind);
            if before.payload.len() <= 1 {
                return Ok(self.ended(after, until));
            }
            front = before;
        }
        if front.payload.len() / 2 > max {
            let (before, behind) = segment::cut(&front, Cut::Bytes(max))?;
            if behind.payload.len() > 1 {
                self.queue.push_front(behind);
                front = before;
            }
        }
        self.queue.push_front(front.clone());
        self.untaken = false;
        Ok(Take::Batch(front))
    }

    fn at_the_end(&mut self, after: Point, until: Option<Point>) -> Take {
        match until {
            Some(until) if self.seen >= until.lsn => self.ended(after, until),
            Some(_) => {
                self.ask = true;
                Take::Wait
            }
            None => Take::Wait,
        }
    }

    /// Nothing is left up to `until`.
    fn ended(&mut self, after: Point, until: Point) -> Take {
        self.builder.skip_to(until);
        let place = self.boundaries.partition_point(|boundary| *boundary < until.lsn);
        self.boundaries.insert(place, until.lsn);
        let payload = LogPayload::changes_buffer(0).freeze();
        let to = until.max(after);
        Take::Batch(RawBatch { from: after, to, payload, transactions: 0, seen_ms: now_ms(), markers: Vec::new() })
    }

    /// The LSN up to which nothing is known to commit after `after`, unless something does.
    pub(super) fn idle_until(&self, after: Point) -> Option<Lsn> {
        let idle = self.builder.is_empty() && !self.context.in_transaction() && !self.skipping;
        let nothing = |batch: &RawBatch| batch.to <= after || batch.payload.len() <= 1;
        (idle && self.queue.iter().all(nothing) && self.first() <= after).then_some(self.seen)
    }

    /// The caller has everything up to `lsn` durably. Answers whether the server has to hear of it.
    pub(super) fn confirm(&mut self, lsn: Lsn) -> bool {
        let before = self.confirmed;
        // Only an end of a transaction is safe: the slot forgets transactions whose commit starts before it.
        while let Some(boundary) = self.boundaries.front().copied().filter(|boundary| *boundary <= lsn) {
            self.confirmed = self.confirmed.max(boundary);
            self.boundaries.pop_front();
        }
        self.confirmed > before
    }
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
