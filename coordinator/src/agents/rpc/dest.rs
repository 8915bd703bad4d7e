//! The commands to a destination agent.

use std::time::Duration;

use handover::{
    Attempt, CommandVersion, DatabaseName, Kind, OperationId, Token, operation::HookOutcome, source_role::DestAnswer,
};
use proto::{convert, v1};

use super::{DestAgent, millis, progress, reason};
use crate::agents::{DestStatus, Error, Hook};

impl DestAgent {
    /// Judges what a source requires, on behalf of `operation` if there is one already.
    pub async fn preflight(
        &self,
        database: &DatabaseName,
        engine: &str,
        requirements: &[u8],
        operation: Option<&OperationId>,
    ) -> Result<Vec<handover::Finding>, Error> {
        let request = v1::DestPreflightRequest {
            database: database.to_string(),
            engine: engine.to_owned(),
            requirements: requirements.to_vec().into(),
            operation: operation.map(ToString::to_string).unwrap_or_default(),
        };
        let answer = self.link.command(self.client.clone().preflight(request)).await?;
        Ok(answer.findings.into_iter().map(convert::finding).collect())
    }

    /// Reserves the name and takes the stream of the operation's source from then on.
    pub async fn prepare(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        kind: Kind,
        database: &DatabaseName,
        token: &Token,
        source_identity: &str,
    ) -> Result<(), Error> {
        let request = v1::PrepareRequest {
            operation: operation.to_string(),
            version: version.0,
            kind: convert::kind_to_wire(kind).into(),
            database: database.to_string(),
            token: token.expose().to_owned(),
            source_identity: source_identity.to_owned(),
        };
        self.link.command(self.client.clone().prepare(request)).await.map(drop)
    }

    /// Where the operation stands.
    pub async fn status(&self, operation: &OperationId) -> Result<DestStatus, Error> {
        let request = v1::DestStatusRequest { operation: operation.to_string() };
        let answer = self.link.ask(self.client.clone().get_status(request)).await?;
        Ok(DestStatus {
            phase: answer.phase,
            progress: answer.progress.map(progress).unwrap_or_default(),
            trouble: answer.trouble.map(reason),
            fatal: answer.fatal,
        })
    }

    /// The flip; waits up to `wait` for the destination to be prepared. Gives the wall clock of the destination when it
    /// opened in microseconds, 0 if lost.
    pub async fn promote(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        attempt: Attempt,
        wait: Duration,
    ) -> Result<u64, Error> {
        let request = v1::PromoteRequest {
            operation: operation.to_string(),
            version: version.0,
            attempt: attempt.0,
            wait_ms: millis(wait),
        };
        let limit = self.link.timeouts.command.saturating_add(wait);
        Ok(self.link.call(limit, self.client.clone().promote(request)).await?.online_unix_us)
    }

    /// Closes an attempt, unless it was promoted.
    pub async fn abort(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        attempt: Attempt,
    ) -> Result<DestAnswer, Error> {
        let request = v1::AbortRequest {
            operation: operation.to_string(),
            version: version.0,
            attempt: attempt.0,
            token: String::new(),
            ask_only: false,
        };
        let answer = self.link.command(self.client.clone().abort(request)).await?;
        self.decision(answer.decision())
    }

    /// Closes all attempts, unless one was promoted, and removes the half-made database.
    pub async fn discard(&self, operation: &OperationId, version: CommandVersion) -> Result<DestAnswer, Error> {
        let request = v1::DiscardRequest { operation: operation.to_string(), version: version.0 };
        let answer = self.link.command(self.client.clone().discard(request)).await?;
        self.decision(answer.decision())
    }

    /// Drops helpers and runs the hook.
    pub async fn finish(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        limit: Duration,
    ) -> Result<Hook, Error> {
        let request = v1::FinishRequest { operation: operation.to_string(), version: version.0 };
        let answer = self.link.call(limit, self.client.clone().finish(request)).await?;
        Ok(answer.on_online.map(|hook| HookOutcome {
            ok: hook.ok,
            exit_code: hook.exit_code,
            output: hook.output,
            took_ms: hook.took_ms,
        }))
    }

    /// Removes the record.
    pub async fn forget(&self, operation: &OperationId, version: CommandVersion) -> Result<(), Error> {
        let request = v1::ForgetRequest { operation: operation.to_string(), version: version.0 };
        self.link.command(self.client.clone().forget(request)).await.map(drop)
    }

    /// Opens the database without a marker.
    pub async fn force_promote(
        &self,
        operation: &OperationId,
        version: CommandVersion,
        attempt: Attempt,
    ) -> Result<(), Error> {
        let request =
            v1::ForcePromoteCommand { operation: operation.to_string(), version: version.0, attempt: attempt.0 };
        self.link.command(self.client.clone().force_promote(request)).await.map(drop)
    }

    /// Removes the tombstone of a database that was moved away.
    pub async fn purge(&self, database: &DatabaseName) -> Result<(), Error> {
        let request = v1::PurgeRequest { database: database.to_string() };
        self.link.command(self.client.clone().purge(request)).await.map(drop)
    }

    fn decision(&self, decision: v1::Decision) -> Result<DestAnswer, Error> {
        match decision {
            v1::Decision::Aborted => Ok(DestAnswer::Aborted),
            v1::Decision::Promoted => Ok(DestAnswer::Promoted),
            v1::Decision::Prepared => Ok(DestAnswer::Prepared),
            v1::Decision::Unknown => Ok(DestAnswer::Unknown),
            v1::Decision::Unspecified => Err(self.link.malformed("it answered without a decision")),
        }
    }
}
