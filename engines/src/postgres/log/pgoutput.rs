//! The messages of pgoutput, protocol 1: "Logical Replication Message Formats" in PostgreSQL's manual.
//!
//! Nothing here trusts its input: what is cut off or unknown is [`Error::Corrupt`].

use crate::{
    Error, Result,
    postgres::position::{Lsn, Point},
};
use std::fmt;

/// One message, with references into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A transaction starts, whose commit record starts at `commit`.
    Begin { commit: Lsn },
    /// It ends; its commit record ends at `end`.
    Commit { end: Lsn },
    /// What a relation looks like from here on. [`Relation::read`] reads the body.
    Relation { id: u32, body: &'a [u8] },
    /// A row changed. [`tuples`] finds its old and new image.
    Row { change: Change, relation: u32 },
    /// Relations were emptied.
    Truncate { relations: &'a [[u8; 4]], cascade: bool, restart_identity: bool },
    /// `pg_logical_emit_message`.
    Logical { transactional: bool, prefix: &'a [u8], content: &'a [u8] },
    /// Says nothing about data: a type, an origin.
    Other,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Insert,
    Update,
    Delete,
}

/// A relation as the source describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Updates and deletes carry the whole old row, not only its key.
    pub(crate) full: bool,
    /// Generated columns are not among them.
    pub(crate) columns: Vec<ColumnName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnName {
    pub(crate) name: String,
    /// Part of the replica identity.
    pub(crate) key: bool,
}

/// One value of a row: where it is in the bytes that it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    /// Which of several payloads they are, where a caller has several.
    pub(crate) piece: u16,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    #[default]
    Null,
    /// A large value that was not changed and is not there.
    Unchanged,
    Text,
    Binary,
}

impl Value {
    /// Its bytes, out of those that it was read from.
    pub(crate) fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at as usize..][..self.len as usize]
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}+{}", self.kind, self.at, self.len)
    }
}

/// Reads a message.
pub(crate) fn read(message: &[u8]) -> Result<Message<'_>> {
    let mut rest = Cursor { bytes: message, at: 0 };
    Ok(match rest.u8()? {
        b'B' => Message::Begin { commit: Lsn(rest.u64()?) },
        b'C' => {
            rest.take(9)?;
            Message::Commit { end: Lsn(rest.u64()?) }
        }
        b'R' => Message::Relation { id: rest.u32()?, body: &message[rest.at..] },
        b'I' => Message::Row { change: Change::Insert, relation: rest.u32()? },
        b'U' => Message::Row { change: Change::Update, relation: rest.u32()? },
        b'D' => Message::Row { change: Change::Delete, relation: rest.u32()? },
        b'T' => {
            let count = rest.u32()? as usize;
            let options = rest.u8()?;
            let (relations, _) = message[rest.at..].as_chunks();
            let relations = relations.get(..count).ok_or_else(cut_off)?;
            Message::Truncate { relations, cascade: options & 1 != 0, restart_identity: options & 2 != 0 }
        }
        b'M' if message.len() == 1 => Message::Logical { transactional: true, prefix: b"", content: b"" },
        b'M' => {
            let transactional = rest.u8()? & 1 != 0;
            rest.u64()?;
            let prefix = rest.text()?;
            let len = rest.u32()? as usize;
            Message::Logical { transactional, prefix, content: rest.take(len)? }
        }
        b'Y' | b'O' => Message::Other,
        _ => return Err(Error::Corrupt("a log message of an unknown kind".to_owned())),
    })
}

impl Relation {
    /// Reads what follows the number of a relation.
    pub(crate) fn read(body: &[u8]) -> Result<Self> {
        let mut rest = Cursor { bytes: body, at: 0 };
        // The server leaves out the name of its own schema.
        let schema = match rest.text()? {
            b"" => b"pg_catalog",
            schema => schema,
        };
        let (schema, name) = (text(schema)?, text(rest.text()?)?);
        let full = rest.u8()? == b'f';
        let count = rest.u16()?;
        let mut columns = Vec::with_capacity(usize::from(count).min(body.len()));
        for _ in 0..count {
            let key = rest.u8()? & 1 != 0;
            let name = text(rest.text()?)?;
            // Type and modifier are the source's own; the destination knows its types by their column.
            rest.take(8)?;
            columns.push(ColumnName { name, key });
        }
        Ok(Self { schema, name, full, columns })
    }
}

/// Reads the images of a row out of the message that begins at `start` of `bytes`: the old one into `old`, empty if there is
/// none, and the new one into `new`. Answers whether the old one is a whole row.
pub(crate) fn tuples(
    bytes: &[u8],
    start: usize,
    change: Change,
    old: &mut Vec<Value>,
    new: &mut Vec<Value>,
) -> Result<bool> {
    old.clear();
    new.clear();
    let mut rest = Cursor { bytes, at: start + 5 };
    let mut whole = false;
    let mut kind = rest.u8()?;
    if matches!(kind, b'K' | b'O') && change != Change::Insert {
        whole = kind == b'O';
        rest.tuple(old)?;
        if change == Change::Delete {
            return Ok(whole);
        }
        kind = rest.u8()?;
    }
    if kind != b'N' || change == Change::Delete {
        return Err(Error::Corrupt("a log message without the image of a row".to_owned()));
    }
    rest.tuple(new)?;
    Ok(whole)
}

/// Where a transaction's changes are: a point inside it. Its LSN is one past the start of the transaction's commit record, so it
/// is behind every commit before it and before its own end, whatever point the reader came from.
pub(crate) fn inside(commit: Lsn) -> Point {
    Point { lsn: Lsn(commit.0.saturating_add(1)), index: 0 }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or_else(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(cut_off)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).ok_or_else(cut_off)?;
        self.at += N;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Bytes up to a zero, which is taken too.
    fn text(&mut self) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).ok_or_else(cut_off)?;
        let len = rest.iter().position(|byte| *byte == 0).ok_or_else(cut_off)?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    #[inline]
    fn tuple(&mut self, values: &mut Vec<Value>) -> Result<()> {
        for _ in 0..self.u16()? {
            let kind = match self.u8()? {
                b'b' => Kind::Binary,
                b't' => Kind::Text,
                b'n' => Kind::Null,
                b'u' => Kind::Unchanged,
                _ => return Err(Error::Corrupt("a value of an unknown kind in the log".to_owned())),
            };
            let mut value = Value { kind, piece: 0, at: 0, len: 0 };
            if matches!(kind, Kind::Binary | Kind::Text) {
                value.len = self.u32()?;
                value.at = u32::try_from(self.at).map_err(|_| cut_off())?;
                self.take(value.len as usize)?;
            }
            values.push(value);
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Unsupported {
        code: "POSTGRES_NAME",
        message: "a table or column has a name that is no UTF-8".to_owned(),
        remedy: "rename it".to_owned(),
    })
}

fn cut_off() -> Error {
    Error::Corrupt("a log message is cut off".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_update_with_its_old_row_is_read() {
        let mut message = b"U\0\0\0\x07O\0\x02b\0\0\0\x01xnN\0\x02t\0\0\0\x02yzu".to_vec();
        assert_eq!(read(&message).expect("whole"), Message::Row { change: Change::Update, relation: 7 });
        let (mut old, mut new) = (Vec::new(), Vec::new());
        assert!(tuples(&message, 0, Change::Update, &mut old, &mut new).expect("whole"));
        assert_eq!((old[0].of(&message), old[1].kind), (&b"x"[..], Kind::Null));
        assert_eq!((new[0].of(&message), new[1].kind), (&b"yz"[..], Kind::Unchanged));
        message.pop();
        assert!(tuples(&message, 0, Change::Update, &mut old, &mut new).is_err());
    }

    proptest! {
        /// Whatever comes, it is read or refused.
        #[test]
        fn decoding_is_total(tag in prop::sample::select(b"BCRIUDTMYOx".to_vec()), rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = vec![tag];
            message.extend(rest);
            decode(&message);
        }

        /// The same for messages that are nearly right.
        #[test]
        fn decoding_survives_flipped_and_cut_bytes(
            which in 0..4_usize, at in any::<prop::sample::Index>(), flip in any::<u8>(), end in any::<prop::sample::Index>(),
        ) {
            let whole: [&[u8]; 4] = [
                b"U\0\0\0\x07O\0\x02b\0\0\0\x01xnN\0\x02t\0\0\0\x02yzu",
                b"R\0\0\0\x07public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0pad\0\0\0\0\x19\xff\xff\xff\xff",
                b"T\0\0\0\x02\x03\0\0\0\x07\0\0\0\x08",
                b"M\x01\0\0\0\0\0\0\0\x09causeway.fence\0\0\0\0\x05token",
            ];
            let mut message = whole[which].to_vec();
            let at = at.index(message.len());
            message[at] ^= flip;
            message.truncate(end.index(message.len()) + 1);
            decode(&message);
        }
    }

    fn decode(message: &[u8]) {
        match read(message) {
            Ok(Message::Relation { body, .. }) => drop(Relation::read(body)),
            Ok(Message::Row { change, .. }) => {
                let (mut old, mut new) = (Vec::new(), Vec::new());
                if tuples(message, 0, change, &mut old, &mut new).is_ok() {
                    old.iter().chain(&new).for_each(|value| drop(value.of(message).to_vec()));
                }
            }
            _ => {}
        }
    }
}
