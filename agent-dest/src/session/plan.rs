//! The plan of a seed: its first one, its continuation, and a new generation after the source lost its log.

use super::{
    Session,
    error::{Error, Result},
    lane::Lane,
    log::{Control, position},
    replica::Replica,
};
use engines::source::{Part, Plan};
use handover::dest_role::{Event, Phase, Refusal};
use proto::v1::{self, PlanTaken, dest_frame::Frame as Answer};
use std::collections::BTreeSet;

impl Control {
    pub(super) async fn plan(&mut self, lane: &mut Lane, plan: v1::Plan) -> Result<()> {
        let plan = read(plan)?;
        let generation = plan.generation;
        lane.session.take_plan(&lane.replica, &plan).await?;
        self.generation = Some(generation);
        lane.send(Answer::PlanTaken(PlanTaken { generation })).await?;
        // An earlier stream may have ended before it told how far the log is durable, and a quiet source would keep it.
        let durable = lane.replica.engine.durable().await?.log;
        self.begin(lane, durable);
        Ok(())
    }
}

fn read(plan: v1::Plan) -> Result<Plan> {
    if plan.generation == 0 {
        return Err(Error::frame("the generation of a plan is counted from 1"));
    }
    let mut numbers = BTreeSet::new();
    if let Some(part) = plan.parts.iter().find(|part| !numbers.insert(part.part)) {
        return Err(Error::frame(format!("the plan has part {} twice", part.part)));
    }
    Ok(Plan {
        generation: plan.generation,
        parts: plan.parts.into_iter().map(|p| Part { part: p.part, object: p.object, bytes: p.bytes }).collect(),
        verify: plan.verify,
        log_start: position("plan.log_start", &plan.log_start)?,
        log_resume: position("plan.log_resume", &plan.log_resume)?,
        header: plan.header,
    })
}

impl Session {
    async fn take_plan(&self, replica: &Replica, plan: &Plan) -> Result<()> {
        let held = replica.engine.durable().await?.held.generation;
        if plan.generation < held {
            return Err(Error::WrongGeneration { given: plan.generation, held });
        }
        if plan.generation > held {
            // Recorded before the engine forgets what it held: a destination that is being verified anew must not pass
            // for a replica after a crash.
            self.decide(&Event::SeedAgain).await.map_err(not_replicating("a new plan"))?;
            self.lanes.end_older_seed(plan.generation).await;
            tracing::info!(
                operation = %self.operation,
                generation = plan.generation,
                parts = plan.parts.len(),
                verify = plan.verify,
                "begin a seed"
            );
        }
        replica.engine.plan(plan).await?;
        self.meter.planned(plan);
        self.meter.durable(&replica.engine.durable().await?);
        Ok(())
    }

    /// The seed is whole at the source: loads it, and records that.
    pub(super) async fn load_seed(&self, replica: &Replica) -> Result<()> {
        let held = replica.engine.durable().await?.held;
        if !(held.seeded && matches!(self.view().role.phase, Phase::Replica | Phase::Prepared { .. })) {
            replica.engine.seed_done().await?;
            self.decide(&Event::SeedLoaded).await.map_err(not_replicating("a seed"))?;
            tracing::info!(operation = %self.operation, generation = held.generation, "loaded the seed");
            self.meter.durable(&replica.engine.durable().await?);
        }
        // The log kept meanwhile is applied: how far that is durable is told soon.
        replica.syncer.wrote(0, true);
        Ok(())
    }
}

/// What the source sends does not fit the phase: in the transfer's words.
pub(super) fn not_replicating(what: &'static str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Refused(Refusal::WrongPhase { phase, .. }) => Error::NotReplicating { phase, what },
        error => error,
    }
}
