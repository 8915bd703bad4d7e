//! The commands to a source agent.

use std::time::Duration;

use handover::{Attempt, CommandVersion, DatabaseName, Kind, OperationId, Token};
use proto::{convert, v1};

use super::{SourceAgent, millis, progress, reason};
use crate::agents::{DestAddress, Error, SourceJudgement, SourceStatus};

impl SourceAgent {
    /// Examines a database and the way to the destination, on behalf of `operation` if there is one already.
    pub async fn preflight(
        &self,
        database: &DatabaseName,
        kind: Kind,
        dest: DestAddress<'_>,
        operation: Option<&OperationId>,
    ) -> Result<SourceJudgement, Error> {
        let request = v1::SourcePreflightRequest {
            database: database.to_string(),
            kind: convert::kind_to_wire(kind).into(),
            dest_address: dest.address.to_owned(),
            dest_instance: dest.instance.to_owned(),
            operation: operation.map(ToString::to_string).unwrap_or_default(),
            dest_identity: dest.identity.to_owned(),
        };
        let answer = self.link.command(self.client.clone().preflight(request)).await?;
        Ok(SourceJudgement {
            findings: answer.findings.into_iter().map(convert::finding).collect(),
            requirements: answer.requirements.to_vec(),
        })
    }

    /// Begins to retain log and to stream.
    #[allow(clippy::too_many_arguments, reason = "the fields of the message, each of a type of its own")]
    pub async fn begin(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        kind: Kind,
        database: &DatabaseName,
        token: &Token,
        dest: DestAddress<'_>,
        log_budget_bytes: u64,
    ) -> Result<(), Error> {
        let request = v1::BeginRequest {
            operation: operation.to_string(),
            version: version.0,
            kind: convert::kind_to_wire(kind).into(),
            database: database.to_string(),
            token: token.expose().to_owned(),
            dest_address: dest.address.to_owned(),
            dest_instance: dest.instance.to_owned(),
            log_budget_bytes,
            dest_identity: dest.identity.to_owned(),
        };
        self.link.command(self.client.clone().begin(request)).await.map(drop)
    }

    /// Where the operation stands.
    pub async fn status(&self, operation: &OperationId) -> Result<SourceStatus, Error> {
        let request = v1::SourceStatusRequest { operation: operation.to_string() };
        let answer = self.link.ask(self.client.clone().get_status(request)).await?;
        Ok(SourceStatus {
            phase: answer.phase,
            progress: answer.progress.map(progress).unwrap_or_default(),
            connected: answer.connected,
            seeded: answer.seeded,
            trouble: answer.trouble.map(reason),
            fatal: answer.fatal,
        })
    }

    /// Closes the database for an attempt. Gives the wall clock of the source at that moment in microseconds, 0 if lost.
    pub async fn fence(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        attempt: Attempt,
        grace: Duration,
    ) -> Result<u64, Error> {
        let request = v1::FenceRequest {
            operation: operation.to_string(),
            version: version.0,
            attempt: attempt.0,
            grace_ms: millis(grace),
        };
        let limit = self.link.timeouts.command.saturating_add(grace);
        Ok(self.link.call(limit, self.client.clone().fence(request)).await?.fenced_unix_us)
    }

    /// Takes a consistent point for an attempt.
    pub async fn mark(&self, operation: &OperationId, version: CommandVersion, attempt: Attempt) -> Result<(), Error> {
        let request = v1::MarkRequest { operation: operation.to_string(), version: version.0, attempt: attempt.0 };
        self.link.command(self.client.clone().mark(request)).await.map(drop)
    }

    /// Opens the database again.
    pub async fn unfence(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        attempt: Attempt,
    ) -> Result<(), Error> {
        let request = v1::UnfenceRequest { operation: operation.to_string(), version: version.0, attempt: attempt.0 };
        self.link.command(self.client.clone().unfence(request)).await.map(drop)
    }

    /// Drops the database (move) or stops replicating (copy).
    pub async fn release(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        attempt: Attempt,
        moved_to: &str,
    ) -> Result<(), Error> {
        let request = v1::ReleaseRequest {
            operation: operation.to_string(),
            version: version.0,
            attempt: attempt.0,
            moved_to: moved_to.to_owned(),
        };
        self.link.command(self.client.clone().release(request)).await.map(drop)
    }

    /// Removes every trace.
    pub async fn cleanup(&self, operation: &OperationId, version: CommandVersion) -> Result<(), Error> {
        let request = v1::CleanupRequest { operation: operation.to_string(), version: version.0 };
        self.link.command(self.client.clone().cleanup(request)).await.map(drop)
    }

    /// Opens the database without the destination's answer.
    pub async fn force_unfence(&self, operation: &OperationId, version: CommandVersion) -> Result<(), Error> {
        let request = v1::ForceUnfenceCommand { operation: operation.to_string(), version: version.0 };
        self.link.command(self.client.clone().force_unfence(request)).await.map(drop)
    }
}
