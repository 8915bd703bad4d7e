//! The marker of an attempt: everything up to it is made durable, and `Prepared` recorded. Every millisecond here is one
//! that clients wait.

use super::{
    error::Result,
    lane::Lane,
    log::{Control, position},
    plan::not_replicating,
};
use handover::dest_role::{Answer as Told, Event, step};
use proto::{
    convert,
    v1::{Marker, MarkerTaken, dest_frame::Frame as Answer},
};

impl Control {
    pub(super) async fn marker(&mut self, lane: &mut Lane, marker: Marker) -> Result<()> {
        let attempt = convert::attempt("marker.attempt", marker.attempt)?;
        let position = position("marker.position", &marker.position)?;
        let event = Event::Marker(attempt, position.clone());
        // Judged before the work: a closed attempt must not make the replica move.
        let foreseen = step(&lane.session.view().role, &event).map_err(|e| not_replicating("a marker")(e.into()))?;
        let skipped = foreseen.answer == Told::Skipped || {
            // A sync beside it would only compete for the disk.
            let _paused = lane.replica.syncer.pause().await;
            lane.replica.engine.prepare_marker(&position).await?;
            lane.replica.syncer.clean();
            // Judged again by what is durable now: the attempt may have been closed meanwhile.
            lane.session.decide(&event).await.map_err(not_replicating("a marker"))?.answer == Told::Skipped
        };
        lane.send(Answer::MarkerTaken(MarkerTaken { attempt: attempt.0, skipped })).await?;
        if !skipped {
            self.reached(lane, &position);
        }
        Ok(())
    }
}
