//! What many changes come to: at most one operation for each key.
//!
//! Nobody reads the destination before the flip, so what happens in between need not happen there.

use super::table::{Key, Table};
use crate::{
    Error, Result,
    postgres::log::pgoutput::{self, Change, Kind, Value},
};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One change for one worker: a message of a payload, or half of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Its table's place among the router's.
    pub(super) table: u32,
    /// Where its message begins in the payload.
    pub(super) at: u32,
    pub(super) act: Act,
    /// Of the key that it is about.
    pub(super) hash: u64,
}

/// What a change does to the row with the key that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Insert,
    Update,
    Delete,
    /// An update takes the row away from its old key.
    Leave,
    /// It brings it to its new one.
    Arrive,
}

/// The images of a row in a message.
#[derive(Debug, Default)]
pub(super) struct Images {
    pub(super) old: Vec<Value>,
    pub(super) new: Vec<Value>,
    pub(super) whole: bool,
}

impl Images {
    /// Reads the message at `at`; what an update leaves unchanged is taken from the old row, if that came.
    pub(super) fn read(&mut self, table: &Table, bytes: &[u8], at: u32, change: Change, piece: u16) -> Result<()> {
        self.whole = pgoutput::tuples(bytes, at as usize, change, &mut self.old, &mut self.new)?;
        let width = table.columns.len();
        let fits = |image: &Vec<Value>| image.is_empty() || image.len() == width;
        if !fits(&self.old) || !fits(&self.new) {
            return Err(Error::Corrupt(format!("a row of {}.{} with other columns", table.schema, table.name)));
        }
        for value in self.old.iter_mut().chain(&mut self.new) {
            value.piece = piece;
        }
        if !self.old.is_empty() && !self.new.is_empty() {
            for (n, (new, old)) in self.new.iter_mut().zip(&self.old).enumerate() {
                let known = self.whole || table.key_columns().is_some_and(|key| key.iter().any(|(k, _)| *k == n));
                if new.kind == Kind::Unchanged && known {
                    *new = *old;
                }
            }
        }
        Ok(())
    }
}

/// The change that the message at `at` tells, by its first byte.
pub(super) fn change_at(bytes: &[u8], at: u32) -> Change {
    match bytes.get(at as usize) {
        Some(b'I') => Change::Insert,
        Some(b'U') => Change::Update,
        _ => Change::Delete,
    }
}

/// Hashes what finds the row. Checkpoints of shares stay behind in the destination, so the hash has to be the same in every
/// version.
#[inline]
pub(super) fn hash(table: &Table, image: &[Value], bytes: &[u8]) -> u64 {
    let add = |seed: u64, value: &Value| {
        let null = u64::from(value.kind == Kind::Null);
        xxh3_64_with_seed(value.of(bytes), seed.wrapping_add(null))
    };
    match &table.key {
        Key::Columns(columns) => columns.iter().fold(0, |seed, (n, _)| add(seed, &image[*n])),
        Key::Whole { .. } => image.iter().fold(0, add),
    }
}

/// Whether two images of one message have the same key.
pub(super) fn same_key(table: &Table, one: &[Value], two: &[Value], bytes: &[u8]) -> bool {
    let equal = |one: &Value, two: &Value| one.kind == two.kind && one.of(bytes) == two.of(bytes);
    match &table.key {
        Key::Columns(columns) => columns.iter().all(|(n, _)| equal(&one[*n], &two[*n])),
        Key::Whole { .. } => one.iter().zip(two).all(|(one, two)| equal(one, two)),
    }
}

/// The net changes of one table.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) table: Arc<Table>,
    pub(super) ops: Vec<Op>,
    values: Vec<Value>,
    by_hash: FxHashMap<u64, u32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) kind: OpKind,
    /// Of a table without a key: how many such rows more or fewer.
    pub(super) count: i64,
    row: u32,
    /// Another one with the same hash, or `NONE`.
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpKind {
    Nothing,
    Insert,
    Update,
    /// Deleted, and inserted again.
    Replace,
    Delete,
}

const NONE: u32 = u32::MAX;

impl Net {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, ops: Vec::new(), values: Vec::new(), by_hash: FxHashMap::default() }
    }

    /// The row of an operation: the new one, or of a deletion the old one, of which only the key is sure.
    pub(super) fn row(&self, op: &Op) -> &[Value] {
        &self.values[op.row as usize..][..self.table.columns.len()]
    }

    /// Takes an insert in where nothing but inserts comes: nothing has to be found again.
    pub(super) fn append(&mut self, images: &Images) -> Result<()> {
        let row = self.keep(&images.new)?;
        self.ops.push(Op { kind: OpKind::Insert, count: 1, row, next: NONE });
        Ok(())
    }

    fn keep(&mut self, image: &[Value]) -> Result<u32> {
        let row = u32::try_from(self.values.len()).map_err(|_| Error::Internal("a batch too large".to_owned()))?;
        self.values.extend_from_slice(image);
        Ok(row)
    }

    /// Takes a change in. `pieces` are the payloads that values refer to.
    pub(super) fn add(&mut self, pieces: &[Bytes], act: Act, hash: u64, images: &Images) -> Result<()> {
        let image = if matches!(act, Act::Delete | Act::Leave) { &images.old } else { &images.new };
        let known = self.find(pieces, hash, image);
        let Some(known) = known else {
            let kind = match act {
                Act::Insert | Act::Arrive => OpKind::Insert,
                Act::Update => OpKind::Update,
                Act::Delete | Act::Leave => OpKind::Delete,
            };
            let place = u32::try_from(self.ops.len()).unwrap_or(NONE);
            let next = self.by_hash.insert(hash, place).unwrap_or(NONE);
            let row = self.keep(image)?;
            let count = if kind == OpKind::Delete { -1 } else { 1 };
            self.ops.push(Op { kind, count, row, next });
            return Ok(());
        };
        let op = &mut self.ops[known as usize];
        if matches!(self.table.key, Key::Whole { .. }) {
            op.count += if matches!(act, Act::Delete | Act::Leave) { -1 } else { 1 };
            return Ok(());
        }
        op.kind = match (op.kind, act) {
            (OpKind::Insert, Act::Update) => OpKind::Insert,
            (OpKind::Insert, Act::Delete | Act::Leave) => OpKind::Nothing,
            (OpKind::Update, Act::Update) => OpKind::Update,
            (OpKind::Replace, Act::Update) => OpKind::Replace,
            (OpKind::Update | OpKind::Replace, Act::Delete | Act::Leave) => OpKind::Delete,
            (OpKind::Delete, Act::Insert | Act::Arrive) => OpKind::Replace,
            (OpKind::Nothing, Act::Insert | Act::Arrive) => OpKind::Insert,
            (kind, act) => {
                let Table { schema, name, .. } = &*self.table;
                return Err(Error::Corrupt(format!("the log of {schema}.{name} has {act:?} after {kind:?}")));
            }
        };
        let from = op.row as usize;
        for (value, new) in self.values[from..].iter_mut().zip(image) {
            // A row that was deleted has nothing to leave unchanged: an insert brings every value.
            if new.kind != Kind::Unchanged {
                *value = *new;
            }
        }
        Ok(())
    }

    fn find(&self, pieces: &[Bytes], hash: u64, image: &[Value]) -> Option<u32> {
        let mut at = self.by_hash.get(&hash).copied().unwrap_or(NONE);
        while let Some(op) = self.ops.get(at as usize) {
            if self.same(pieces, self.row(op), image) {
                return Some(at);
            }
            at = op.next;
        }
        None
    }

    fn same(&self, pieces: &[Bytes], one: &[Value], two: &[Value]) -> bool {
        let equal = |one: &Value, two: &Value| {
            one.kind == two.kind && one.of(&pieces[usize::from(one.piece)]) == two.of(&pieces[usize::from(two.piece)])
        };
        match &self.table.key {
            Key::Columns(columns) => columns.iter().all(|(n, _)| equal(&one[*n], &two[*n])),
            Key::Whole { .. } => one.iter().zip(two).all(|(one, two)| equal(one, two)),
        }
    }
}
