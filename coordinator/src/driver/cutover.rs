//! The cutover of one attempt: fence or mark at the source and promote at the destination, side by side, within the
//! freeze that the user accepts.

use std::time::Duration;

use futures::FutureExt as _;
use handover::{
    Attempt, Kind,
    operation::{Completing, Event, Operation, Reason, State},
};
use service::Backoff;

use super::{observe::lost, perform::Performer};
use crate::{
    agents::{self, Half, SourceStatus},
    store::Record,
};

/// A copy freezes nobody: this only bounds an attempt whose marker never arrives.
const COPY_LIMIT: Duration = Duration::from_secs(600);
/// How long one Promote waits at the destination before it is called again; the protocol allows 60 s. It bounds for how
/// long a call to an agent that vanished is taken for one that waits.
const PROMOTE_WAIT: Duration = Duration::from_secs(5);
/// Longest pause between tries while clients are refused: every millisecond counts, but not every microsecond.
const PAUSE_MOST: Duration = Duration::from_millis(250);
/// How often a source is told again while the destination is waited for: well within every `fence_timeout`, after which a
/// source that hears nothing would go back by itself. It also brings a marker on its way again that got lost; a copy's source
/// that was restarted has forgotten its mark, and takes another.
const FENCE_AGAIN: Duration = Duration::from_secs(10);
/// After the flip the answer to Fence is on its way already, or lost.
const FENCE_ANSWER: Duration = Duration::from_millis(50);

/// Why an attempt did not get to the flip.
struct Failure {
    reason: Reason,
    again: bool,
}

impl Failure {
    fn last(reason: Reason) -> Self {
        Self { reason, again: false }
    }
}

impl Performer {
    pub(super) async fn cut_over(&self, record: &Record, attempt: Attempt) -> Event {
        match self.try_cut_over(record, attempt).await {
            Ok(freeze_ms) => Event::Promoted { attempt, freeze_ms },
            Err(Failure { reason, again }) => Event::CutoverFailed { attempt, reason, again },
        }
    }

    async fn try_cut_over(&self, record: &Record, attempt: Attempt) -> Result<u64, Failure> {
        let operation = &record.operation;
        let State::Completing(completing) = &operation.state else {
            // `actions` asks for a cutover in no other state.
            let message = "the operation is not being completed";
            return Err(Failure::last(Reason::new("NOT_COMPLETING", message, "")));
        };
        let max = match operation.kind {
            Kind::Move => Duration::from_millis(completing.max_freeze_ms),
            Kind::Copy => COPY_LIMIT,
        };
        let limit = match operation.kind {
            Kind::Move => self.freeze_left(record, completing, max).await?,
            Kind::Copy => max,
        };
        let env = &self.core.env;
        let begun = env.monotonic();
        let mut fence = self.close_source(operation, completing, attempt, Duration::ZERO).boxed();
        let mut promote = self.promote(operation, attempt).boxed();
        let mut overdue = env.clock().sleep(limit);
        let mut fenced_us = None;
        let online_us = loop {
            tokio::select! {
                biased;
                promoted = &mut promote => break promoted?,
                fenced = &mut fence => {
                    fenced_us = fenced_us.or(Some(fenced?));
                    fence = self.close_source(operation, completing, attempt, FENCE_AGAIN).boxed();
                }
                () = &mut overdue => return Err(Failure::last(self.exceeded(operation, max, fenced_us.is_some()))),
            }
        };
        let measured = env.monotonic().saturating_sub(begun);
        if operation.kind == Kind::Copy {
            return Ok(0);
        }
        if fenced_us.is_none() {
            fenced_us = env.timeout(FENCE_ANSWER, fence).await.ok().and_then(Result::ok);
        }
        Ok(freeze_ms(fenced_us.unwrap_or(0), online_us, measured))
    }

    /// How much of the freeze is left: all of it while the source is open, if the lag allows for a fence at all; and what
    /// a coordinator before this one left of it if the source is fenced.
    async fn freeze_left(&self, record: &Record, completing: &Completing, max: Duration) -> Result<Duration, Failure> {
        let operation = &record.operation;
        let status = self.core.env.timeout(max, self.source_status(operation)).await;
        let status = match status {
            Ok(status) => status?,
            Err(_) => return Err(Failure::last(self.exceeded(operation, max, false))),
        };
        if !status.fenced() {
            let lag_ms = status.progress.lag_ms;
            if Duration::from_millis(lag_ms) > max {
                let message = format!(
                    "the destination is {lag_ms} ms behind, more than the {} ms the source may be frozen",
                    completing.max_freeze_ms
                );
                let remedy = "wait until the lag is smaller, or complete with a longer max_freeze";
                return Err(Failure::last(Reason::new("FREEZE_WOULD_EXCEED", message, remedy)));
            }
            return Ok(max);
        }
        let since_ms = record.cutover.filter(|start| start.attempt == completing.attempt).map(|start| start.at_ms);
        let gone_ms = since_ms.map_or(0, |since_ms| self.core.now_ms().saturating_sub(since_ms));
        Ok(max.saturating_sub(Duration::from_millis(u64::try_from(gone_ms).unwrap_or(0))))
    }

    async fn source_status(&self, operation: &Operation) -> Result<SourceStatus, Failure> {
        let answer = self.insist_quickly(Half::Source, |_| async move {
            self.source(&operation.source).await?.status(&self.id).await
        });
        answer.await.map_err(|error| self.failure(operation, &error))
    }

    /// Fence or mark, after a while. Gives the source's clock at the fence, 0 if unknown.
    async fn close_source(
        &self,
        operation: &Operation,
        completing: &Completing,
        attempt: Attempt,
        after: Duration,
    ) -> Result<u64, Failure> {
        self.core.env.sleep(after).await;
        let grace = Duration::from_millis(completing.grace_ms);
        let answer = self.insist_quickly(Half::Source, |version| async move {
            let source = self.source(&operation.source).await?;
            match operation.kind {
                Kind::Move => source.fence(&self.id, version, attempt, grace).await,
                Kind::Copy => source.mark(&self.id, version, attempt).await.map(|()| 0),
            }
        });
        answer.await.map_err(|error| self.failure(operation, &error))
    }

    /// Promote as often as it takes. Gives the destination's clock when it opened, 0 if unknown.
    async fn promote(&self, operation: &Operation, attempt: Attempt) -> Result<u64, Failure> {
        let answer = self.insist_quickly(Half::Dest, |version| async move {
            self.dest(&operation.destination).await?.promote(&self.id, version, attempt, PROMOTE_WAIT).await
        });
        answer.await.map_err(|error| self.failure(operation, &error))
    }

    async fn insist_quickly<T, F, Fut>(&self, half: Half, call: F) -> Result<T, agents::Error>
    where
        F: FnMut(handover::CommandVersion) -> Fut,
        Fut: Future<Output = Result<T, agents::Error>>,
    {
        let backoff = Backoff::new(Duration::from_millis(5), PAUSE_MOST);
        self.insist(half, backoff, judge, call).await
    }

    fn failure(&self, operation: &Operation, error: &agents::Error) -> Failure {
        let half = error.party().half;
        if error.unknown_operation() {
            let instance = if half == Half::Source { &operation.source } else { &operation.destination };
            return Failure::last(lost(half, instance.as_str()));
        }
        // A side closed the attempt by itself, for instance when it restarted: the next one may well succeed.
        Failure { reason: error.reason(), again: error.is("STALE_ATTEMPT") }
    }

    fn exceeded(&self, operation: &Operation, max: Duration, fenced: bool) -> Reason {
        let waiting = self.core.hub.view(&self.id).map(|view| view.waiting).unwrap_or_default();
        let waiting: Vec<&str> = waiting.values().map(|waiting| waiting.why.as_str()).collect();
        let why = if !waiting.is_empty() {
            format!("; it waits for {}", waiting.join(" and for "))
        } else if fenced {
            "; the source is closed, the destination not yet prepared".to_owned()
        } else {
            String::new()
        };
        let max_ms = max.as_millis();
        match operation.kind {
            Kind::Move => Reason::new(
                "FREEZE_EXCEEDED",
                format!("the destination did not come online within the {max_ms} ms the source may be frozen{why}"),
                "complete again when the load is lower, or with a longer max_freeze",
            ),
            Kind::Copy => Reason::new(
                "COMPLETION_TIMEOUT",
                format!("the destination did not come online within {max_ms} ms{why}"),
                "look for what holds up the destination, then complete again",
            ),
        }
    }
}

/// What to call again for within the limit: everything but a refusal that calling again does not change.
fn judge(error: &agents::Error) -> super::perform::Verdict {
    if error.retryable() || error.is("NOT_PREPARED") {
        super::perform::Verdict::Again
    } else {
        super::perform::Verdict::GiveUp
    }
}

/// The freeze by the two instances' own clocks, if they can be right; else as measured here, which is never less.
fn freeze_ms(fenced_us: u64, online_us: u64, measured: Duration) -> u64 {
    let measured_us = u64::try_from(measured.as_micros()).unwrap_or(u64::MAX);
    let told = online_us.checked_sub(fenced_us).filter(|us| fenced_us > 0 && *us <= measured_us);
    // 0 stands for unknown, and no freeze takes no time at all.
    told.unwrap_or(measured_us).div_ceil(1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_freeze_is_by_the_instances_clocks_when_they_agree() {
        let measured = Duration::from_millis(50);
        assert_eq!(freeze_ms(1_000_000, 1_012_300, measured), 13);
        assert_eq!(freeze_ms(1_000_000, 1_000_000, measured), 1);
        // Clocks that differ, or a time that is not known any more.
        assert_eq!(freeze_ms(1_000_000, 900_000, measured), 50);
        assert_eq!(freeze_ms(1_000_000, 1_060_000, measured), 50);
        assert_eq!(freeze_ms(0, 1_060_000, measured), 50);
        assert_eq!(freeze_ms(1_000_000, 0, measured), 50);
    }
}
