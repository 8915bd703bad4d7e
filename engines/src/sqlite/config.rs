//! What can be set for the SQLite engine, with units and reasons for the defaults.

use super::disk;
use crate::Result;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Settings of both halves of the engine for one instance. [`SqliteConfig::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The instance: the directory of the database files.
    pub dir: PathBuf,
    /// How long a living lock holder must have shown no sign of life before its lock is taken. Default 10 s: ten times
    /// the heartbeat, so that a busy disk does not cost an agent its lock.
    pub takeover_after: Duration,
    /// The most bytes of log retained at the source for one operation. Default 10 GiB; see [`SqliteConfig::log_budget`].
    pub log_budget_bytes: u64,
    /// The share of the free disk, in percent, that retained log may take. Default 20: applications keep four fifths.
    pub free_share_percent: u8,
    /// Frames in the WAL at which the source makes room for a restart of it by force. Default 16384: 64 MiB of 4 KiB
    /// pages, where readers begin to feel the length of a WAL.
    pub rotate_frames: u32,
    /// Bytes of one spool segment at the source; retained log is freed in steps of it. Default 16 MiB.
    pub spool_segment_bytes: u64,
    /// How often the source looks for new frames while there are some. Default 1 ms: it adds to the freeze.
    pub poll_active: Duration,
    /// How often the source looks for new frames while there are none. Default 5 ms: not to be seen in CPU time.
    pub poll_idle: Duration,
    /// The longest that frames wait for the WAL sync that lets them be shipped, under load. Default 15 ms: some 60
    /// syncs a second, whatever the rate of transactions.
    pub wal_sync_interval: Duration,
    /// Bytes received at the destination after which they are synced in the background. Default 32 MiB: dirty pages
    /// stay few, and a sync asked for finds little left to do.
    pub sync_every_bytes: u64,
    /// How many frames the destination may apply beyond the last recorded bound before it records a new one. Default
    /// 65536: one small sync for 256 MiB of 4 KiB pages; after a crash at most so many are awaited before the replica
    /// counts as consistent.
    pub apply_ahead_frames: u64,
    /// Free bytes that the destination's preflight wants beyond the seed itself. Default 64 MiB, for log that arrives
    /// while seeding and for the first WAL.
    pub reserve_bytes: u64,
}

impl SqliteConfig {
    /// The defaults for the instance in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            takeover_after: Duration::from_secs(10),
            log_budget_bytes: 10 << 30,
            free_share_percent: 20,
            rotate_frames: 16 << 10,
            spool_segment_bytes: 16 << 20,
            poll_active: Duration::from_millis(1),
            poll_idle: Duration::from_millis(5),
            wal_sync_interval: Duration::from_millis(15),
            sync_every_bytes: 32 << 20,
            apply_ahead_frames: 64 << 10,
            reserve_bytes: 64 << 20,
        }
    }

    /// The cap for an operation that retains `retained` bytes now: the smaller of `log_budget_bytes` and
    /// `free_share_percent` of what the disk had free without them. Free is what statvfs says an unprivileged process
    /// may take (`f_bavail`); adding what is retained keeps the cap from shrinking as the log grows.
    pub fn log_budget(&self, retained: u64) -> Result<u64> {
        let free = disk::free_bytes(&self.dir)?.saturating_add(retained);
        let share = u128::from(free) * u128::from(self.free_share_percent.min(100)) / 100;
        Ok(self.log_budget_bytes.min(u64::try_from(share).unwrap_or(u64::MAX)))
    }

    /// Where everything of ours lies.
    pub fn ours(&self) -> PathBuf {
        self.dir.join(super::OURS)
    }

    /// The path of the database called `name`.
    pub fn database(&self, name: &handover::DatabaseName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// The instance's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
