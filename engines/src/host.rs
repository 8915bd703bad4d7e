//! What an engine needs of the process it runs in, injected so that a simulation can replay it.

use std::{io, path::Path, sync::Arc, time::Duration};

/// Clock and blocking IO of the process. Engines take one when they are made and use nothing else for the two.
pub trait Host: Send + Sync + 'static {
    /// Wall clock in milliseconds since 1970, for people and lag in seconds; never for ordering.
    fn now_ms(&self) -> i64;
    /// Time since some fixed moment, for measuring.
    fn monotonic(&self) -> Duration;
    /// Runs a job that may block, on a thread where that harms nobody. The job tells its end itself.
    fn blocking(&self, job: Box<dyn FnOnce() + Send>);
    /// Bytes that a process without privileges may still take on the disk that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        free_bytes(path)
    }
}

/// What statvfs says of the disk that holds `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A [`Host`] of the real world, for tests and tools.
#[derive(Debug, Default)]
pub struct RealHost;

impl Host for RealHost {
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(job);
    }
}

/// Runs `job` on the host's blocking threads and waits for what it returns.
pub async fn blocking<T: Send + 'static>(
    host: &Arc<dyn Host>,
    job: impl FnOnce() -> crate::Result<T> + Send + 'static,
) -> crate::Result<T> {
    let (tell, told) = tokio::sync::oneshot::channel();
    host.blocking(Box::new(move || {
        // Nobody listens any more when the caller was cancelled; the job's effect stands all the same.
        let _ = tell.send(job());
    }));
    told.await.unwrap_or_else(|_| Err(crate::Error::Internal("a blocking job panicked".to_owned())))
}
