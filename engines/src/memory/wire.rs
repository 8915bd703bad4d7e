//! Positions and payloads of the in-memory engine; JSON, because nobody counts its bytes.

use crate::{Error, Result};
use bytes::Bytes;
use handover::Position;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Parts of every seed.
pub const PARTS: u32 = 4;

/// The part a row belongs to; both ends agree on it.
pub fn part_of(key: &str) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(key.as_bytes()) % u64::from(PARTS)) as u32
}

/// A point in a database's log: which unbroken log, and how many changes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    pub log: u64,
    pub seq: u64,
}

impl Point {
    pub fn position(self) -> Position {
        Position::parse(&format!("{}.{}", self.log, self.seq)).expect("digits and a dot are a position")
    }

    pub fn parse(position: &Position) -> Result<Self> {
        let parsed = position
            .as_str()
            .split_once('.')
            .and_then(|(log, seq)| Some(Point { log: log.parse().ok()?, seq: seq.parse().ok()? }));
        parsed.ok_or_else(|| Error::Corrupt(format!("{position} is not a position of the in-memory engine")))
    }
}

/// One change: a row set, or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: String,
    pub value: Option<String>,
}

/// What a chunk carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    pub set: Vec<(String, String)>,
    /// Keys that the source does not have; only in the last chunk of a part that is verified.
    pub remove: Vec<String>,
}

/// What the destination holds of a part.
pub type Digest = BTreeMap<String, u64>;

pub fn hash(value: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(value.as_bytes())
}

pub fn encode(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| Error::Internal(format!("encode a payload: {e}")))
}

pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Corrupt(format!("read {what}: {e}")))
}
