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

    /// Goes on behind a message; answers the point there, if it moves on.
    fn follow(&mut self, bytes: &[u8], message: &Message<'_>) -> Result<Option<Point>> {
        let behind = self.behind(message)?;
        match message {
            Message::Begin { commit } => {
                self.inside = Some(pgoutput::inside(*commit));
                self.begin = Some(Bytes::copy_from_slice(bytes));
            }
            Message::Commit { .. } => self.inside = None,
            Message::Relation { id, .. } => drop(self.relations.insert(*id, Bytes::copy_from_slice(bytes))),
            _ => self.inside = behind.or(self.inside),
        }
        Ok(behind)
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
        let behind = context.follow(bytes, &message)?;
        let mut markers = Vec::new();
        match message {
            Message::Commit { end } => {
                self.begin(context);
                payload::put_message(&mut self.buffer, bytes);
                let ended = |(prefix, content)| Marker { prefix, content, end };
                markers.extend(context.pending.drain(..).map(ended));
                self.transactions += 1;
            }
            Message::Relation { id, .. } => drop(self.described.remove(&id)),
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
            Message::Begin { .. } | Message::Logical { transactional: false, .. } | Message::Other => {}
        }
        self.moved(behind);
        Ok(markers)
    }

    /// Begins a row of `len` bytes, all of which the caller puts into the buffer; `head` is its first few.
    pub(super) fn begin_row(&mut self, context: &mut Context, head: &[u8], len: usize) -> Result<()> {
        let message = pgoutput::read(head)?;
        let Message::Row { relation, .. } = message else {
            return Err(Error::Internal("a large row that is none".to_owned()));
        };
        let behind = context.follow(head, &message)?;
        self.begin(context);
        self.describe(context, relation)?;
        let len_u32 = u32::try_from(len).map_err(|_| Error::Corrupt("a row of more than 4 GiB".to_owned()))?;
        self.buffer.reserve(len + 4);
        self.buffer.put_u32(len_u32);
        self.moved(behind);
        Ok(())
    }

    /// The finished piece.
    pub(super) fn seal(self, seen_ms: i64, markers: Vec<Marker>) -> RawBatch {
        let Self { buffer, from, to, transactions, .. } = self;
        RawBatch { from, to, payload: buffer.freeze(), transactions, seen_ms, markers }
    }

    fn moved(&mut self, behind: Option<Point>) {
        self.to = behind.map_or(self.to, |point| self.to.max(point));
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

/// Cuts a piece in two; either may be empty. The first one shares its bytes with the whole: a large row is in memory once.
pub(super) fn cut(batch: &RawBatch, at: Cut) -> Result<(RawBatch, RawBatch)> {
    let mut context = Context::at(batch.from);
    let mut head = Head { to: batch.from, len: batch.payload.len().min(1), transactions: 0 };
    let mut tail: Option<Builder> = None;
    let mut place = head.len;
    for message in payload::messages(batch.payload.get(1..).unwrap_or_default()) {
        let bytes = message?;
        place += 4 + bytes.len();
        let message = pgoutput::read(bytes)?;
        if tail.is_none() && stops(at, batch.from, &head, &context, &message)? {
            tail = Some(Builder::new(head.to));
        }
        if let Some(tail) = &mut tail {
            tail.push(&mut context, bytes)?;
        } else if let Some(behind) = context.follow(bytes, &message)? {
            // A beginning or a description before what the second one begins with is not of the first.
            context.begin = None;
            head.transactions += u64::from(matches!(message, Message::Commit { .. }));
            (head.to, head.len) = (head.to.max(behind), place);
        }
    }
    let mut tail = tail.unwrap_or_else(|| Builder::new(head.to));
    // Without any change nothing tells the ends apart but the point itself.
    if let Cut::At(point) = at {
        let between = point.clamp(head.to, batch.to);
        if point.index == 0 && tail.is_empty() && head.len <= 1 {
            (head.to, tail.from) = (between, between);
        }
    }
    tail.to = tail.to.max(batch.to);
    let (before, after) = batch.markers.iter().cloned().partition(|marker| Point::at(marker.end) <= head.to);
    let head = RawBatch {
        from: batch.from,
        to: head.to,
        payload: batch.payload.slice(..head.len),
        transactions: head.transactions,
        seen_ms: batch.seen_ms,
        markers: before,
    };
    Ok((head, tail.seal(batch.seen_ms, after)))
}

/// The first of two pieces: where it ends, in the log and among the bytes of the whole.
struct Head {
    to: Point,
    len: usize,
    transactions: u64,
}

fn stops(at: Cut, from: Point, head: &Head, context: &Context, message: &Message<'_>) -> Result<bool> {
    Ok(match (at, message) {
        (_, Message::Begin { .. } | Message::Relation { .. } | Message::Other) => false,
        (Cut::At(point), message) => context.behind(message)?.is_some_and(|behind| behind > point),
        (Cut::Bytes(_), Message::Commit { .. }) => false,
        (Cut::Bytes(bytes), _) => head.len >= bytes && head.to > from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction of rows of so many bytes.
    fn transaction(rows: &[usize]) -> RawBatch {
        let (mut builder, mut context) = (Builder::new(Point::at(Lsn(1))), Context::default());
        let commit = [&b"C\0"[..], &100_u64.to_be_bytes(), &110_u64.to_be_bytes(), &[0; 8]].concat();
        let mut messages = vec![
            [&b"B"[..], &100_u64.to_be_bytes(), &[0; 12]].concat(),
            b"R\0\0\0\x07public\0t\0d\0\x01\x01id\0\0\0\0\x19\xff\xff\xff\xff".to_vec(),
        ];
        messages.extend(rows.iter().map(|len| {
            let head = [&b"I\0\0\0\x07N\0\x01t"[..], &u32::try_from(*len).expect("small").to_be_bytes()].concat();
            [head, vec![b'x'; *len]].concat()
        }));
        messages.push(commit);
        messages.iter().for_each(|message| drop(builder.push(&mut context, message).expect("whole")));
        builder.seal(0, Vec::new())
    }

    #[test]
    fn what_is_cut_off_in_front_is_not_copied() {
        let batch = transaction(&[5000, 10, 10]);
        let (head, tail) = cut(&batch, Cut::Bytes(100)).expect("whole");
        assert_eq!(head.payload.as_ptr(), batch.payload.as_ptr());
        assert_eq!((head.to.index, head.transactions, tail.transactions), (1, 0, 1));
        assert_eq!((head.from, head.to, tail.to), (batch.from, tail.from, batch.to));
        // A single large row with the end of its transaction stays as it is.
        let batch = transaction(&[5000]);
        let (head, tail) = cut(&batch, Cut::Bytes(100)).expect("whole");
        assert_eq!((head.payload.as_ptr(), &head), (batch.payload.as_ptr(), &batch));
        assert_eq!(tail.payload.len(), 1);
    }

    #[test]
    fn what_is_cut_off_behind_begins_and_describes_anew() {
        let batch = transaction(&[3, 4, 5]);
        let point = Point { index: 1, ..pgoutput::inside(Lsn(100)) };
        let (head, tail) = cut(&batch, Cut::At(point)).expect("whole");
        assert_eq!((head.to, tail.from), (point, point));
        let kinds = |batch: &RawBatch| -> Vec<u8> {
            payload::messages(&batch.payload[1..]).map(|message| message.expect("whole")[0]).collect()
        };
        assert_eq!((kinds(&head), kinds(&tail)), (b"BRI".to_vec(), b"RIIC".to_vec()));
    }
}
