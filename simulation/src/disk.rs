//! The coordinator's disk: what was not synced when the process dies with its machine may be there, in part, or not.

use crate::machine::{Effect, Process};
use coordinator::store::Medium;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use redb::DatabaseError;
use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The most a store may come to: a run that writes more has gone wrong.
const BYTES_MAX: u64 = 256 << 20;

/// One file on a disk.
pub struct Disk {
    state: Mutex<State>,
    /// A planted fault: syncs are answered and not done.
    pub lies: bool,
}

struct State {
    rng: StdRng,
    /// What is read back.
    now: Vec<u8>,
    /// What survives for sure.
    durable: Vec<u8>,
    /// What was done since the last sync, in order.
    pending: Vec<Change>,
    /// The file has its name: before, it is as if there were none.
    named: bool,
}

impl State {
    fn clear(&mut self) {
        self.now.clear();
        self.durable.clear();
        self.pending.clear();
    }
}

enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                let at = *at as usize;
                if file.len() < at + bytes.len() {
                    file.resize(at + bytes.len(), 0);
                }
                file[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Len(len) => file.resize(*len as usize, 0),
        }
    }
}

impl Disk {
    /// An empty file.
    pub fn new(seed: u64, lies: bool) -> Arc<Self> {
        let rng = StdRng::seed_from_u64(seed);
        let state = State { rng, now: Vec::new(), durable: Vec::new(), pending: Vec::new(), named: false };
        Arc::new(Self { state: Mutex::new(state), lies })
    }

    /// The disk as a process finds it.
    pub fn of(self: &Arc<Self>, process: &Process) -> DiskOf {
        DiskOf(OpenDisk { disk: self.clone(), process: process.clone() })
    }

    /// The machine lost its power: of what was not synced, each change is there or not.
    pub fn lose_power(&self) {
        let mut state = self.lock();
        let State { rng, now, durable, pending, .. } = &mut *state;
        let keep = rng.random_range(0.0..1.0);
        for change in pending.drain(..) {
            if rng.random_bool(keep) {
                change.apply(durable);
            }
        }
        now.clone_from(durable);
    }

    /// The disk is gone, and a new one is in its place.
    pub fn lose_everything(&self) {
        let mut state = self.lock();
        state.named = false;
        state.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disk as one process finds it.
pub struct DiskOf(OpenDisk);

impl Medium for DiskOf {
    type File = OpenDisk;

    fn open(&self) -> Result<Option<OpenDisk>, DatabaseError> {
        Ok(self.0.disk.lock().named.then(|| self.0.clone()))
    }

    fn make(&self) -> Result<OpenDisk, DatabaseError> {
        self.0.disk.lock().clear();
        Ok(self.0.clone())
    }

    fn put_in_place(&self) -> io::Result<()> {
        if let Some(error) = self.0.process.fault("name the store", Effect::Writes) {
            return Err(error);
        }
        self.0.disk.lock().named = true;
        Ok(())
    }
}

/// The file as one process has it open.
#[derive(Clone)]
pub struct OpenDisk {
    disk: Arc<Disk>,
    process: Process,
}

impl OpenDisk {
    fn change(&self, what: &str, change: Change) -> io::Result<()> {
        if let Some(error) = self.process.fault(what, Effect::Writes) {
            return Err(error);
        }
        let mut state = self.disk.lock();
        change.apply(&mut state.now);
        state.pending.push(change);
        Ok(())
    }
}

impl fmt::Debug for OpenDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated disk")
    }
}

impl redb::StorageBackend for OpenDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.process.dead() {
            return Err(io::Error::other("dead"));
        }
        let state = self.disk.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let held = from.checked_add(out.len()).and_then(|to| state.now.get(from..to));
        out.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.change("set the store's length", Change::Len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(error) = self.process.fault("sync the store", Effect::Writes) {
            return Err(error);
        }
        if !self.disk.lies {
            let mut state = self.disk.lock();
            let State { durable, pending, .. } = &mut *state;
            pending.drain(..).for_each(|change| change.apply(durable));
        }
        // Done, and perhaps nobody is told.
        match self.process.fault("after a sync of the store", Effect::Reads) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change("write the store", Change::Write(offset, data.to_vec()))
    }
}
