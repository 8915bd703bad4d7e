//! The ends of an operation: finished after the flip, discarded, forgotten.

use super::{
    Registry, Session,
    commands::decision,
    error::{Error, Result},
    lanes::Stop,
};
use crate::hook::{self, Hook};
use handover::{
    CommandVersion, OperationId,
    dest_role::{Action, DestRole, Event},
    operation::HookOutcome,
    source_role::DestAnswer,
};
use std::sync::{Arc, atomic::Ordering};

impl Session {
    /// After the flip: drops helpers and runs the hook, once. A repetition waits for the hook and answers the same.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        registry: &Registry,
        version: CommandVersion,
    ) -> Result<Option<HookOutcome>> {
        let (session, hook) = (self.clone(), registry.inner.settings.hook());
        let work = async move {
            let _acting = session.acting.lock().await;
            let decided = session.decide(&Event::Finish(version)).await?;
            if decided.actions.contains(&Action::Finish) {
                session.engine.finish(&decided.role).await?;
            }
            match (decided.role.hook.clone(), hook) {
                (Some(outcome), _) => Ok(Some(outcome)),
                (None, None) => Ok(None),
                (None, Some(hook)) => session.run_hook(&hook, &decided.role).await.map(Some),
            }
        };
        registry.task("finish", work).await
    }

    async fn run_hook(&self, hook: &Hook, role: &DestRole) -> Result<HookOutcome> {
        // Recorded before it starts: a crash in the middle must not let it run a second time.
        self.hook_runs.store(true, Ordering::Relaxed);
        let outcome = async {
            self.amend(|role| {
                role.hook = Some(hook::interrupted());
                Ok(())
            })
            .await?;
            tracing::info!(operation = %self.operation, "run the on_online hook");
            let outcome = hook.run(&self.env, role).await;
            // What it wrote may hold anything: it goes to the operation's record, not to the log.
            tracing::info!(operation = %self.operation, ok = outcome.ok, exit_code = outcome.exit_code, took_ms = outcome.took_ms, "the on_online hook ended");
            self.amend(|role| {
                role.hook = Some(outcome.clone());
                Ok(())
            })
            .await?;
            Ok(outcome)
        }
        .await;
        self.hook_runs.store(false, Ordering::Relaxed);
        outcome
    }

    async fn forget(&self, version: CommandVersion) -> Result<()> {
        self.decide(&Event::Forget(version)).await?;
        self.lanes.end_all(Stop::Decided, true).await;
        self.close_replica().await;
        Ok(())
    }

    /// Decides like Abort, for all attempts; then removes everything but the record. Never touches a primary.
    pub(crate) async fn discard(self: &Arc<Self>, registry: &Registry, version: CommandVersion) -> Result<DestAnswer> {
        let session = self.clone();
        let work = async move {
            let _acting = session.acting.lock().await;
            let decided = session.decide(&Event::Discard(version)).await?;
            if decided.actions.contains(&Action::RemoveAll) {
                remove_all(&session, &decided.role).await?;
            }
            Ok(decision(&decided.answer))
        };
        registry.task("discard", work).await
    }
}

/// Removes what is left of an operation whose `Discarding` is recorded, and records that.
pub(super) async fn remove_all(session: &Session, role: &DestRole) -> Result<()> {
    // A stream that comes later finds the phase and touches nothing.
    session.interrupt_replica().await;
    session.lanes.end_all(Stop::Decided, false).await;
    session.close_replica().await;
    session.engine.discard(role).await?;
    session.decide(&Event::DiscardDone).await.map(|_| ())
}

impl Registry {
    /// Discards an operation. For one that is not known the watermark rises to the command's version, so that a Prepare
    /// which is still on its way comes too late.
    pub(crate) async fn discard(&self, operation: OperationId, version: CommandVersion) -> Result<DestAnswer> {
        loop {
            match self.find(&operation).await {
                Ok(session) => match session.discard(self, version).await {
                    Err(Error::Unknown(_)) => {}
                    answer => return answer,
                },
                Err(Error::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
            let (registry, operation) = (self.clone(), operation.clone());
            let refused = self.task("refuse", async move { registry.refuse_late(&operation, version).await }).await?;
            if refused {
                return Ok(DestAnswer::Unknown);
            }
        }
    }

    /// Whether the operation is still not known, and a late Prepare of it is refused from now on.
    async fn refuse_late(&self, operation: &OperationId, version: CommandVersion) -> Result<bool> {
        let _creating = self.inner.creating.lock().await;
        self.clear_doubt().await?;
        if self.known(operation).is_some() {
            return Ok(false);
        }
        self.inner.engine.remove_role(operation, version).await?;
        Ok(true)
    }

    /// Removes the record; of an operation that is not known, only the watermark rises.
    pub(crate) async fn forget(&self, operation: OperationId, version: CommandVersion) -> Result<()> {
        let registry = self.clone();
        self.task("forget", async move { registry.forget_one(&operation, version).await }).await
    }

    async fn forget_one(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        // Waited for before `creating` is taken: a hook may run for long, and others are to be prepared meanwhile.
        let session = match self.find(operation).await {
            Ok(session) => Some(session),
            Err(Error::Unknown(_)) => None,
            Err(error) => return Err(error),
        };
        let _acting = match &session {
            Some(session) => Some(session.acting.lock().await),
            None => None,
        };
        let _creating = self.inner.creating.lock().await;
        self.clear_doubt().await?;
        let forgotten = match self.known(operation) {
            Some(session) => session.forget(version).await,
            None => Err(Error::Unknown(operation.clone())),
        };
        match forgotten {
            Ok(()) => tracing::info!(%operation, "forgot an operation"),
            Err(Error::Unknown(_)) => self.inner.engine.remove_role(operation, version).await?,
            Err(error) => return Err(error),
        }
        self.remove(operation);
        Ok(())
    }
}
