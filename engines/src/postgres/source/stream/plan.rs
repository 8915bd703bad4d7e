//! Joining what the destination holds with the slot and the snapshot that there still are.

use super::{
    super::{begin, holder, instance, memo::Memo, seed::plan as seed},
    Stream, watch,
};
use crate::{
    Error, Result,
    postgres::{payload::encode, position::Point},
    source::{Held, Plan},
};
use handover::Position;
use std::sync::Arc;

pub(super) async fn plan(stream: &Stream, held: &Held) -> Result<Plan> {
    let (inner, role) = (&stream.inner, &stream.role);
    stream.forget_readers();
    let sql = stream.session().await?;
    instance::check(&sql, role).await?;
    let mut memo: Memo = inner.store.memo(&role.operation).await?.unwrap_or_default();
    if memo.slot.is_none() {
        // The agent that was told to begin died on the way; nobody says it again.
        memo = begin::complete(inner, role).await?;
    } else if !held.seeded {
        begin::identities(inner, role, &sql, &mut memo).await?;
    }
    let slot = watch::holding(stream).await?;
    // The slot may be gone, as after a failover, or past what the destination has, should that have lost something.
    let resume = if held.generation == memo.generation { held.log.as_ref() } else { None };
    let start = memo.slot.as_ref().map(|slot| slot.start()).transpose()?.map(Point::at);
    let resume_at = resume.map(Point::read).transpose()?.or(start);
    let continued = slot.confirmed.is_some() && resume_at.is_some_and(|at| Some(at.lsn) >= slot.confirmed);
    let stale = std::mem::take(&mut stream.state().stale) && !is_whole(&memo, held);
    if !continued || stale {
        let why = "a table was rewritten before it was sent, or the slot is gone or past what the destination holds: the seed starts over";
        tracing::warn!(operation = %role.operation, generation = memo.generation, "{why}");
        begin::new_generation(inner, role, &mut memo).await?;
    }
    let whole = is_whole(&memo, held);
    if !whole {
        in_snapshot(stream, &mut memo).await?;
    }
    stream.seeded.send_replace(whole);
    if whole {
        holder::end(&sql, &stream.names).await?;
    }
    let plan = made(&memo, held, whole)?;
    stream.state().memo = Some(Arc::new(memo));
    Ok(plan)
}

/// Whether nothing of the seed has to be read any more.
fn is_whole(memo: &Memo, held: &Held) -> bool {
    let Some(plan) = memo.plan.as_ref().filter(|_| held.generation == memo.generation) else { return false };
    let done = held.parts.iter().filter(|part| part.done).count();
    held.seeded || done == plan.parts.len()
}

/// Makes sure that the snapshot is held and the seed is planned in it; a snapshot that is gone takes the generation with it.
async fn in_snapshot(stream: &Stream, memo: &mut Memo) -> Result<()> {
    let (inner, role) = (&stream.inner, &stream.role);
    for last in [false, true] {
        let sql = inner.sql(stream.database(), "source plan").await?;
        let slot = memo.slot.clone().ok_or_else(|| Error::Internal("a generation without a slot".to_owned()))?;
        match holder::import(&sql, &slot).await {
            Ok(()) => {
                if memo.plan.is_none() {
                    memo.plan = Some(seed::build(&sql, stream.database()).await?);
                    inner.store.set_memo(&role.operation, memo).await?;
                }
                return Ok(());
            }
            Err(error @ Error::LogLost(_)) if last => return Err(error),
            Err(Error::LogLost(why)) => {
                tracing::warn!(operation = %role.operation, generation = memo.generation, "{why}: the seed starts over");
                begin::new_generation(inner, role, memo).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn made(memo: &Memo, held: &Held, whole: bool) -> Result<Plan> {
    let (Some(slot), Some(plan)) = (&memo.slot, &memo.plan) else {
        return Err(Error::Internal("a generation without a plan".to_owned()));
    };
    let log_start: Position = Point::at(slot.start()?).position();
    let same = held.generation == memo.generation;
    let log_resume = held.log.clone().filter(|_| same).unwrap_or_else(|| log_start.clone());
    tracing::debug!(generation = memo.generation, whole, "planned");
    Ok(Plan {
        generation: memo.generation,
        parts: plan.parts(),
        verify: false,
        log_start,
        log_resume,
        header: encode(&plan.header)?,
    })
}

/// The seed is read to its end: the snapshot may go, and the log may come.
pub(super) async fn seed_done(stream: &Stream) -> Result<()> {
    let memo = stream.memo()?;
    let start = memo.slot.as_ref().map(|slot| slot.start()).transpose()?;
    let slot = watch::holding(stream).await?;
    if slot.confirmed.is_none() || start.is_none() {
        return Err(Error::LogLost("the slot is gone".to_owned()));
    }
    stream.forget_readers();
    holder::end(&*stream.watch_session().await?, &stream.names).await?;
    stream.seeded.send_replace(true);
    Ok(())
}
