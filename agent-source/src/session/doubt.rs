//! A fenced source that does not know the outcome asks the destination, and stays fenced until it answers.

use super::{Error, Halt, Session};
use handover::{
    Attempt,
    source_role::{Action, DestAnswer, Event, step},
};
use proto::v1::{self, dest_agent_client::DestAgentClient};
use service::{Backoff, dial::DialOptions};
use std::{sync::Arc, time::Duration};

/// How often the fence is looked after.
const LOOK: Duration = Duration::from_millis(500);

impl Session {
    /// An agent that starts in Fencing or Fenced does not reopen the database to find its place again: it asks. If the
    /// destination is prepared or primary there is nothing to do; else the attempt is closed and the database opened.
    pub(super) async fn settle_doubt_of_restart(&self) {
        let mut backoff = Backoff::default();
        while let Some(attempt) = self.role().await.in_doubt() {
            let settled = async {
                match self.ask(attempt, true).await? {
                    DestAnswer::Prepared | DestAnswer::Promoted => Ok(true),
                    DestAnswer::Aborted | DestAnswer::Unknown => {
                        let answer = self.ask(attempt, false).await?;
                        self.answered(attempt, answer).await?;
                        Ok::<bool, Error>(answer != DestAnswer::Unknown)
                    }
                }
            };
            match settled.await {
                Ok(true) => return,
                Ok(false) => tracing::warn!(operation = %self.operation, attempt = attempt.0,
                    "the destination knows nothing of the operation: stay fenced"),
                Err(error) => {
                    tracing::warn!(operation = %self.operation, attempt = attempt.0,
                        error = %service::status::chain(&error), "ask the destination about a fence");
                    self.meter.trouble(&error);
                }
            }
            backoff.wait(&self.shared.env).await;
        }
    }

    /// Sends the destination the coordinator's Abort when the coordinator has been silent for too long.
    pub(super) async fn watch_fence(self: Arc<Self>) {
        let mut interval = self.shared.env.interval(LOOK);
        let patience = self.shared.settings.fence_timeout;
        let mut asked: Option<Duration> = None;
        loop {
            interval.tick().await;
            let Some(attempt) = self.role().await.in_doubt() else { continue };
            // One question a fence timeout: an answer that leaves it fenced does not change by asking again at once.
            let since = asked.map_or(Duration::MAX, |at| self.shared.env.monotonic().saturating_sub(at));
            if self.silence().min(since) < patience {
                continue;
            }
            tracing::warn!(operation = %self.operation, attempt = attempt.0, "no word from the coordinator: ask the destination");
            let settled = async {
                let answer = self.ask(attempt, false).await?;
                self.answered(attempt, answer).await
            };
            if let Err(error) = settled.await {
                tracing::warn!(operation = %self.operation, attempt = attempt.0,
                    error = %service::status::chain(&error), "ask the destination about a fence: stay fenced");
            }
            asked = Some(self.shared.env.monotonic());
        }
    }

    /// Acts on the destination's answer.
    async fn answered(&self, attempt: Attempt, answer: DestAnswer) -> Result<(), Error> {
        tracing::info!(operation = %self.operation, attempt = attempt.0, ?answer, "the destination answered");
        self.open_before_reopening().await;
        let mut role = self.role.lock().await;
        let decided = step(&role, &Event::DestAnswered(attempt, answer))?;
        if decided.actions.contains(&Action::Reopen(attempt)) {
            let reopened = step(&decided.next, &Event::Reopened(attempt))?;
            let opened = self.shared.engine.unfence(&decided.next, &reopened.next).await;
            opened?;
            *role = reopened.next;
            self.set_halt(Halt::Run);
        }
        Ok(())
    }

    async fn ask(&self, attempt: Attempt, ask_only: bool) -> Result<DestAnswer, Error> {
        let role = self.role().await;
        let mut options = DialOptions::default();
        if !role.dest_identity.is_empty() {
            options = options.expecting(role.dest_identity.clone());
        }
        let channel = self.shared.dialer.connect_with(&role.dest_address, &options).await?;
        let request = v1::AbortRequest {
            operation: role.operation.to_string(),
            version: 0,
            attempt: attempt.0,
            token: role.token.expose().to_owned(),
            ask_only,
        };
        let answer = DestAgentClient::new(channel).abort(request).await?.into_inner();
        match answer.decision() {
            v1::Decision::Aborted => Ok(DestAnswer::Aborted),
            v1::Decision::Promoted => Ok(DestAnswer::Promoted),
            v1::Decision::Prepared => Ok(DestAnswer::Prepared),
            v1::Decision::Unknown => Ok(DestAnswer::Unknown),
            v1::Decision::Unspecified => Err(Error::Protocol("Abort was answered by no decision".to_owned())),
        }
    }
}
