//! What clients were told is written, in order: the measure of everything that is read back.

use engines::memory::MemoryInstance;
use handover::DatabaseName;
use rand::{Rng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use xxhash_rust::xxh3::xxh3_64;

/// Keys that are written to again and again.
const KEYS: u32 = 60;

type Rows = BTreeMap<String, String>;

/// The history of one database.
pub struct Ledger {
    /// The database.
    pub name: DatabaseName,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: Rows,
    hash: u64,
    /// The hash of all rows after each acknowledged write, the first before any.
    after: Vec<u64>,
    made: u64,
    /// Where the last write was taken.
    at_east: bool,
}

impl Ledger {
    /// An empty history.
    pub fn new(name: &str) -> Self {
        let name = DatabaseName::parse(name).expect("a plain name");
        Self { name, state: Mutex::new(State { after: vec![0], ..State::default() }) }
    }

    /// A client writes something, first where it could write last, and notes it if it is told that it is written.
    /// `anywhere`: also at the other instance, as a client does that follows its database.
    pub fn write(&self, west: &MemoryInstance, east: &MemoryInstance, anywhere: bool, rng: &mut StdRng) {
        let mut state = self.lock();
        state.made += 1;
        let key = format!("row {}", rng.random_range(0..KEYS));
        // Each value is written once, so that nothing can be taken for something else.
        let length = rng.random_range(0..120);
        let value = rng.random_bool(0.9).then(|| format!("{} {}", state.made, "x".repeat(length)));
        let mut order = [(west, false), (east, true)];
        if state.at_east {
            order.swap(0, 1);
        }
        let places = if anywhere { 2 } else { 1 };
        for (instance, is_east) in order.into_iter().take(places) {
            if instance.write(&self.name, &key, value.as_deref()).is_ok() {
                state.at_east = is_east;
                state.note(key, value);
                return;
            }
        }
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.lock().after.len() - 1
    }

    /// What is wrong with `rows`, if they are not what all acknowledged writes come to.
    pub fn judge(&self, rows: &Rows) -> Option<String> {
        let state = self.lock();
        if *rows == state.rows {
            return None;
        }
        let differing: Vec<&String> =
            state.rows.iter().filter(|(key, value)| rows.get(*key) != Some(value)).map(|(key, _)| key).collect();
        let surplus = rows.keys().filter(|key| !state.rows.contains_key(*key)).count();
        Some(format!(
            "{} has {} rows lost or changed ({:?} ...) and {surplus} that should not be there, after {} acknowledged writes",
            self.name,
            differing.len(),
            differing.first(),
            state.after.len() - 1
        ))
    }

    /// What is wrong with `rows`, if they are not what the first so many writes come to, at least `least` of them.
    pub fn judge_prefix(&self, rows: &Rows, least: usize) -> Option<String> {
        let state = self.lock();
        let found = hash(rows);
        if state.after[least..].contains(&found) {
            return None;
        }
        Some(match state.after.iter().position(|after| *after == found) {
            Some(at) => format!("{} is as after {at} writes, {least} were asked for", self.name),
            None => format!("{} was never as it is now", self.name),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, key: String, value: Option<String>) {
        if let Some(old) = self.rows.get(&key) {
            self.hash ^= row_hash(&key, old);
        }
        match value {
            Some(value) => {
                self.hash ^= row_hash(&key, &value);
                self.rows.insert(key, value);
            }
            None => drop(self.rows.remove(&key)),
        }
        self.after.push(self.hash);
    }
}

fn row_hash(key: &str, value: &str) -> u64 {
    xxh3_64(format!("{key}\0{value}").as_bytes())
}

fn hash(rows: &Rows) -> u64 {
    rows.iter().fold(0, |sum, (key, value)| sum ^ row_hash(key, value))
}
