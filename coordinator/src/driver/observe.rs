//! Observing: both agents are asked side by side how far they are, and judged against the thresholds.

use std::time::Duration;

use handover::operation::{Event, Observation, Operation, Reason};

use super::perform::{Performer, text};
use crate::{
    agents::{self, DestStatus, Half, SourceStatus},
    config::Limits,
    progress::Progress,
};

impl Performer {
    /// Look at both agents until something is worth a step: an observation, or a reason to give up.
    pub(super) async fn observe(&self, operation: &Operation) -> Event {
        loop {
            self.pace().await;
            let (source, dest) = self.statuses(operation).await;
            let now_ms = self.core.now_ms();
            if let Some(reason) = lost_or_fatal(operation, &source, &dest) {
                return Event::Fail { reason, now_ms };
            }
            self.waiting(Half::Source, waits_for(operation, Half::Source, &source));
            self.waiting(Half::Dest, waits_for(operation, Half::Dest, &dest));
            match (source, dest) {
                (Ok(source), Ok(dest)) => {
                    self.note(true);
                    self.publish(&source, &dest, now_ms);
                    let observation = judge(&self.core.limits, &source, &dest);
                    return Event::Observed { observation, now_ms };
                }
                (source, _) => {
                    self.note(false);
                    self.publish_retained(source.as_ref().ok());
                }
            }
        }
    }

    /// Look at both agents while other actions decide: what they say is shown, and nothing follows from it.
    pub(super) async fn look_on(&self, operation: &Operation) -> std::convert::Infallible {
        loop {
            // First of all a pause: a flip that takes milliseconds is not to be disturbed.
            self.core.env.sleep(self.core.limits.observe_every).await;
            self.pace().await;
            let (source, dest) = self.statuses(operation).await;
            if let (Ok(source), Ok(dest)) = (&source, &dest) {
                self.publish(source, dest, self.core.now_ms());
            } else {
                self.publish_retained(source.as_ref().ok());
            }
            self.note(source.is_ok() && dest.is_ok());
        }
    }

    async fn statuses(
        &self,
        operation: &Operation,
    ) -> (Result<SourceStatus, agents::Error>, Result<DestStatus, agents::Error>) {
        futures::join!(async { self.source(&operation.source).await?.status(&self.id).await }, async {
            self.dest(&operation.destination).await?.status(&self.id).await
        })
    }

    /// Wait until it is time for the next look.
    async fn pace(&self) {
        let now = self.core.env.monotonic();
        let next_at = self.lock().next_at;
        if let Some(wait) = next_at.checked_sub(now).filter(|wait| !wait.is_zero()) {
            self.core.env.sleep(wait).await;
        }
    }

    /// Set the time of the next look.
    fn note(&self, both_answered: bool) {
        let now = self.core.env.monotonic();
        let mut watching = self.lock();
        let delay = if both_answered {
            watching.backoff.reset();
            spread(self.core.limits.observe_every, self.core.hub.running())
        } else {
            watching.backoff.next_delay(&self.core.env)
        };
        watching.next_at = now + delay;
    }

    fn publish(&self, source: &SourceStatus, dest: &DestStatus, now_ms: i64) {
        let mut progress = Progress::merged(&source.progress, &dest.progress);
        progress.observed_ms = Some(now_ms);
        let now: Duration = self.core.env.monotonic();
        self.lock().rate.fill(now, dest.seeded(), &mut progress);
        self.core.hub.set_progress(&self.id, progress);
    }

    /// While the destination is away the log retained for it grows: that is shown all the same.
    fn publish_retained(&self, source: Option<&SourceStatus>) {
        let known = self.core.hub.view(&self.id).and_then(|view| view.progress);
        if let (Some(source), Some(known)) = (source, known) {
            self.core.hub.set_progress(&self.id, known.with_log_of(&source.progress));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, super::perform::Watching> {
        self.watching.lock().expect("no holder of this lock panics")
    }
}

/// Looks that all operations together get in a second. Each takes two calls, and news to whoever watches: this many take a quarter of
/// a processor, however many operations there are.
const LOOKS_PER_SECOND: u32 = 1_000;

/// The time between two looks at one of so many operations.
fn spread(every: Duration, running: usize) -> Duration {
    let running = u32::try_from(running).unwrap_or(u32::MAX);
    every.max(Duration::from_secs(1).saturating_mul(running) / LOOKS_PER_SECOND)
}

fn judge(limits: &Limits, source: &SourceStatus, dest: &DestStatus) -> Observation {
    let lag = &source.progress;
    let seeded = dest.seeded();
    // A source that is not connected does not know what the destination has received.
    let told = source.seeded && source.connected;
    Observation {
        seeded,
        ready: seeded && told && lag.lag_ms <= limits.ready_lag_ms && lag.lag_bytes <= limits.ready_lag_bytes,
        behind: lag.lag_ms > limits.behind_lag_ms || lag.lag_bytes > limits.behind_lag_bytes,
    }
}

/// Why the operation cannot go on, if it cannot.
fn lost_or_fatal(
    operation: &Operation,
    source: &Result<SourceStatus, agents::Error>,
    dest: &Result<DestStatus, agents::Error>,
) -> Option<Reason> {
    let unnamed = || Reason::new("AGENT_TROUBLE", "an agent cannot go on and does not say why", "see its log");
    match source {
        Ok(status) if status.fatal => return Some(status.trouble.clone().unwrap_or_else(unnamed)),
        Err(error) if error.unknown_operation() => return Some(lost(Half::Source, operation.source.as_str())),
        _ => {}
    }
    match dest {
        Ok(status) if status.fatal => Some(status.trouble.clone().unwrap_or_else(unnamed)),
        Err(error) if error.unknown_operation() => Some(lost(Half::Dest, operation.destination.as_str())),
        _ => None,
    }
}

/// The reason when an instance has no record of an operation that it had begun.
pub(super) fn lost(half: Half, instance: &str) -> Reason {
    let code = match half {
        Half::Source => "SOURCE_LOST_OPERATION",
        Half::Dest => "DEST_LOST_OPERATION",
    };
    let message = format!("instance {instance} has no record of the operation any more");
    let remedy = "find out whether the instance was restored or its Causeway records were removed, then start again";
    Reason::new(code, message, remedy)
}

/// What to show about an agent: that it cannot be asked, or what holds it up.
fn waits_for<S: Troubled>(operation: &Operation, half: Half, status: &Result<S, agents::Error>) -> Option<String> {
    let instance = match half {
        Half::Source => &operation.source,
        Half::Dest => &operation.destination,
    };
    match status {
        Ok(status) => status.trouble().map(|trouble| format!("{half} {instance}: {}", trouble.message)),
        Err(error) => Some(text(error)),
    }
}

trait Troubled {
    fn trouble(&self) -> Option<&Reason>;
}
impl Troubled for SourceStatus {
    fn trouble(&self) -> Option<&Reason> {
        self.trouble.as_ref()
    }
}
impl Troubled for DestStatus {
    fn trouble(&self) -> Option<&Reason> {
        self.trouble.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_looked_at_less_often_and_a_few_as_often_as_configured() {
        let every = Duration::from_millis(200);
        assert_eq!(spread(every, 0), every);
        assert_eq!(spread(every, 200), every);
        assert_eq!(spread(every, 8_000), Duration::from_secs(8));
        assert!(spread(every, usize::MAX) > Duration::from_secs(3600));
    }
}
