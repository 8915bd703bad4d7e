//! How much log may be retained for an operation: so many bytes, and a share of the disk where that can be seen.

use super::Inner;
use crate::{
    Result,
    postgres::{disk, sql::Sql},
};
use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How often the free space of the disk is asked for.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the disk that holds the log.
#[derive(Default)]
pub(super) struct LogDisk {
    directory: tokio::sync::OnceCell<Option<PathBuf>>,
    seen: Mutex<Option<(Duration, Option<u64>)>>,
}

impl LogDisk {
    /// Its free bytes; nothing where it cannot be seen from here.
    pub(super) async fn free_bytes(&self, inner: &Inner, sql: &Sql) -> Result<Option<u64>> {
        let find = async { find(inner, sql).await };
        let Some(directory) = self.directory.get_or_try_init(|| find).await? else { return Ok(None) };
        let now = inner.host.monotonic();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((at, free)) if now.saturating_sub(at) < LOOK_EVERY => Ok(free),
            _ => {
                let free = inner.host.free_bytes(directory).ok();
                *seen = Some((now, free));
                Ok(free)
            }
        }
    }
}

/// The directory of the log, which may be a link to another disk. A server that is replaced is another agent's.
async fn find(inner: &Inner, sql: &Sql) -> Result<Option<PathBuf>> {
    let directory = disk::data_directory(&inner.config, sql).await?.map(|data| data.join("pg_wal"));
    let in_sight = directory.filter(|directory| inner.host.free_bytes(directory).is_ok());
    if in_sight.is_none() {
        tracing::warn!("the disk of pg_wal cannot be seen from here: retained log is bounded in bytes alone");
    }
    Ok(in_sight)
}

/// The cap for an operation that asked for so many bytes (0: the agent's default) and retains so many.
pub(super) async fn cap(inner: &Inner, sql: &Sql, asked: u64, retained: u64) -> Result<u64> {
    let setup = inner.config.setup();
    let bytes = if asked == 0 { setup.log_budget_bytes } else { asked };
    let share = inner.disk.free_bytes(inner, sql).await?.map(|free| share(free, retained, setup.free_share_percent));
    Ok(share.map_or(bytes, |share| share.min(bytes)))
}

/// A share of what would be free without the log that is retained, so that the cap does not shrink as the log grows.
fn share(free: u64, retained: u64, percent: u8) -> u64 {
    let share = u128::from(free.saturating_add(retained)) * u128::from(percent.min(100)) / 100;
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn what_is_retained_takes_nothing_from_the_share() {
        assert_eq!(share(1000, 0, 20), 200);
        assert_eq!(share(850, 150, 20), 200);
        assert_eq!(share(0, 0, 20), 0);
        assert_eq!(share(u64::MAX, u64::MAX, 100), u64::MAX);
    }
}
