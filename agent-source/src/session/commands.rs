//! The coordinator's commands: the role decides, its record is durable before anything is done or answered.

use super::{Error, Halt, Session};
use handover::{
    Attempt, CommandVersion, Kind, Position,
    source_role::{Action, Event, Phase, SourceRole, step},
};
use std::time::Duration;

/// Both sides may take this long to come close before a fence; after that it goes ahead all the same.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// Log under way at a fence that counts as close: some 50 transactions of ten pages.
const CLOSE_BYTES: u64 = 2 << 20;

/// The log sender sees a pause within a round of its loop; one that does not is stuck in the network.
const PAUSE_WITHIN: Duration = Duration::from_secs(5);

/// A fence that has been answered.
pub struct Fenced {
    pub position: Position,
    /// Wall clock when writes stopped, in microseconds since 1970; 0 if not known any more.
    pub at_us: u64,
}

impl Session {
    /// The role as it is now.
    pub async fn role(&self) -> SourceRole {
        self.role.lock().await.clone()
    }

    /// The coordinator says Begin again: the same is done, something else is refused.
    pub(super) async fn begin_again(&self, asked: &SourceRole) -> Result<(), Error> {
        self.hear();
        let mut role = self.role.lock().await;
        let same = role.kind == asked.kind && role.database == asked.database && role.token == asked.token;
        if !same {
            return Err(Error::Differs(self.operation.clone()));
        }
        if asked.version > role.version || asked.dest_address != role.dest_address {
            let next = SourceRole {
                version: asked.version.max(role.version),
                dest_address: asked.dest_address.clone(),
                dest_identity: asked.dest_identity.clone(),
                ..role.clone()
            };
            self.record(&mut role, next).await?;
        }
        Ok(())
    }

    /// Closes the database to clients for an attempt; answers once the fence is durable.
    pub async fn fence(&self, version: CommandVersion, attempt: Attempt, grace: Duration) -> Result<Fenced, Error> {
        self.hear();
        // Refuse what is stale before waiting for anything.
        let planned = step(&*self.role.lock().await, &Event::Fence(version, attempt))?;
        if planned.actions.contains(&Action::Close(attempt)) {
            self.come_close().await?;
        }
        let mut role = self.role.lock().await;
        let planned = step(&role, &Event::Fence(version, attempt))?;
        match planned.actions.as_slice() {
            [Action::Close(n)] => self.close_database(&mut role, planned.next, *n, grace).await,
            [Action::AnnounceFenced(n, position)] => {
                let (n, position) = (*n, position.clone());
                self.record(&mut role, planned.next).await?;
                self.set_halt(Halt::At(n, position.clone()));
                Ok(Fenced { position, at_us: 0 })
            }
            // Fencing, but not by this call: its outcome is being found out.
            _ => Err(Error::InDoubt),
        }
    }

    async fn close_database(
        &self,
        role: &mut SourceRole,
        mut fencing: SourceRole,
        attempt: Attempt,
        grace: Duration,
    ) -> Result<Fenced, Error> {
        let fenced = self.shared.engine.fence(&mut fencing, grace).await;
        let at_us = u64::try_from(self.shared.env.now().as_millis()).unwrap_or(0) * 1000;
        match fenced {
            Ok(position) => {
                let durable = step(&fencing, &Event::FenceDurable(attempt, position.clone()))?;
                *role = fencing;
                self.record(role, durable.next).await?;
                self.set_halt(Halt::At(attempt, position.clone()));
                tracing::info!(operation = %self.operation, attempt = attempt.0, "fenced");
                Ok(Fenced { position, at_us })
            }
            Err(busy @ engines::Error::Busy(_)) => {
                let open = step(&fencing, &Event::FenceGaveUp(attempt))?;
                self.record(role, open.next).await?;
                Err(Error::Engine(busy))
            }
            Err(error) => {
                // Whether the fence stands is not known: treat it as an agent that restarts in Fencing does.
                *role = fencing;
                Err(error.into())
            }
        }
    }

    /// Lets the log drain to a little and both sides sync, so that the fence itself is short. Refuses while nothing could
    /// follow a fence soon: without a connection, or while the seed is being verified again.
    async fn come_close(&self) -> Result<(), Error> {
        let stream = self.stream().await?;
        let until = self.shared.env.monotonic() + SETTLE_WITHIN;
        let replicating = async {
            while !(self.meter.is_connected() && self.meter.is_seeded()) {
                self.shared.env.sleep(Duration::from_millis(5)).await;
            }
        };
        self.shared.env.timeout(SETTLE_WITHIN, replicating).await.map_err(|_| Error::NotReplicating)?;
        self.settle(SETTLE_WITHIN).await?;
        while self.shared.env.monotonic() < until {
            let Some(received) = self.meter.received_position() else { break };
            if stream.backlog(&received).await?.bytes <= CLOSE_BYTES {
                break;
            }
            self.shared.env.sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Takes a consistent point of a copy for an attempt.
    pub async fn mark(&self, version: CommandVersion, attempt: Attempt) -> Result<Position, Error> {
        self.hear();
        step(&*self.role.lock().await, &Event::Mark(version, attempt))?;
        self.come_close().await?;
        let mut role = self.role.lock().await;
        let planned = step(&role, &Event::Mark(version, attempt))?;
        self.record(&mut role, planned.next).await?;
        let now = self.halt.borrow().clone();
        if let Halt::At(n, position) = now
            && n == attempt
        {
            // Sent again, in case the first one got lost with its connection.
            self.set_halt(Halt::At(n, position.clone()));
            return Ok(position);
        }
        // Log beyond the point must not be sent, so the sender stops before the point is taken.
        self.set_halt(Halt::Pause(attempt));
        let mut sender = self.sender.subscribe();
        let paused = sender.wait_for(|sender| !sender.alive || sender.paused == Some(attempt));
        if self.shared.env.timeout(PAUSE_WITHIN, paused).await.is_err() {
            self.set_halt(Halt::Run);
            return Err(Error::NotPaused(PAUSE_WITHIN.as_secs()));
        }
        match self.shared.engine.mark(&role, attempt).await {
            Ok(position) => {
                self.set_halt(Halt::At(attempt, position.clone()));
                Ok(position)
            }
            Err(error) => {
                self.set_halt(Halt::Run);
                Err(error.into())
            }
        }
    }

    /// The point that a copy's mark was is lost: the next Mark takes another. The destination has not taken the marker, or it
    /// would be prepared and want no plan.
    pub(super) async fn forget_mark(&self) {
        let role = self.role.lock().await;
        let marked = matches!(*self.halt.borrow(), Halt::At(..));
        if role.kind == Kind::Copy && marked {
            self.set_halt(Halt::Run);
        }
    }

    /// Opens the database again after the destination closed the attempt, or goes on streaming after an aborted mark.
    pub async fn unfence(&self, version: CommandVersion, attempt: Attempt) -> Result<(), Error> {
        self.hear();
        self.open_before_reopening().await;
        let mut role = self.role.lock().await;
        let planned = step(&role, &Event::Unfence(version, attempt))?;
        self.reopen(&mut role, planned).await
    }

    /// Opens the database again because an operator says so.
    pub async fn force_unfence(&self, version: CommandVersion) -> Result<(), Error> {
        self.hear();
        self.open_before_reopening().await;
        let mut role = self.role.lock().await;
        let planned = step(&role, &Event::ForceUnfence(version))?;
        tracing::warn!(operation = %self.operation, "an operator reopens the source by force");
        self.reopen(&mut role, planned).await
    }

    /// Opens the stream while the fence stands, for an agent that was restarted: a log that was interrupted meanwhile is
    /// complete all the same, since nobody can have written. Reopening must not fail for it.
    pub(super) async fn open_before_reopening(&self) {
        if self.role().await.in_doubt().is_some()
            && let Err(error) = self.stream().await
        {
            tracing::warn!(operation = %self.operation, error = %service::status::chain(&error),
                "open the stream before the fence is lifted");
        }
    }

    async fn reopen(&self, role: &mut SourceRole, planned: handover::source_role::Step) -> Result<(), Error> {
        match planned.actions.as_slice() {
            [Action::Reopen(n)] => {
                let reopened = step(&planned.next, &Event::Reopened(*n))?;
                let opened = self.shared.engine.unfence(&planned.next, &reopened.next).await;
                opened?;
                *role = reopened.next;
                self.set_halt(Halt::Run);
            }
            [Action::ResumeStream(_)] => {
                self.record(role, planned.next).await?;
                self.set_halt(Halt::Run);
            }
            _ => self.record(role, planned.next).await?,
        }
        Ok(())
    }

    /// Drops the database (move) or ends its log retention (copy).
    pub async fn release(&self, version: CommandVersion, attempt: Attempt, moved_to: &str) -> Result<(), Error> {
        self.hear();
        let mut role = self.role.lock().await;
        let planned = step(&role, &Event::Release(version, attempt))?;
        self.record(&mut role, planned.next).await?;
        if planned.actions.contains(&Action::Release(attempt)) {
            self.stop();
            self.close_stream().await;
            let released = self.shared.engine.release(&role, moved_to).await;
            released?;
            let done = step(&role, &Event::ReleaseDone)?;
            self.record(&mut role, done.next).await?;
            tracing::info!(operation = %self.operation, "released");
        }
        Ok(())
    }

    /// Removes everything of the operation, its record last.
    pub(super) async fn cleanup(&self, version: CommandVersion) -> Result<(), Error> {
        self.hear();
        let mut role = self.role.lock().await;
        let planned = step(&role, &Event::Cleanup(version))?;
        self.record(&mut role, planned.next).await?;
        self.stop();
        self.close_stream().await;
        if let Phase::CleaningUp { .. } = role.phase {
            self.shared.engine.cleanup(&role).await?;
        }
        let removed = self.shared.engine.remove_role(&self.operation, version).await;
        Ok(removed?)
    }

    /// Makes `next` the role: durable first.
    async fn record(&self, role: &mut SourceRole, next: SourceRole) -> Result<(), Error> {
        if *role != next {
            self.shared.engine.put_role(&next).await?;
            *role = next;
        }
        Ok(())
    }

    /// Where the operation stands, for the coordinator.
    pub async fn status(&self) -> proto::v1::SourceStatus {
        self.hear();
        let role = self.role().await;
        let trouble = self.meter.current_trouble();
        proto::v1::SourceStatus {
            phase: role.phase.as_str().to_owned(),
            attempt: role.phase.attempt().map_or(0, |attempt| attempt.0),
            floor: role.floor.0,
            progress: Some(self.meter.progress()),
            connected: self.meter.is_connected(),
            fatal: trouble.as_ref().is_some_and(|(_, fatal)| *fatal),
            trouble: trouble.map(|(reason, _)| reason),
            seeded: self.meter.is_seeded(),
        }
    }
}
