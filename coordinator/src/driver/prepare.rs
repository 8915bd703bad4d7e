//! Preparing: preflight once more, then the destination, then the source.

use std::time::Duration;

use handover::{
    CommandVersion, Finding, Severity,
    operation::{Event, Operation},
};
use service::Backoff;

use super::perform::{Performer, Verdict};
use crate::{
    admission::preflight::{self, Examined, Pair},
    agents::{self, DestAddress, Half},
};

/// How long a missing network path is taken for a restart of the destination agent although the coordinator reaches it.
const PATH_PATIENCE: Duration = Duration::from_secs(30);

/// What is not said to pass by itself ends the operation, with the agent's reason.
fn if_retryable(error: &agents::Error) -> Verdict {
    if error.retryable() { Verdict::Again } else { Verdict::GiveUp }
}

impl Performer {
    /// Prepare both sides, or find out why not. While winding down, nobody looks at the event.
    pub(super) async fn prepare(&self, operation: &Operation) -> Event {
        match self.try_prepare(operation).await {
            Ok(event) => event,
            Err(error) => Event::Fail { reason: error.reason(), now_ms: self.core.now_ms() },
        }
    }

    async fn try_prepare(&self, operation: &Operation) -> Result<Event, agents::Error> {
        let findings = self.preflight(operation).await?;
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Ok(Event::PreflightFailed { findings });
        }
        let tls = self.core.agents.tls();
        if self.winding_down() {
            return Ok(Event::Begun { findings });
        }
        self.insist(Half::Dest, Backoff::default(), if_retryable, |version| async move {
            let source = self.instance(Half::Source, &operation.source).await?;
            // Without TLS nobody can prove an identity: the token alone counts.
            let identity = if tls { source.source_identity() } else { String::new() };
            let Operation { kind, database, token, .. } = operation;
            self.dest(&operation.destination).await?.prepare(&self.id, version, *kind, database, token, &identity).await
        })
        .await?;
        if !self.winding_down() {
            let begin = |version| self.begin(operation, version);
            self.insist(Half::Source, Backoff::default(), if_retryable, begin).await?;
        }
        Ok(Event::Begun { findings })
    }

    async fn begin(&self, operation: &Operation, version: CommandVersion) -> Result<(), agents::Error> {
        let dest = self.instance(Half::Dest, &operation.destination).await?;
        let identity = if self.core.agents.tls() { dest.dest_identity() } else { String::new() };
        let to = DestAddress { address: dest.transfer_address(), instance: dest.name.as_str(), identity: &identity };
        let Operation { kind, database, token, options, .. } = operation;
        self.source(&operation.source)
            .await?
            .begin(&self.id, version, *kind, database, token, to, options.log_budget_bytes)
            .await
    }

    /// The agents' findings. Unlike at the start, an agent that cannot be reached is waited for: the operation was
    /// accepted, and agents restart.
    async fn preflight(&self, operation: &Operation) -> Result<Vec<Finding>, agents::Error> {
        // Since when the source does not reach a destination that we reach.
        let mut cut_since = None;
        let mut backoff = Backoff::default();
        loop {
            let error = match self.preflight_once(operation).await {
                Ok(Examined { findings, unheard: None }) => {
                    let now = self.core.env.monotonic();
                    let patient = now.saturating_sub(*cut_since.get_or_insert(now)) < PATH_PATIENCE;
                    match findings.iter().find(|finding| is_path(finding)) {
                        Some(path) if patient && !stands_otherwise(&findings) => {
                            self.waiting(
                                Half::Source,
                                Some(format!("source agent {}: {}", operation.source, path.message)),
                            );
                            None
                        }
                        _ => {
                            self.waiting(Half::Source, None);
                            self.waiting(Half::Dest, None);
                            return Ok(findings);
                        }
                    }
                }
                // What was found is enough to end it.
                Ok(Examined { findings, .. }) if stands_otherwise(&findings) => return Ok(findings),
                Ok(Examined { unheard, .. }) => {
                    cut_since = None;
                    unheard
                }
                Err(error) => Some(error),
            };
            if let Some(error) = &error {
                if let Verdict::GiveUp = if_retryable(error) {
                    return Err(error.clone());
                }
                self.waiting(error.party().half, Some(error.to_string()));
            }
            if self.rest(&mut backoff).await.is_break() {
                // Nobody looks at what comes of it.
                return Ok(Vec::new());
            }
        }
    }

    async fn preflight_once(&self, operation: &Operation) -> Result<Examined, agents::Error> {
        let source = self.instance(Half::Source, &operation.source).await?;
        let dest = self.instance(Half::Dest, &operation.destination).await?;
        let pair = Pair { source: &source, dest: &dest };
        let agents = &self.core.agents;
        Ok(preflight::examine(agents, &pair, operation.kind, &operation.database, Some(&self.id)).await)
    }
}

/// Whether the finding says that the source cannot reach the destination, which is also so while that agent restarts.
fn is_path(finding: &Finding) -> bool {
    finding.severity == Severity::Error && finding.code == "NO_NETWORK_PATH"
}

/// Whether anything else stands in the way.
fn stands_otherwise(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error && !is_path(finding))
}
