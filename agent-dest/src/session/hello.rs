//! Hello: who speaks, for which operation, and whether it may.

use super::{
    Registry, Session,
    error::{Error, Result},
    lanes::{CONTROL, LANES_MAX, Ticket},
};
use handover::{
    Epoch, Incarnation,
    dest_role::{DestRole, Event, Phase},
};
use proto::{
    convert::{self, BadField},
    v1::{self, HeldPart, Welcome},
};
use service::serve::Peer;
use std::sync::Arc;

/// Whoever calls; without an identity where the agent runs with `--insecure`.
pub(crate) type Caller = Peer;

/// A lane that may go on.
pub(super) struct Admitted {
    pub(super) session: Arc<Session>,
    pub(super) ticket: Ticket,
    pub(super) lane: u32,
    pub(super) generation: u64,
}

/// Judges a Hello in the order of the protocol's reasons, and lets the lane in once an older stream has let go.
pub(super) async fn admit(registry: &Registry, caller: &Caller, hello: v1::Hello) -> Result<Admitted> {
    if hello.protocol != proto::PROTOCOL {
        return Err(Error::Protocol { given: hello.protocol, ours: proto::PROTOCOL });
    }
    let operation = convert::operation_id("hello.operation", &hello.operation)?;
    let session = registry.find(&operation).await?;
    let role = session.view().role;
    if !role.token.matches(&hello.token) {
        return Err(Error::BadToken);
    }
    check_identity(caller, &role)?;
    // From here on it is the operation's own source agent: what is wrong is the operation's trouble.
    let admitted = admit_source(registry, session.clone(), &hello).await;
    match &admitted {
        Ok(_) => session.meter.welcomed(),
        // An agent that was replaced may well know an older database.
        Err(_) if Epoch(hello.epoch) < role.source_epoch => {}
        Err(error) => session.meter.failed(error),
    }
    admitted
}

/// Refuses everybody but the operation's source agent, where it is named and identities are known.
pub(super) fn check_identity(caller: &Caller, role: &DestRole) -> Result<()> {
    if role.source_identity.is_empty()
        || (caller.identity.is_none() && !caller.unproven)
        || caller.is(&role.source_identity)
    {
        return Ok(());
    }
    Err(Error::OtherIdentity { caller: caller.to_string(), expected: role.source_identity.clone() })
}

async fn admit_source(registry: &Registry, session: Arc<Session>, hello: &v1::Hello) -> Result<Admitted> {
    let role = session.view().role;
    let ours = session.engine.name();
    if hello.engine != ours {
        return Err(Error::EngineDiffers { given: hello.engine.chars().take(64).collect(), ours });
    }
    if hello.database != role.database.as_str() {
        return Err(Error::SourceChanged("database name"));
    }
    let incarnation = Incarnation::parse(&hello.incarnation)
        .map_err(|e| BadField { field: "hello.incarnation".to_owned(), problem: e.to_string() })?;
    let epoch = Epoch(hello.epoch);
    let lane = hello.lane;
    if lane > LANES_MAX {
        return Err(Error::frame(format!("lane {lane} is beyond the {LANES_MAX} lanes of an operation")));
    }
    // In a task of its own: the lane may be gone before the record's fate is known.
    let recording = session.clone();
    registry.task("hello", async move { recording.amend(|role| recognise(role, incarnation, epoch)).await }).await?;
    let ticket = session.lanes.enter(lane, epoch, hello.generation).await?;
    Ok(Admitted { session, ticket, lane, generation: hello.generation })
}

/// Takes note of the source, or refuses one that is not the one it was.
fn recognise(role: &mut DestRole, incarnation: Incarnation, epoch: Epoch) -> Result<()> {
    if role.incarnation.as_ref().is_some_and(|known| *known != incarnation) {
        return Err(Error::SourceChanged("incarnation"));
    }
    if epoch < role.source_epoch {
        return Err(Error::StaleEpoch { given: epoch, known: role.source_epoch });
    }
    if takes_data(&role.phase) {
        role.incarnation = Some(incarnation);
        role.source_epoch = epoch;
    }
    Ok(())
}

/// Whether the operation is still undecided.
pub(super) fn takes_data(phase: &Phase) -> bool {
    match phase {
        Phase::Seeding | Phase::Replica | Phase::Prepared { .. } => true,
        Phase::Primary { .. } | Phase::Discarding | Phase::Discarded => false,
    }
}

impl Admitted {
    /// The answer to Hello, and whether the lane goes on after it: once the operation is decided, the phase is all there
    /// is to tell.
    pub(super) async fn welcome(&self) -> Result<(Welcome, bool)> {
        // Asked again: the lane may have waited, and meanwhile anything may have been decided.
        let role = self.session.ask(DestRole::clone).await?;
        if !takes_data(&role.phase) {
            return Ok((welcome(&role), false));
        }
        let replica = self.session.replica().await?;
        let held = replica.engine.durable().await?.held;
        if self.lane != CONTROL && (held.generation == 0 || self.generation != held.generation) {
            return Err(Error::WrongGeneration { given: self.generation, held: held.generation });
        }
        let role = match role.phase {
            // The agent ended between the engine's last word on the seed and its record.
            Phase::Seeding if self.lane == CONTROL && held.seeded => {
                self.session.decide(&Event::SeedLoaded).await?.role
            }
            _ => role,
        };
        let parts = held.parts.iter();
        let welcome = Welcome {
            generation: held.generation,
            parts: parts.map(|p| HeldPart { part: p.part, durable: p.durable, done: p.done }).collect(),
            seeded: held.seeded,
            log_position: held.log.map(|position| position.as_str().to_owned()).unwrap_or_default(),
            ..welcome(&role)
        };
        Ok((welcome, true))
    }
}

fn welcome(role: &DestRole) -> Welcome {
    let attempt = role.phase.attempt().map_or(0, |attempt| attempt.0);
    Welcome { phase: role.phase.as_str().to_owned(), attempt, floor: role.floor.0, ..Welcome::default() }
}
