//! The durable note of the present generation of an operation's seed and log.

use super::identity;
use crate::{
    Error, Result,
    sqlite::{disk, wire::Point, wire::SeedHeader},
};
use handover::Position;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What must not change within a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    format: u8,
    /// Counted from 1.
    pub generation: u64,
    /// What the destination is told before the first part.
    pub header: SeedHeader,
    /// Where its log begins.
    pub log_start: Position,
    /// The boot in which it began: after another one files that are not synced may have holes.
    boot: String,
}

const FORMAT: u8 = 1;

impl Generation {
    /// One that begins now.
    pub fn new(generation: u64, header: SeedHeader, log_start: Point) -> Result<Self> {
        Ok(Self { format: FORMAT, generation, header, log_start: log_start.position(), boot: identity::boot()? })
    }

    /// Whether the machine has run since it began.
    pub fn same_boot(&self) -> Result<bool> {
        Ok(self.boot == identity::boot()?)
    }

    /// Where its log begins.
    pub fn start(&self) -> Result<Point> {
        Point::parse(&self.log_start)
    }

    /// The newest one in an operation's directory. A note that cannot be read counts as none: the seed is verified then.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let mut newest = None;
        for path in disk::list(dir)? {
            if let Some(epoch) = parse_name(&path) {
                newest = newest.max(Some((epoch, path)));
            }
        }
        let Some((_, path)) = newest else { return Ok(None) };
        let Some(bytes) = disk::read(&path)? else { return Ok(None) };
        Ok(serde_json::from_slice::<Self>(&bytes).ok().filter(|g| g.format == FORMAT && g.start().is_ok()))
    }

    /// Notes it durably under the epoch of this agent, so that one that was superseded overwrites nothing.
    pub fn save(&self, dir: &Path, epoch: u64) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::Internal(format!("encode a generation: {e}")))?;
        disk::replace(dir, &format!("generation-{epoch:010}.json"), &bytes)
    }
}

fn parse_name(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("generation-")?.strip_suffix(".json")?.parse().ok()
}
