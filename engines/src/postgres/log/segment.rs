//! Pieces of the log that can be sent and applied on their own, collected message by message.

use super::pgoutput::{self, Message};
use crate::{
    Error, Result,
    postgres::{
        payload::{self, LogPayload},
        position::{Lsn, Point},
    },
};
use bytes::{BufMut as _, Bytes, BytesMut};
use rustc_hash::{FxHashMap, FxHashSet};

/// Prefixes of logical messages that are ours.
const OURS: &[u8] = b"causeway";

/// A logical message of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) prefix: String,
    pub(crate) content: Bytes,
    /// Where the commit that brought it ends.
    pub(crate) end: Lsn,
}

/// A piece of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawBatch {
    pub(crate) from: Point,
    pub(crate) to: Point,
    /// A complete [`LogPayload`]. It describes every relation that it touches.
    pub(crate) payload: Bytes,
    /// Transactions that end in it.
    pub(crate) transactions: u64,
    /// When the newest of it came, in milliseconds since 1970.
    pub(crate) seen_ms: i64,
    pub(crate) markers: Vec<Marker>,
}

/// What the messages so far tell about the next one.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Relation messages by the relation's number.
    relations: FxHashMap<u32, Bytes>,
    /// The open transaction, after so many of its changes.
    inside: Option<Point>,
    /// Its first message, until something of it is put into a piece: no piece ends with a beginning.
    begin: Option<Bytes>,
    /// Its messages of ours.
    pending: Vec<(String, Bytes)>,
}

impl Context {
    /// The context in which the messages after a point are read.
    fn at(point: Point) -> Self {
        let inside = (point.index > 0 && !point.in_extras()).then_some(point);
        Self { inside, ..Self::default() }
    }

    /// Whether a transaction is open.
    pub(super) fn in_transaction(&self) -> bool {
        self.inside.is_some()
    }

    /// The point behind a message, if it moves on.
    fn behind(&self, message: &Message<'_>) -> Result<Option<Point>> {
        let stray = || Error::Corrupt("a change outside of any transaction in the log".to_owned());
        match message {
            Message::Row { .. } | Message::Truncate { .. } => {
                self.inside.map(|point| Some(Point { index: point.index + 1, ..point })).ok_or_else(stray)
            }
            // One outside of a transaction says nothing about data, and is no part of it either.
            Message::Logical { transactional: true, .. } => {
                self.inside.map(|point| Some(Point { index: point.index + 1, ..point })).ok_or_else(stray)
            }
            Message::Commit { end } => Ok(Some(Point::at(*end))),
            Message::Begin { .. } | Message::Relation { .. } | Message::Logical { .. } | Message::Other => Ok(None),
        }
    }
}

/// A piece in the making.
#[derive(Debug)]
pub(super) struct Builder {
    buffer: BytesMut,
    from: Point,
    to: Point,
    described: FxHashSet<u32>,
    transactions: u64,
}

impl Builder {
    pub(super) fn new(from: Point) -> Self {
        let buffer = LogPayload::changes_buffer(0);
        Self { buffer, from, to: from, described: FxHashSet::default(), transactions: 0 }
    }

    /// Where it starts.
    pub(super) fn from(&self) -> Point {
        self.from
    }

    /// Where it ends so far.
    pub(super) fn to(&self) -> Point {
        self.to
    }

    /// Moves an empty piece: nothing happened before `point`.
    pub(super) fn skip_to(&mut self, point: Point) {
        if self.is_empty() {
            (self.from, self.to) = (self.from.max(point), self.to.max(point));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether it holds no message yet.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.len() <= 1
    }

    /// Where the bytes of a row begun by [`Builder::begin_row`] go.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Takes a message in. Answers the markers of a transaction that it ends.
    pub(super) fn push(&mut self, context: &mut Context, bytes: &[u8]) -> Result<Vec<Marker>> {
        let message = pgoutput::read(bytes)?;
        let behind = context.behind(&message)?;
        let mut markers = Vec::new();
        match message {
            Message::Begin { commit } => {
                context.inside = Some(pgoutput::inside(commit));
                context.begin = Some(Bytes::copy_from_slice(bytes));
            }
            Message::Commit { end } => {
                self.begin(context);
                payload::put_message(&mut self.buffer, bytes);
                let ended = |(prefix, content)| Marker { prefix, content, end };
                markers.extend(context.pending.drain(..).map(ended));
                context.inside = None;
                self.transactions += 1;
            }
            Message::Relation { id, .. } => {
                context.relations.insert(id, Bytes::copy_from_slice(bytes));
                self.described.remove(&id);
            }
            Message::Row { relation, .. } => {
                self.begin(context);
                self.describe(context, relation)?;
                payload::put_message(&mut self.buffer, bytes);
            }
            Message::Truncate { relations, .. } => {
                self.begin(context);
                for id in relations {
                    self.describe(context, u32::from_be_bytes(*id))?;
                }
                payload::put_message(&mut self.buffer, bytes);
            }
            // Only its place in the transaction counts for the destination.
            Message::Logical { transactional: true, prefix, content } => {
                if prefix.starts_with(OURS) {
                    let prefix = String::from_utf8_lossy(prefix).into_owned();
                    context.pending.push((prefix, Bytes::copy_from_slice(content)));
                }
                self.begin(context);
                payload::put_message(&mut self.buffer, b"M");
            }
            Message::Logical { transactional: false, .. } | Message::Other => {}
        }
        self.moved(context, behind);
        Ok(markers)
    }

    /// Begins a row of `len` bytes, all of which the caller puts into the buffer; `head` is its first few.
    pub(super) fn begin_row(&mut self, context: &mut Context, head: &[u8], len: usize) -> Result<()> {
        let message = pgoutput::read(head)?;
        let Message::Row { relation, .. } = message else {
            return Err(Error::Internal("a large row that is none".to_owned()));
        };
        let behind = context.behind(&message)?;
        self.begin(context);
        self.describe(context, relation)?;
        let len_u32 = u32::try_from(len).map_err(|_| Error::Corrupt("a row of more than 4 GiB".to_owned()))?;
        self.buffer.reserve(len + 4);
        self.buffer.put_u32(len_u32);
        self.moved(context, behind);
        Ok(())
    }

    /// The finished piece.
    pub(super) fn seal(self, seen_ms: i64, markers: Vec<Marker>) -> RawBatch {
        let Self { buffer, from, to, transactions, .. } = self;
        RawBatch { from, to, payload: buffer.freeze(), transactions, seen_ms, markers }
    }

    fn moved(&mut self, context: &mut Context, behind: Option<Point>) {
        if let Some(point) = behind {
            self.to = self.to.max(point);
            if let Some(inside) = &mut context.inside {
                *inside = point;
            }
        }
    }

    fn begin(&mut self, context: &mut Context) {
        if let Some(begin) = context.begin.take() {
            payload::put_message(&mut self.buffer, &begin);
        }
    }

    fn describe(&mut self, context: &Context, relation: u32) -> Result<()> {
        if self.described.insert(relation) {
            let unknown = || Error::Corrupt("a change of a relation that the log does not describe".to_owned());
            payload::put_message(&mut self.buffer, context.relations.get(&relation).ok_or_else(unknown)?);
        }
        Ok(())
    }
}

/// Where to cut a piece in two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// What is at or before a point makes the first one.
    At(Point),
    /// The first one has about so many bytes.
    Bytes(usize),
}

/// Cuts a piece in two; either may be empty.
pub(super) fn cut(batch: &RawBatch, at: Cut) -> Result<(RawBatch, RawBatch)> {
    let mut context = Context::at(batch.from);
    let mut head = Builder::new(batch.from);
    let mut tail: Option<Builder> = None;
    for message in payload::messages(batch.payload.get(1..).unwrap_or_default()) {
        let message = message?;
        if tail.is_none() && stops(at, &head, &context, &pgoutput::read(message)?)? {
            tail = Some(Builder::new(head.to));
        }
        tail.as_mut().unwrap_or(&mut head).push(&mut context, message)?;
    }
    let mut tail = tail.unwrap_or_else(|| Builder::new(head.to));
    // Without any change nothing tells the ends apart but the point itself.
    if let Cut::At(point) = at {
        let between = point.clamp(head.to, batch.to);
        if point.index == 0 && tail.len() <= 1 && head.is_empty() {
            (head.to, tail.from) = (between, between);
        }
    }
    tail.to = tail.to.max(batch.to);
    let (before, after) = batch.markers.iter().cloned().partition(|marker| Point::at(marker.end) <= head.to);
    Ok((head.seal(batch.seen_ms, before), tail.seal(batch.seen_ms, after)))
}

fn stops(at: Cut, head: &Builder, context: &Context, message: &Message<'_>) -> Result<bool> {
    Ok(match (at, message) {
        (_, Message::Begin { .. } | Message::Relation { .. } | Message::Other) => false,
        (Cut::At(point), message) => context.behind(message)?.is_some_and(|behind| behind > point),
        (Cut::Bytes(_), Message::Commit { .. }) => false,
        (Cut::Bytes(bytes), _) => head.len() >= bytes && head.to > head.from,
    })
}
