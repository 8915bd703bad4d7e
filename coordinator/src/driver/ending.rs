//! The commands of an operation's way out: each is repeated until it is obeyed, whatever the agent answers meanwhile.

use handover::{
    Attempt, Kind,
    operation::{Event, Operation, Reason, State},
    source_role::DestAnswer,
};
use service::Backoff;

use super::perform::{Performer, Verdict};
use crate::agents::{self, Half};

/// Nothing but doing it ends it.
fn never(_: &agents::Error) -> Verdict {
    Verdict::Again
}

/// An instance that knows nothing of the operation has nothing to do.
fn unless_unknown(error: &agents::Error) -> Verdict {
    if error.unknown_operation() { Verdict::GiveUp } else { Verdict::Again }
}

impl Performer {
    pub(super) async fn abort_dest(&self, operation: &Operation, attempt: Attempt) -> Event {
        let mut backoff = Backoff::default();
        loop {
            let answer = self
                .insist(Half::Dest, Backoff::default(), unless_unknown, |version| async move {
                    self.dest(&operation.destination).await?.abort(&self.id, version, attempt).await
                })
                .await;
            match answer {
                Ok(answer @ (DestAnswer::Aborted | DestAnswer::Promoted)) => {
                    return Event::DestDecided(attempt, answer);
                }
                // Nothing follows from it: whoever is fenced stays so until the record is found or a person decides.
                Ok(DestAnswer::Unknown | DestAnswer::Prepared) | Err(_) => {
                    let why = format!(
                        "destination agent {}: its instance has no record of the operation, so nobody can tell whether it \
                         was promoted; bring the record back, or use `operation forget --side dest`",
                        operation.destination
                    );
                    self.waiting(Half::Dest, Some(why));
                    backoff.wait(&self.core.env).await;
                }
            }
        }
    }

    pub(super) async fn unfence(&self, operation: &Operation, attempt: Attempt) -> Event {
        let done = self
            .insist(Half::Source, Backoff::default(), unless_unknown, |version| async move {
                self.source(&operation.source).await?.unfence(&self.id, version, attempt).await
            })
            .await;
        if let Err(error) = done {
            // Without a record there is no fence that could be lifted; observing will find out and fail the operation.
            tracing::warn!(operation = %self.id, %error, "the source has nothing to unfence");
        }
        Event::Unfenced(attempt)
    }

    pub(super) async fn release(&self, operation: &Operation, attempt: Attempt) -> Event {
        let moved_to = match self.instance(Half::Dest, &operation.destination).await {
            Ok(dest) => format!("{} at {}", operation.destination, dest.transfer_address()),
            Err(_) => operation.destination.to_string(),
        };
        let moved_to = moved_to.as_str();
        // It cannot fail: `never` gives up on nothing.
        let _ = self
            .insist(Half::Source, Backoff::default(), never, |version| async move {
                if operation.kind == Kind::Move {
                    self.still_primary(operation).await?;
                }
                let source = self.source(&operation.source).await?;
                source.release(&self.id, version, attempt, moved_to).await.map_err(drop_pending)
            })
            .await;
        Event::Released
    }

    /// Before the source is dropped, each time it is tried: the destination may have been lost since the flip, or restored
    /// from a backup, and then the source is all that is left.
    async fn still_primary(&self, operation: &Operation) -> Result<(), agents::Error> {
        let dest = self.dest(&operation.destination).await?;
        let status = dest.status(&self.id).await?;
        if status.is_primary() {
            return Ok(());
        }
        let message = format!(
            "it was promoted and is {} now, so the source is not dropped; if the destination is lost for ever, reopen the \
             source with `operation force-unfence`",
            status.phase
        );
        let reason = Box::new(Reason::new("NOT_PRIMARY", message, ""));
        Err(agents::Error::Refused { party: dest.party().clone(), reason, retryable: true, known: None })
    }

    pub(super) async fn finish(&self, operation: &Operation) -> Event {
        let limit = self.core.limits.finish_timeout;
        let finished = self
            .insist(Half::Dest, Backoff::default(), never, |version| async move {
                self.dest(&operation.destination).await?.finish(&self.id, version, limit).await
            })
            .await;
        Event::Finished(finished.ok().flatten())
    }

    pub(super) async fn discard(&self, operation: &Operation) -> Event {
        let answer = self
            .insist(Half::Dest, Backoff::default(), unless_unknown, |version| async move {
                self.dest(&operation.destination).await?.discard(&self.id, version).await
            })
            .await;
        Event::Discarded(answer.unwrap_or(DestAnswer::Unknown))
    }

    pub(super) async fn clean_source(&self, operation: &Operation) -> Event {
        // An error is that of an instance which knows nothing of the operation: clean.
        let _ = self
            .insist(Half::Source, Backoff::default(), unless_unknown, |version| async move {
                self.source(&operation.source).await?.cleanup(&self.id, version).await
            })
            .await;
        Event::SourceClean
    }

    pub(super) async fn forget_dest(&self, operation: &Operation) -> Event {
        let cancelled = matches!(operation.state, State::Cancelling(_));
        // As above.
        let _ = self
            .insist(Half::Dest, Backoff::default(), unless_unknown, |version| async move {
                let dest = self.dest(&operation.destination).await?;
                match dest.forget(&self.id, version).await {
                    // A Prepare that was long on its way came after the Discard: once more.
                    Err(refused) if cancelled && refused.is("WRONG_PHASE") => {
                        dest.discard(&self.id, version).await?;
                        dest.forget(&self.id, version).await
                    }
                    other => other,
                }
            })
            .await;
        Event::Forgotten { now_ms: self.core.now_ms() }
    }
}

/// What a busy source means for a release, in words.
fn drop_pending(error: agents::Error) -> agents::Error {
    match error {
        agents::Error::Refused { party, mut reason, retryable, known } if reason.code == "BUSY" => {
            reason.message = format!("drop pending: {}", reason.message);
            agents::Error::Refused { party, reason, retryable, known }
        }
        other => other,
    }
}
