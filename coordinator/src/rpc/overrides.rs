//! Overrides, for when one side is gone for ever: asked for twice, recorded, and refused when the other side can be seen
//! to contradict.

use std::future::Future;

use handover::{
    Attempt, CommandVersion, Kind, OperationId,
    operation::{Completing, CompletionStep as Step, Event, Illegal, Operation, State, step},
};
use proto::v1;

use super::{
    error::Error,
    fields::{Fields, checked},
    instances::registered,
    select, wire,
};
use crate::{
    agents::{self, DestAgent, SourceAgent},
    auth::Caller,
    core::Core,
    store::{self, Done, Stored},
};

/// Tries against changes that the driver makes meanwhile, and against agents that know a newer version.
const TRIES: u32 = 20;

pub(super) async fn forget(
    core: &Core,
    caller: &Caller,
    request: v1::ForgetOperationRequest,
) -> Result<v1::ForgetOperationResponse, Error> {
    let mut fields = Fields::default();
    let side = request.side();
    if side == v1::Side::Unspecified {
        fields.wrong("side", "give SIDE_SOURCE or SIDE_DEST: the side that is gone for ever");
    }
    let stored = asked_twice(core, caller, &request.id, &request.confirm, fields).await?;
    let event = |now_ms| match side {
        v1::Side::Dest => Event::ForgetDest { now_ms },
        v1::Side::Source | v1::Side::Unspecified => Event::ForgetSource { now_ms },
    };
    match legal(core, &stored, event) {
        // Said when it is recorded: while the destination answers, its loss is not what stands in the way.
        Err(refused) if is_last_copy(&refused) => {}
        legal => legal?,
    }
    let operation = stored.operation();
    // A side that answers is not gone, unless it knows nothing of the operation.
    let answered = match side {
        v1::Side::Dest => match dest(core, operation).await? {
            Some(agent) => Some((agent.status(&operation.id).await.map(drop), agent.party().clone())),
            None => None,
        },
        v1::Side::Source | v1::Side::Unspecified => match source(core, operation).await? {
            Some(agent) => Some((agent.status(&operation.id).await.map(drop), agent.party().clone())),
            None => None,
        },
    };
    match answered {
        None => {}
        Some((Err(error), _)) if error.unreachable() || error.unknown_operation() => {}
        Some((Ok(()) | Err(_), party)) => return Err(Error::SideAnswers(party)),
    }
    let operation = record(core, caller, stored.id(), "forget", event).await?;
    Ok(v1::ForgetOperationResponse { operation: Some(operation) })
}

fn is_last_copy(refused: &Error) -> bool {
    matches!(refused, Error::Illegal(refused) if refused.iter().any(|(_, why)| *why == Illegal::LastCopy))
}

pub(super) async fn force_unfence(
    core: &Core,
    caller: &Caller,
    request: v1::ForceUnfenceRequest,
) -> Result<v1::ForceUnfenceResponse, Error> {
    let stored = asked_twice(core, caller, &request.id, &request.confirm, Fields::default()).await?;
    let id = stored.id().clone();
    let event = |now_ms| Event::ForcedUnfence { now_ms };
    legal(core, &stored, event)?;
    let operation = stored.operation();
    if let Some(agent) = dest(core, operation).await?
        && let Ok(status) = agent.status(&id).await
        && status.may_be_primary()
    {
        if let State::Completing(Completing { step: Step::Flipped { .. }, .. }) = operation.state {
            return Err(Error::Illegal(vec![(id, Illegal::TooLate)]));
        }
        let text = format!("{} is {}: clients may be writing there", agent.party(), status.phase);
        return Err(Error::TwoPrimaries(text));
    }
    let agent = core.agents.source(&registered(core, &operation.source).await?)?;
    // The source closes the attempt as it opens, so the driver cannot fence it again before the event is stored.
    insist(core, &id, |version| {
        let (agent, id) = (agent.clone(), id.clone());
        async move { agent.force_unfence(&id, version).await }
    })
    .await?;
    let operation = record(core, caller, &id, "force-unfence", event).await?;
    Ok(v1::ForceUnfenceResponse { operation: Some(operation) })
}

pub(super) async fn force_promote(
    core: &Core,
    caller: &Caller,
    request: v1::ForcePromoteRequest,
) -> Result<v1::ForcePromoteResponse, Error> {
    let stored = asked_twice(core, caller, &request.id, &request.confirm, Fields::default()).await?;
    let id = stored.id().clone();
    let operation = stored.operation();
    // The attempt under way, so that a source which is fenced for it can be released later.
    let attempt = operation.attempt.max(Attempt(1));
    let event = |now_ms| Event::ForcedPromote { attempt, now_ms };
    legal(core, &stored, event)?;
    if let State::Completing(Completing { step: Step::Flipped { .. } | Step::Forgetting { .. }, .. }) = operation.state
    {
        return Err(Error::Illegal(vec![(id, Illegal::TooLate)]));
    }
    if operation.kind == Kind::Move
        && let Some(agent) = source(core, operation).await?
    {
        match agent.status(&id).await {
            Ok(status) if status.fenced() => {}
            Err(error) if error.unreachable() => {}
            Ok(status) => {
                let text = format!("{} is {}: clients may be writing there", agent.party(), status.phase);
                return Err(Error::TwoPrimaries(text));
            }
            Err(error) => {
                let text = format!("{error}; so it answers, and its database may be open");
                return Err(Error::TwoPrimaries(text));
            }
        }
    }
    let agent = core.agents.dest(&registered(core, &operation.destination).await?)?;
    insist(core, &id, |version| {
        let (agent, id) = (agent.clone(), id.clone());
        async move { agent.force_promote(&id, version, attempt).await }
    })
    .await?;
    let operation = record(core, caller, &id, "force-promote", event).await?;
    Ok(v1::ForcePromoteResponse { operation: Some(operation) })
}

/// The operation of an override, once both the id and its repetition are what they should be; `fields` may name other
/// fields that are wrong.
async fn asked_twice(
    core: &Core,
    caller: &Caller,
    id: &str,
    confirm: &str,
    mut fields: Fields,
) -> Result<Stored, Error> {
    let parsed = fields.operation("id", id);
    fields.confirm(id, confirm);
    fields.check()?;
    let stored = select::seen(core, caller, &checked(parsed, "id")?).await?;
    caller.may_override(core, stored.operation()).await?;
    Ok(stored)
}

/// Whether the state machine would take the event now.
fn legal(core: &Core, stored: &Stored, event: impl Fn(i64) -> Event) -> Result<(), Error> {
    let operation = stored.operation();
    // No agent has heard of an operation in the queue, so there is nothing to force.
    let queued = operation.state == State::Queued;
    let refused = match step(operation, &event(core.now_ms())) {
        Ok(_) if !queued => return Ok(()),
        Ok(_) => Illegal::NotReady { state: operation.state.as_str() },
        Err(refused) => refused,
    };
    Err(Error::Illegal(vec![(operation.id.clone(), refused)]))
}

/// Step and commit, on whatever the operation has become.
async fn record(
    core: &Core,
    caller: &Caller,
    id: &OperationId,
    what: &str,
    event: impl Fn(i64) -> Event,
) -> Result<v1::Operation, Error> {
    for _ in 0..TRIES {
        let stored = select::one(core, id).await?;
        let now_ms = core.now_ms();
        let next =
            step(stored.operation(), &event(now_ms)).map_err(|illegal| Error::Illegal(vec![(id.clone(), illegal)]))?;
        let record = stored.record.advanced(next, now_ms).done(Done::Override, caller.name(), now_ms);
        match core.records.update(&[(&stored, &record)]).await {
            Ok(version) => {
                tracing::warn!(operation = %id, by = %caller, "override: {what}");
                return Ok(wire::operation(core, &Stored { version, record }));
            }
            Err(store::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended)
}

/// Give a command, raising the operation's version until the agent takes it.
async fn insist<F, Fut>(core: &Core, id: &OperationId, call: F) -> Result<(), Error>
where
    F: Fn(CommandVersion) -> Fut,
    Fut: Future<Output = Result<(), agents::Error>>,
{
    let mut above = CommandVersion(0);
    for tries in 0..TRIES {
        let stored = select::one(core, id).await?;
        let version = match tries {
            0 => stored.version,
            _ => match core.records.raise(&stored, above).await {
                Ok(version) => version,
                Err(store::Error::Conflict { .. }) => continue,
                Err(error) => return Err(error.into()),
            },
        };
        match call(version).await {
            Err(agents::Error::Refused { reason, known, .. }) if reason.code == "STALE_VERSION" => {
                above = known.unwrap_or(CommandVersion(version.0.saturating_mul(2)));
            }
            other => return Ok(other?),
        }
    }
    Err(Error::Contended)
}

/// The source agent, unless the instance is not known any more or has none.
async fn source(core: &Core, operation: &Operation) -> Result<Option<SourceAgent>, Error> {
    let known = core.instances.get(&operation.source).await?;
    Ok(known.and_then(|known| core.agents.source(&known.record).ok()))
}

/// The destination agent, unless the instance is not known any more or has none.
async fn dest(core: &Core, operation: &Operation) -> Result<Option<DestAgent>, Error> {
    let known = core.instances.get(&operation.destination).await?;
    Ok(known.and_then(|known| core.agents.dest(&known.record).ok()))
}
