//! What the two halves of the engine say to each other, opaque to all between them.

use crate::{Error, Result};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of these formats. The destination refuses another one, before anything is made.
pub(crate) const FORMAT: u32 = 1;

/// What a database needs at its destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requirements {
    pub(crate) format: u32,
    /// `server_version_num` of the source.
    pub(crate) server_version: u32,
    pub(crate) database: String,
    pub(crate) owner: String,
    #[serde(flatten)]
    pub(crate) locale: Locale,
    pub(crate) size_bytes: u64,
    /// Tablespaces that its objects or itself name, other than the default one.
    pub(crate) tablespaces: Vec<String>,
    pub(crate) extensions: Vec<Extension>,
    /// Roles that own something, hold a grant, or have a setting in the database.
    pub(crate) roles: Vec<Role>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extension {
    pub(crate) name: String,
    pub(crate) version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) login: bool,
    pub(crate) superuser: bool,
    pub(crate) inherit: bool,
    pub(crate) createdb: bool,
    pub(crate) createrole: bool,
    pub(crate) replication: bool,
    pub(crate) bypassrls: bool,
    /// Roles of this list, and others, that it is a member of.
    pub(crate) member_of: Vec<String>,
}

/// The header of a plan: what the parts are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanHeader {
    pub(crate) format: u32,
    /// Parts name their table by its place here.
    pub(crate) tables: Vec<Table>,
    /// One for each part of the plan, in its order; the first is the schema.
    pub(crate) parts: Vec<PartKind>,
    pub(crate) database: DatabaseProperties,
    /// `server_version_num` of the source: some of what the two sides compare differs from one major version to the next.
    #[serde(default)]
    pub(crate) server_version: u32,
    /// As in [`Requirements`]: those that the destination lacks are created, where its agent may.
    #[serde(default)]
    pub(crate) roles: Vec<Role>,
}

/// What a part holds, and so what its chunks are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PartKind {
    /// The bytes of a [`Schema`] as JSON, cut anywhere.
    Schema,
    /// Rows of heap pages `first..end` (no end: all from `first`) in COPY format, without the header and trailer of the binary
    /// format; a row larger than a chunk is cut. A last chunk that moves the offset by [`EMPTIED`] more than its bytes says
    /// that a TRUNCATE has emptied the table since the snapshot.
    Rows { table: u32, first: u32, end: Option<u32> },
    /// Large objects: records as [`large_objects`] writes them, whole ones in each chunk.
    LargeObjects,
}

/// See [`PartKind::Rows`].
pub(crate) const EMPTIED: u64 = 1;

/// A table whose rows are seeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The columns in the order of the rows; generated ones are not among them. There may be none.
    pub(crate) columns: Vec<String>,
    /// Whether its rows travel in the binary format; text where a type's binary form holds OIDs.
    pub(crate) binary: bool,
}

/// What belongs to the database itself, not to its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseProperties {
    pub(crate) owner: String,
    #[serde(flatten)]
    pub(crate) locale: Locale,
    pub(crate) tablespace: Option<String>,
    /// The limit that its clients had, -1 for none; given back by the flip.
    pub(crate) connection_limit: i32,
    /// Complete statements for comment, grants, settings (also of roles in this database) and labels.
    pub(crate) statements: Vec<String>,
}

/// What of a database is chosen when it is made and never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locale {
    /// As `pg_encoding_to_char` names it.
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    /// `c`, `i` or `b`, as in `pg_database.datlocprovider`.
    pub(crate) provider: String,
    /// Of the providers `i` and `b`.
    pub(crate) icu_locale: Option<String>,
}

/// The schema, as `pg_dump` wrote it, cut into its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schema {
    /// What every session that restores has to run first.
    pub(crate) preamble: String,
    /// Statements that drop what every new database has and this one has not, such as the schema `public`.
    #[serde(default)]
    pub(crate) dropped: Vec<String>,
    /// Before the data, in order.
    pub(crate) pre: Vec<Entry>,
    /// After the data, in order.
    pub(crate) post: Vec<Entry>,
    /// Schema and name of each materialized view that is populated; the dump leaves all of them empty.
    #[serde(default)]
    pub(crate) populated: Vec<(String, String)>,
}

/// One entry of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its number in the dump.
    pub(crate) id: u32,
    /// Entries that have to be there before.
    pub(crate) needs: Vec<u32>,
    /// `TABLE`, `INDEX`, `CONSTRAINT`, `FK CONSTRAINT`, ..., in the dump's words.
    pub(crate) kind: String,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Complete statements, with the settings they need.
    pub(crate) sql: String,
    /// Bytes of the index or of the constraint's table at the source, so that the biggest can go first; 0 if unknown.
    pub(crate) bytes: u64,
    /// To be restored only when everything is applied: a trigger that fires for replicated changes too, an event trigger.
    pub(crate) last: bool,
}

/// What the log does not carry, read after a fence or at a mark. Raw bytes may follow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Extra {
    /// Where sequences stand.
    Sequences(Vec<Sequence>),
    /// The large objects that exist; all others are to be unlinked.
    LargeObjectList(Vec<u32>),
    /// Whole large objects that changed since the seed; records as [`large_objects`] writes them follow.
    LargeObjects,
    /// Whole rows of an unlogged table follow, as in [`PartKind::Rows`]; before the `first` the table is emptied.
    Unlogged { table: Table, first: bool },
    /// The catalog of the source in a form that compares across versions, one line an object; the destination compares.
    /// The last extra of a marker: what is restored last is restored when it comes.
    Catalog(Vec<String>),
    /// Nothing: the last one of a marker, if there was no other.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sequence {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) last_value: i64,
    pub(crate) is_called: bool,
}

/// A payload of the log, as the source made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogPayload {
    /// Messages of pgoutput (protocol 1, binary), each after its length as a big-endian u32, as [`messages`] reads them. Every
    /// relation that a change names is described before it in the same payload.
    Changes(Bytes),
    /// What the log does not carry.
    Extra(Extra, Bytes),
}

const CHANGES: u8 = 0;
const EXTRA: u8 = 1;

impl LogPayload {
    /// A buffer in which messages are collected with [`put_message`]; frozen it is a payload of changes.
    pub(crate) fn changes_buffer(capacity: usize) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(capacity + 1);
        buffer.put_u8(CHANGES);
        buffer
    }

    /// The payload of an extra.
    pub(crate) fn extra(extra: &Extra, raw: &[u8]) -> Result<Bytes> {
        let json = encode(extra)?;
        let len = u32::try_from(json.len()).map_err(|_| Error::Internal("an extra of more than 4 GiB".to_owned()))?;
        let mut buffer = BytesMut::with_capacity(5 + json.len() + raw.len());
        buffer.put_u8(EXTRA);
        buffer.put_u32(len);
        buffer.put_slice(&json);
        buffer.put_slice(raw);
        Ok(buffer.freeze())
    }

    /// Reads a payload.
    pub(crate) fn read(mut payload: Bytes) -> Result<Self> {
        let bad = || Error::Corrupt("a log payload of no known kind".to_owned());
        if payload.is_empty() {
            return Err(bad());
        }
        match payload.get_u8() {
            CHANGES => Ok(LogPayload::Changes(payload)),
            EXTRA => {
                if payload.len() < 4 {
                    return Err(bad());
                }
                let len = payload.get_u32() as usize;
                if payload.len() < len {
                    return Err(bad());
                }
                let json = payload.split_to(len);
                Ok(LogPayload::Extra(decode(&json)?, payload))
            }
            _ => Err(bad()),
        }
    }
}

/// Adds a message to a buffer made by [`LogPayload::changes_buffer`].
pub(crate) fn put_message(buffer: &mut BytesMut, message: &[u8]) {
    buffer.put_u32(u32::try_from(message.len()).expect("a message of the server has less than 4 GiB"));
    buffer.put_slice(message);
}

/// The messages of [`LogPayload::Changes`], each with its place in the payload.
pub(crate) fn messages(changes: &[u8]) -> impl Iterator<Item = Result<&[u8]>> {
    let mut rest = changes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = rest
            .split_first_chunk::<4>()
            .and_then(|(len, after)| after.split_at_checked(u32::from_be_bytes(*len) as usize));
        match cut {
            Some((message, after)) => {
                rest = after;
                Some(Ok(message))
            }
            None => {
                rest = &[];
                Some(Err(Error::Corrupt("a log message is cut off".to_owned())))
            }
        }
    })
}

/// Large objects on the wire.
pub(crate) mod large_objects {
    use super::{Bytes, BytesMut, Error, Result};
    use bytes::{Buf as _, BufMut as _};

    /// One record: an object as a whole, or a piece of its content.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Record {
        /// The object comes into being, empty; what was there under its OID goes. `statements` give owner, grants, comment.
        Object { oid: u32, statements: String },
        /// A piece of the object's content.
        Piece { oid: u32, offset: u64, data: Bytes },
    }

    /// Adds a record.
    pub(crate) fn put(buffer: &mut BytesMut, record: &Record) {
        match record {
            Record::Object { oid, statements } => {
                buffer.put_u8(b'o');
                buffer.put_u32(*oid);
                buffer.put_u32(statements.len() as u32);
                buffer.put_slice(statements.as_bytes());
            }
            Record::Piece { oid, offset, data } => {
                buffer.put_u8(b'd');
                buffer.put_u32(*oid);
                buffer.put_u64(*offset);
                buffer.put_u32(data.len() as u32);
                buffer.put_slice(data);
            }
        }
    }

    /// Takes the next record, or nothing at the end.
    pub(crate) fn take(buffer: &mut Bytes) -> Result<Option<Record>> {
        let bad = || Error::Corrupt("a record of a large object is cut off".to_owned());
        if buffer.is_empty() {
            return Ok(None);
        }
        let kind = buffer.get_u8();
        let header = match kind {
            b'o' => 8,
            b'd' => 16,
            _ => return Err(bad()),
        };
        if buffer.len() < header {
            return Err(bad());
        }
        let oid = buffer.get_u32();
        let offset = if kind == b'd' { buffer.get_u64() } else { 0 };
        let len = buffer.get_u32() as usize;
        if buffer.len() < len {
            return Err(bad());
        }
        let data = buffer.split_to(len);
        Ok(Some(match kind {
            b'o' => Record::Object { oid, statements: String::from_utf8(data.into()).map_err(|_| bad())? },
            _ => Record::Piece { oid, offset, data },
        }))
    }
}

/// Writes one of these formats.
pub(crate) fn encode(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::Internal(format!("write JSON: {error}")))
}

/// Reads one of these formats.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Corrupt(format!("what the other half of the engine says cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::{large_objects::Record, *};

    #[test]
    fn payloads_are_read_as_they_were_written() {
        let mut buffer = LogPayload::changes_buffer(0);
        put_message(&mut buffer, b"one");
        put_message(&mut buffer, b"");
        let LogPayload::Changes(changes) = LogPayload::read(buffer.freeze()).expect("a payload") else { panic!() };
        let read: Vec<_> = messages(&changes).map(|m| m.expect("whole")).collect();
        assert_eq!(read, [&b"one"[..], b""]);

        let extra = Extra::LargeObjectList(vec![1, 2]);
        let payload = LogPayload::extra(&extra, b"raw").expect("small");
        assert_eq!(LogPayload::read(payload).expect("a payload"), LogPayload::Extra(extra, Bytes::from_static(b"raw")));
    }

    #[test]
    fn a_locale_is_flat_on_the_wire_and_in_memos() {
        let written = r#"{"owner":"o","encoding":"UTF8","collate":"C","ctype":"C","provider":"i","icu_locale":"de","tablespace":null,
            "connection_limit":-1,"statements":[]}"#;
        let read: DatabaseProperties = decode(written.as_bytes()).expect("format 1");
        assert_eq!((read.locale.provider.as_str(), read.locale.icu_locale.as_deref()), ("i", Some("de")));
        let again = encode(&read).expect("encode");
        let compact = written.replace(char::is_whitespace, "");
        assert_eq!(std::str::from_utf8(&again), Ok(compact.as_str()));
    }

    #[test]
    fn cut_payloads_are_errors_not_panics() {
        let payload = LogPayload::extra(&Extra::LargeObjectList(vec![7; 9]), b"").expect("small");
        for end in 0..payload.len() {
            assert!(matches!(LogPayload::read(payload.slice(..end)), Err(Error::Corrupt(_))), "{end}");
        }
        let mut buffer = BytesMut::new();
        put_message(&mut buffer, b"whole");
        for end in 1..buffer.len() {
            assert!(messages(&buffer[..end]).any(|m| m.is_err()), "{end}");
        }
        let mut buffer = BytesMut::new();
        large_objects::put(&mut buffer, &Record::Piece { oid: 1, offset: 2, data: Bytes::from_static(b"abc") });
        let whole = buffer.freeze();
        for end in 1..whole.len() {
            assert!(large_objects::take(&mut whole.slice(..end)).is_err(), "{end}");
        }
        let mut rest = whole;
        assert!(matches!(large_objects::take(&mut rest), Ok(Some(Record::Piece { oid: 1, offset: 2, .. }))));
        assert!(matches!(large_objects::take(&mut rest), Ok(None)));
    }
}
