//! The store of one half of an instance: its lock, its epoch and its role records, in `.causeway/<half>/`.
//!
//! An agent that was stopped and wakes up must not be able to undo anything, so nothing here relies on a lock that a
//! stopped process could sit on. Every take-over makes a directory of its own, named by its epoch, and the highest one
//! is the one that counts. To appear, a directory is renamed to its final name with its lock held and its heartbeat in
//! it; a name that is taken makes that rename fail, so of two agents one wins. Only then are the records of the one
//! before copied, and only then may the new holder act.
//!
//! Every write goes to the writer's own directory, is made durable, and is answered only if that directory still is the
//! highest. So a record written before the take-over is copied, and one written after it is never answered. An effect
//! on users' files calls [`Store::check`] as its last step.

mod takeover;

use super::disk;
use crate::{Error, Result, host::Host};
use handover::{CommandVersion, Epoch, OperationId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Which half of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The source half.
    Source,
    /// The destination half.
    Dest,
}

impl Half {
    fn as_str(self) -> &'static str {
        match self {
            Half::Source => "source",
            Half::Dest => "dest",
        }
    }
}

/// The store of one half. Its calls block for a few file operations; all but [`Store::take_over`] are for
/// [`Host::blocking`].
pub struct Store {
    home: PathBuf,
    takeover_after: Duration,
    host: Arc<dyn Host>,
    held: Mutex<Option<Arc<Held>>>,
}

/// What a holder holds.
struct Held {
    epoch: u64,
    dir: PathBuf,
    /// flock, which the kernel lets go of when the process ends, however it ends.
    _lock: File,
    heartbeat: File,
}

/// How a record lies on disk.
#[derive(Serialize, Deserialize)]
struct Record<R> {
    format: u8,
    role: R,
}

const FORMAT: u8 = 1;
const LOCK: &str = "lock";
const HEARTBEAT: &str = "heartbeat";
/// Written last at a take-over, so a directory that has it is complete.
const WATERMARK: &str = "watermark";

impl Store {
    /// The store of `half` in the instance at `dir`. Touches nothing yet.
    pub fn new(dir: &Path, half: Half, takeover_after: Duration, host: Arc<dyn Host>) -> Self {
        Self { home: dir.join(super::OURS).join(half.as_str()), takeover_after, host, held: Mutex::new(None) }
    }

    /// The directory of this half: `.causeway/source` or `.causeway/dest`. Names in it that are numbers are the store's.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Takes the lock; returns once it is held. From a dead holder it is taken at once, from a living one after that has
    /// shown no sign of life for the take-over time. Whoever holds it already gets the same epoch again.
    pub async fn take_over(self: &Arc<Self>) -> Result<Epoch> {
        takeover::take_over(self).await
    }

    /// The epoch of the holder, which may have been superseded meanwhile.
    pub fn epoch(&self) -> Result<Epoch> {
        self.held().map(|held| Epoch(held.epoch))
    }

    /// Fails with [`Error::Superseded`] if somebody took over. The last thing to do before an effect.
    pub fn check(&self) -> Result<Epoch> {
        let held = self.held()?;
        match newest(&self.home)? {
            Some(newer) if newer > held.epoch => Err(Error::Superseded { ours: held.epoch, newer }),
            Some(_) => Ok(Epoch(held.epoch)),
            None => Err(Error::Corrupt(format!("{} was removed while this agent runs", held.dir.display()))),
        }
    }

    /// Gives a sign of life, then checks. Removes what agents left that were superseded while they were stopped, once they
    /// have ended: their records may be of operations that ended since.
    pub fn beat(&self) -> Result<()> {
        let held = self.held()?;
        // Not durable: it is for those who live while this process does.
        let now = format!("{:>20}\n", self.host.monotonic().as_nanos());
        held.heartbeat.write_all_at(now.as_bytes(), 0).map_err(|e| Error::io("write the heartbeat", e))?;
        self.check()?;
        takeover::tidy(&self.home, held.epoch)
    }

    /// Whether the holder of an epoch other than ours may still be alive, stopped perhaps: then it may hold descriptors
    /// and write through them when it wakes up.
    pub fn maybe_alive(&self, epoch: Epoch) -> Result<bool> {
        if self.held()?.epoch == epoch.0 {
            return Ok(false);
        }
        takeover::is_locked(&self.home.join(epoch.to_string()))
    }

    /// All records.
    pub fn records<R: DeserializeOwned>(&self) -> Result<Vec<R>> {
        let held = self.held()?;
        let mut records = vec![];
        for path in disk::list(&held.dir)? {
            if is_record(&path)
                && let Some(bytes) = disk::read(&path)?
            {
                records.push(decode(&path, &bytes)?);
            }
        }
        self.check()?;
        Ok(records)
    }

    /// The record of an operation, if there is one.
    pub fn record<R: DeserializeOwned>(&self, operation: &OperationId) -> Result<Option<R>> {
        let path = self.held()?.dir.join(record_name(operation));
        let record = disk::read(&path)?.map(|bytes| decode(&path, &bytes)).transpose()?;
        self.check()?;
        Ok(record)
    }

    /// Writes the record of an operation; it is durable once this returns.
    pub fn put<R: Serialize>(&self, operation: &OperationId, role: &R) -> Result<()> {
        let held = self.held()?;
        let bytes = serde_json::to_vec(&Record { format: FORMAT, role })
            .map_err(|e| Error::Internal(format!("encode a role record: {e}")))?;
        self.check()?;
        disk::replace(&held.dir, &record_name(operation), &bytes)?;
        self.check().map(|_| ())
    }

    /// Removes the record of an operation and raises the watermark to `version`, durably; the watermark goes first, so
    /// that no crash leaves the door open to a late command.
    pub fn remove(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        let held = self.held()?;
        self.check()?;
        if read_watermark(&held.dir)? < version {
            write_watermark(&held.dir, version)?;
        }
        self.check()?;
        if disk::remove(&held.dir.join(record_name(operation)))? {
            disk::sync_dir(&held.dir)?;
        }
        self.check().map(|_| ())
    }

    /// The highest version with which a record was removed.
    pub fn watermark(&self) -> Result<CommandVersion> {
        let watermark = read_watermark(&self.held()?.dir)?;
        self.check()?;
        Ok(watermark)
    }

    fn held(&self) -> Result<Arc<Held>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().ok_or_else(|| Error::Misuse("the lock of this half was not taken yet".to_owned()))
    }
}

/// The highest epoch in a half's directory.
fn newest(home: &Path) -> Result<Option<u64>> {
    Ok(epochs(home)?.into_iter().max())
}

/// All epochs that have a directory.
fn epochs(home: &Path) -> Result<Vec<u64>> {
    let entries = match std::fs::read_dir(home) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(Error::io(format!("list {}", home.display()), e)),
    };
    let mut found = vec![];
    for entry in entries {
        let name = entry.map_err(|e| Error::io(format!("list {}", home.display()), e))?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    Ok(found)
}

fn record_name(operation: &OperationId) -> String {
    // An operation id holds letters, digits and '-' only, so it is a safe file name.
    format!("role-{operation}.json")
}

fn is_record(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("role-") && n.ends_with(".json"))
}

fn decode<R: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<R> {
    let corrupt = |why: String| Error::Corrupt(format!("role record {}: {why}", path.display()));
    // serde's message may quote a field's value; the line and column say enough, and the file holds a token.
    let record: Record<R> =
        serde_json::from_slice(bytes).map_err(|e| corrupt(format!("line {}, column {}", e.line(), e.column())))?;
    if record.format != FORMAT { Err(corrupt(format!("unknown format {}", record.format))) } else { Ok(record.role) }
}

fn read_watermark(dir: &Path) -> Result<CommandVersion> {
    let path = dir.join(WATERMARK);
    let Some(bytes) = disk::read(&path)? else { return Ok(CommandVersion(0)) };
    let version = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok());
    version.map(CommandVersion).ok_or_else(|| Error::Corrupt(format!("{} is not a number", path.display())))
}

fn write_watermark(dir: &Path, version: CommandVersion) -> Result<()> {
    disk::replace(dir, WATERMARK, format!("{version}\n").as_bytes())
}

#[cfg(test)]
mod tests;
