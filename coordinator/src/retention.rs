//! Forgetting operations that ended long ago, so that the store does not grow for ever.

use std::{collections::HashSet, sync::Arc, time::Duration};

use handover::{
    DatabaseName, InstanceName,
    operation::{Operation, Times},
};

use crate::{core::Core, store};

/// How often the store is looked through: days are what is counted, and a look reads every operation.
const EVERY: Duration = Duration::from_secs(3600);
/// Operations read from the store at once.
const READ: usize = 256;

/// What an operation is about: of each the newest is kept.
type Subject = (InstanceName, InstanceName, DatabaseName);

/// Forgets what is old, at once and then now and then, until shutdown.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.shutdown.wait() => return,
            swept = sweep(&core) => match swept {
                Ok(0) => {}
                Ok(forgotten) => tracing::info!(forgotten, "forgot operations that ended long ago"),
                Err(error) => tracing::warn!(%error, "forget operations that ended long ago, trying again later"),
            },
        }
        tokio::select! {
            biased;
            () = core.shutdown.wait() => return,
            () = core.env.sleep(EVERY) => {}
        }
    }
}

/// Goes through all operations from the newest down; answers how many were forgotten.
async fn sweep(core: &Core) -> Result<usize, store::Error> {
    let now_ms = core.now_ms();
    let mut newer: HashSet<Subject> = HashSet::new();
    // Read once there is something to forget.
    let mut requests = None;
    let (mut before, mut forgotten) = (None, 0);
    loop {
        let page = core.records.newest(before.as_ref(), READ).await?;
        let full = page.len() == READ;
        for stored in page {
            let Operation { source, destination, database, times, batch, .. } = stored.operation();
            let newest = newer.insert((source.clone(), destination.clone(), database.clone()));
            if !newest && outlived(times, core.limits.keep_ended, now_ms) {
                let requests = match &requests {
                    Some(requests) => requests,
                    None => requests.insert(core.records.requests().await?),
                };
                core.records.forget(&stored, requests.get(batch)).await?;
                forgotten += 1;
            }
            before = Some(stored.id().clone());
        }
        if !full {
            break;
        }
    }
    Ok(forgotten)
}

/// Whether an operation ended longer ago than it has to be kept.
fn outlived(times: &Times, keep: Duration, now_ms: i64) -> bool {
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    times.ended_ms.is_some_and(|ended_ms| ended_ms.saturating_add(keep_ms) <= now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_ended_is_never_old() {
        const DAY_MS: i64 = 86_400_000;
        let keep = Duration::from_secs(30 * 86_400);
        let ended = |ended_ms| Times { created_ms: 1, ended_ms, ..Times::default() };
        assert!(!outlived(&ended(None), Duration::ZERO, i64::MAX));
        assert!(!outlived(&ended(Some(DAY_MS)), keep, 31 * DAY_MS - 1));
        assert!(outlived(&ended(Some(DAY_MS)), keep, 31 * DAY_MS));
        // A clock that went back forgets nothing.
        assert!(!outlived(&ended(Some(5 * DAY_MS)), Duration::from_secs(1), DAY_MS));
        assert!(!outlived(&ended(Some(1)), Duration::MAX, i64::MAX - 1));
    }
}
