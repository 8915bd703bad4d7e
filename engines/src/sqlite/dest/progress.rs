//! What is durable of a replica, as recorded beside it.

use super::staging::PROGRESS;
use crate::{
    Error, Result,
    dest::Durable,
    source::{Held, HeldPart},
    sqlite::{
        disk,
        wire::{Journal, Point, SeedHeader},
    },
};
use handover::Position;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// How far one part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartProgress {
    /// Bytes from its start.
    pub bytes: u64,
    /// Whether it is whole.
    pub done: bool,
}

/// How far a replica is. In memory it tells what was received, on disk what a crash does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub format: u8,
    pub generation: u64,
    pub header: SeedHeader,
    /// Whether pages are compared with the source's rather than all sent.
    pub verify: bool,
    pub log_start: Position,
    pub parts: BTreeMap<u32, PartProgress>,
    /// How long the source said the file is, with the last chunk.
    pub file_bytes: Option<u64>,
    pub seeded: bool,
    /// The end of the log received; `None` stands for `log_start`.
    pub log: Option<Position>,
    /// Whether a transaction ends there.
    pub at_commit: bool,
    /// How many pages the database has after the last commit; 0 if there was none.
    pub pages: u32,
    /// Bytes of log in the spool.
    pub spool_bytes: u64,
    /// Nothing beyond this point of the log was ever applied to the file of this generation. It is recorded before it is
    /// passed, in coarse steps.
    pub bound: u64,
}

const FORMAT: u8 = 1;

impl Progress {
    /// At the start of a plan.
    pub fn new(generation: u64, header: SeedHeader, verify: bool, log_start: Position) -> Self {
        Self {
            format: FORMAT,
            generation,
            header,
            verify,
            log_start,
            parts: BTreeMap::new(),
            file_bytes: None,
            seeded: false,
            log: None,
            // A database with a WAL that is copied while no frame is written is as it was. With a rollback journal only
            // the pass under the write lock makes it whole.
            at_commit: header.journal == Journal::Wal,
            pages: 0,
            spool_bytes: 0,
            bound: 0,
        }
    }

    /// Reads the record of a directory, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(PROGRESS);
        let Some(bytes) = disk::read(&path)? else { return Ok(None) };
        let progress: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Corrupt(format!("progress record {}: {e}", path.display())))?;
        if progress.format != FORMAT {
            return Err(Error::Corrupt(format!("progress record {}: unknown format", path.display())));
        }
        Ok(Some(progress))
    }

    /// Records it durably.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::Internal(format!("encode a progress record: {e}")))?;
        disk::replace(dir, PROGRESS, &bytes)
    }

    /// The end of the log received.
    pub fn log_end(&self) -> &Position {
        self.log.as_ref().unwrap_or(&self.log_start)
    }

    /// Whether the file is a consistent database if it holds exactly what is told here.
    pub fn is_consistent(&self) -> Result<bool> {
        Ok(self.seeded && self.at_commit && Point::parse(self.log_end())?.seq() >= self.bound)
    }

    /// How long the file is at the last commit, or after the seed if there was none.
    pub fn database_bytes(&self) -> u64 {
        match self.pages {
            0 => self.file_bytes.unwrap_or(self.header.file_bytes),
            pages => u64::from(pages) * u64::from(self.header.page_size),
        }
    }

    /// The part that is not whole, if there is one.
    pub fn missing_part(&self) -> Option<u32> {
        (0..self.header.parts()).find(|part| self.parts.get(part).is_none_or(|p| !p.done))
    }
}

/// What `durable` and `received` together tell the source.
pub(super) fn tell(durable: Option<&Progress>, received: Option<&Progress>) -> Durable {
    let Some(durable) = durable else { return Durable::default() };
    let parts = durable.parts.iter().map(|(part, p)| HeldPart { part: *part, durable: p.bytes, done: p.done });
    Durable {
        held: Held {
            generation: durable.generation,
            parts: parts.collect(),
            seeded: durable.seeded,
            log: received.and_then(|r| r.log.clone()),
        },
        log: durable.log.clone(),
    }
}
