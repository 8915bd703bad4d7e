//! The coordinator's commands about one operation, and what the source agent may ask.

use super::{
    Registry, Session,
    error::{Error, Result},
    hello::{Caller, check_identity, takes_data},
    lanes::Stop,
};
use handover::{
    Attempt, CommandVersion,
    dest_role::{Answer, DestRole, Event, Phase, Refusal, step},
    source_role::DestAnswer,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Longer than any coordinator waits for one answer.
const PROMOTE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Who asks for an attempt to be closed.
pub(crate) enum Asker {
    /// The coordinator, with its command's version.
    Coordinator(CommandVersion),
    /// Somebody with a token, who has to be the operation's source agent.
    Source {
        /// The token as given.
        token: String,
        /// Who calls.
        caller: Caller,
    },
}

impl Registry {
    /// Records the operation and reserves the name. `role` is `Seeding`.
    pub(crate) async fn prepare(&self, role: DestRole) -> Result<()> {
        let registry = self.clone();
        self.task("prepare", async move { registry.prepare_one(role).await }).await
    }

    async fn prepare_one(&self, role: DestRole) -> Result<()> {
        let _creating = self.inner.creating.lock().await;
        self.clear_doubt().await?;
        let given = role.version;
        if let Some(session) = self.known(&role.operation) {
            return session.prepare_again(&role).await;
        }
        let watermark = self.inner.engine.watermark().await?;
        if given <= watermark {
            return Err(Error::Late { given, watermark });
        }
        if let Some(by) = self.holder(&role.database, Some(&role.operation)) {
            return Err(Error::NameHeld { database: role.database, by });
        }
        if let Err(error) = self.inner.engine.prepare(&role).await {
            self.set_doubt();
            return Err(error.into());
        }
        tracing::info!(operation = %role.operation, database = %role.database, kind = %role.kind, "prepared an operation");
        self.insert(role);
        Ok(())
    }
}

/// The answer to a Prepare of an operation that is known.
fn repeated(known: &DestRole, given: &DestRole) -> Result<()> {
    if given.version < known.version {
        return Err(Refusal::StaleVersion { given: given.version, known: known.version }.into());
    }
    let other = |field| Err(Error::OtherRequest { operation: known.operation.clone(), field });
    if known.database != given.database {
        return other("database");
    }
    if known.kind != given.kind {
        return other("kind");
    }
    if !known.token.matches(given.token.expose()) {
        return other("token");
    }
    if known.source_identity != given.source_identity {
        return other("source identity");
    }
    match known.phase {
        Phase::Discarding | Phase::Discarded => {
            Err(Refusal::WrongPhase { command: "Prepare", phase: known.phase.as_str() }.into())
        }
        Phase::Seeding | Phase::Replica | Phase::Prepared { .. } | Phase::Primary { .. } => Ok(()),
    }
}

impl Session {
    async fn prepare_again(&self, given: &DestRole) -> Result<()> {
        let mut held = self.held.lock().await;
        self.clear_doubt(&mut held).await?;
        repeated(&held.role, given)?;
        if held.role.phase == Phase::Seeding && held.role.incarnation.is_none() {
            // The first time may have ended before the name was reserved.
            self.engine.prepare(&held.role).await?;
        }
        Ok(())
    }

    /// **The flip**, after waiting up to `wait` for the destination to be prepared. Answers when the database opened, in
    /// microseconds since 1970, or 0.
    pub(crate) async fn promote(
        self: &Arc<Self>,
        registry: &Registry,
        version: CommandVersion,
        attempt: Attempt,
        wait: Duration,
    ) -> Result<u64> {
        let event = Event::Promote(version, attempt);
        let shutdown = registry.shutdown();
        let mut view = self.view.subscribe();
        let mut late = self.env.clock().sleep(wait.min(PROMOTE_WAIT_MAX));
        loop {
            let seen = view.borrow_and_update().clone();
            if seen.gone {
                return Err(Error::Unknown(self.operation.clone()));
            }
            // Only foreseen: what is decided is decided under the role's lock.
            let refused = match step(&seen.role, &event) {
                Ok(_) => match self.promote_now(registry, event.clone()).await {
                    Ok(online) => return Ok(online),
                    Err(refused @ Error::Refused(Refusal::NotPrepared { .. })) => refused,
                    Err(error) => return Err(error),
                },
                Err(refused @ Refusal::NotPrepared { .. }) => refused.into(),
                Err(refused) => return Err(refused.into()),
            };
            tokio::select! {
                biased;
                changed = view.changed() => changed.map_err(|_| Error::Unknown(self.operation.clone()))?,
                () = shutdown.wait() => return Err(Error::Closing),
                () = &mut late => return Err(refused),
            }
        }
    }

    async fn promote_now(self: &Arc<Self>, registry: &Registry, event: Event) -> Result<u64> {
        let session = self.clone();
        registry
            .task("promote", async move {
                session.decide(&event).await?;
                session.let_go();
                Ok(session.online_unix_us.load(Ordering::Relaxed))
            })
            .await
    }

    /// Ends lanes and replica of a decided operation, behind the answer's back: the database is open already.
    fn let_go(self: &Arc<Self>) {
        let session = self.clone();
        self.env.spawn("let go", async move {
            session.lanes.end_all(Stop::Decided, false).await;
            session.close_replica().await;
        });
    }

    /// Closes the attempt for ever unless it was promoted; with `ask_only` closes nothing.
    pub(crate) async fn abort(
        self: &Arc<Self>,
        registry: &Registry,
        asker: Asker,
        attempt: Attempt,
        ask_only: bool,
    ) -> Result<DestAnswer> {
        let version = match asker {
            Asker::Coordinator(version) => Some(version),
            Asker::Source { token, caller } => {
                let role = self.view().role;
                if !role.token.matches(&token) {
                    return Err(Error::BadToken);
                }
                check_identity(&caller, &role)?;
                None
            }
        };
        let session = self.clone();
        registry
            .task("abort", async move {
                if ask_only {
                    return session.ask(|role| role.answer(attempt)).await;
                }
                let decided = session.decide(&Event::Abort(version, attempt)).await?;
                Ok(decision(&decided.answer))
            })
            .await
    }

    /// Override: opens the database as it is, if it is whole.
    pub(crate) async fn force_promote(
        self: &Arc<Self>,
        registry: &Registry,
        version: CommandVersion,
        attempt: Attempt,
    ) -> Result<u64> {
        let (session, event) = (self.clone(), Event::ForcePromote(version, attempt));
        registry.task("force promote", async move { session.force_open(event).await }).await
    }

    async fn force_open(self: Arc<Self>, event: Event) -> Result<u64> {
        let _acting = self.acting.lock().await;
        let role = self.ask(DestRole::clone).await?;
        // Refused before any stream is ended for it.
        step(&role, &event)?;
        tracing::warn!(operation = %self.operation, "open the database without a marker: an operator's override");
        if takes_data(&role.phase) {
            self.lanes.end_all(Stop::Superseded, true).await;
        }
        let forced = self.force_whole(&role, &event).await;
        self.lanes.reopen();
        forced?;
        self.let_go();
        Ok(self.online_unix_us.load(Ordering::Relaxed))
    }

    async fn force_whole(&self, role: &DestRole, event: &Event) -> Result<()> {
        if role.phase == Phase::Replica {
            // Made durable and proved whole, as before a marker; where it stands is where it opens.
            let replica = self.replica().await?;
            let _paused = replica.syncer.pause().await;
            if let Some(position) = replica.engine.sync().await?.log {
                replica.engine.prepare_marker(&position).await?;
            }
        }
        self.decide(event).await.map(|_| ())
    }
}

/// What an answer decides about an attempt.
pub(super) fn decision(answer: &Answer) -> DestAnswer {
    match answer {
        Answer::Decided(decision) => *decision,
        // `step` answers Abort and Discard with a decision only.
        Answer::Done | Answer::Skipped => DestAnswer::Unknown,
    }
}
