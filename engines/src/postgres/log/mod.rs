//! Reads the log of one database from its replication slot.

mod backlog;
pub(crate) mod pgoutput;
mod segment;
mod state;
mod task;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "callers take them apart without naming them")]
pub(crate) use segment::{Marker, RawBatch};

use super::{
    config::PostgresConfig,
    position::{Lsn, Point},
};
use crate::{Error, Result};
use state::{State, Take};
use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};

/// How often callers who watch the end of the log make the reader ask for it.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The log of one database, read ahead by a task of its own. Dropping it ends the walsender.
pub(crate) struct LogReader {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    /// Something came, or the task ended: for callers.
    changed: Notify,
    /// Somebody wants something: for the task.
    control: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a section as small as ours leaves nothing half done that matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogReader {
    /// Starts to read what committed after `from`; returns once the server streams. Fails with [`Error::LogLost`] if the slot
    /// does not hold that any more. `binary` asks for values in their binary form.
    pub(crate) async fn start(
        config: &PostgresConfig,
        database: &str,
        slot: &str,
        publication: &str,
        from: Lsn,
        binary: bool,
    ) -> Result<Self> {
        let shared =
            Arc::new(Shared { state: Mutex::new(State::new(from)), changed: Notify::new(), control: Notify::new() });
        let stream = task::Stream {
            config: config.clone(),
            database: database.to_owned(),
            slot: slot.to_owned(),
            publication: publication.to_owned(),
            binary,
        };
        let task = tokio::spawn(task::run(shared.clone(), stream));
        let reader = Self { shared, task: Mutex::new(Some(task)) };
        reader.wait(|state| state.streaming.then_some(Ok(()))).await?;
        Ok(reader)
    }

    /// The log after a point, of about `max` bytes, never beyond `until` (the end of a transaction). Waits until there is some;
    /// when nothing is left up to `until`, the answer is an empty piece that ends there. The same `after` gives the same log
    /// again. Dropping the future loses nothing.
    pub(crate) async fn batch(&self, after: Point, max: usize, until: Option<Point>) -> Result<RawBatch> {
        let batch = self.wait(|state| match state.take(after, max, until) {
            Ok(Take::Batch(batch)) => Some(Ok(batch)),
            Ok(Take::Wait) => None,
            Ok(Take::Restart(point)) => {
                state.restart = Some(point);
                None
            }
            Err(error) => Some(Err(error)),
        });
        let batch = batch.await;
        // Room was made.
        self.shared.control.notify_one();
        batch
    }

    /// The destination holds everything that ends at or before `lsn` durably: the server may forget it.
    pub(crate) fn confirm(&self, lsn: Lsn) {
        let mut state = self.shared.lock();
        if state.confirm(lsn) {
            state.ask_status = true;
            self.shared.control.notify_one();
        }
    }

    /// Nobody will be able to connect, so the walsender has to stay the one who reads; it is as soon as it can for a while.
    pub(crate) fn leave_to_walsender(&self) {
        self.shared.lock().leave_to_walsender();
    }

    /// When nothing that commits after `after` has been read: the LSN up to which that is known. The server is asked where it
    /// stands, so that a later call knows more.
    pub(crate) fn idle_until(&self, after: Point) -> Option<Lsn> {
        let mut state = self.shared.lock();
        let idle = state.idle_until(if after.in_extras() { Point::at(after.lsn) } else { after });
        if idle.is_some() && state.asked.elapsed() > ASK_EVERY {
            (state.ask, state.asked) = (true, std::time::Instant::now());
            self.shared.control.notify_one();
        }
        idle
    }

    /// The caller knows, from a marker, that no transaction ends after what was read and at or before `lsn`.
    pub(crate) fn note_end(&self, lsn: Lsn) {
        self.shared.lock().saw(lsn);
        self.shared.changed.notify_waiters();
    }

    /// Waits for a logical message of ours; answers where the commit that brought it ends. Somebody has to take batches
    /// meanwhile: the reader does not read ahead without bounds.
    pub(crate) async fn wait_marker(&self, prefix: &str, content: &[u8]) -> Result<Lsn> {
        let found = |state: &mut State| {
            let found = state.known.iter().find(|marker| marker.prefix == prefix && marker.content == content);
            found.map(|marker| Ok(marker.end))
        };
        self.wait(found).await
    }

    /// Whether the log is being read; what stopped it otherwise.
    pub(crate) fn health(&self) -> Result<()> {
        self.shared.lock().failed.as_ref().map_or(Ok(()), |error| Err(error.repeat()))
    }

    /// Ends the walsender and waits until it has let go of the slot.
    pub(crate) async fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.control.notify_one();
        self.shared.changed.notify_waiters();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(Duration::from_secs(5), &mut task).await.is_err()
        {
            task.abort();
        }
    }

    /// Waits until `ready` answers. A walsender that died is started again, once a call: if that fails, so does the call.
    async fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<Result<T>>) -> Result<T> {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.shared.lock();
                let before = state.wishes();
                if let Some(answer) = ready(&mut state) {
                    return answer;
                }
                if state.stopping {
                    return Err(Error::Misuse("the log reader was stopped".to_owned()));
                }
                match &state.failed {
                    Some(error) if !state.reported || !error.retryable() => {
                        let error = error.repeat();
                        state.reported = true;
                        return Err(error);
                    }
                    Some(_) => (state.failed, state.demand) = (None, true),
                    None => {}
                }
                // Wishes that stand were told before.
                if state.wishes() != before {
                    self.shared.control.notify_one();
                }
            }
            changed.await;
        }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}
