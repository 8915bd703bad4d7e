//! The invariants of DESIGN.md section 3, as properties of states.

use crate::{bounds::Bounds, check::Protocol, world::World};
use handover::{
    Kind,
    dest_role::Phase,
    operation::{CompletionStep, State},
};
use stateright::Property;

/// Invariant 1: a move's source and destination never both accept a client's write.
pub const TWO_PRIMARIES: &str = "1 never two primaries";
/// Invariant 2: what the destination opens with is what was acknowledged before the fence (copy: the mark), all and only.
pub const LOST: &str = "2 nothing lost, nothing invented";
/// Invariant 3: no attempt is both promoted and told to be closed, and at most one is promoted.
pub const TWO_OUTCOMES: &str = "3 an attempt has one outcome";
/// Invariant 3, seen from the destination: a primary stays one.
pub const TAKEN_BACK: &str = "3 a flip is never taken back";
/// Invariant 4: see [`crate::drain`].
pub const ENDS: &str = "4 ends by itself, with one side open";
/// Invariant 5: a move's source is dropped only after the destination was durably primary.
pub const DROPPED: &str = "5 dropped only after the flip";
/// Invariant 6: when an operation has ended, neither side has a record of it, whatever arrives late.
pub const TRACE: &str = "6 an operation that ended leaves no trace";

/// All of them. The numbers are those of DESIGN.md.
pub fn all(bounds: &Bounds) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(TWO_PRIMARIES, |model: &Protocol, world: &World| {
            model.bounds.kind == Kind::Copy || !(world.source_open() && world.dest_open())
        }),
        Property::always(LOST, |_, world: &World| !world.history.torn && world.dest.applied <= world.source.written),
        Property::always(TWO_OUTCOMES, |_, world: &World| {
            let history = &world.history;
            history.opened & history.closed == 0 && history.opened.count_ones() <= 1
        }),
        Property::always(TAKEN_BACK, |_, world: &World| {
            let open = world.dest.role.as_ref().is_none_or(|role| matches!(role.phase, Phase::Primary { .. }));
            world.history.opened == 0 || open
        }),
        Property::always(ENDS, Protocol::drains),
        Property::always(DROPPED, |_, world: &World| !world.history.dropped_early),
        Property::always(TRACE, |_, world: &World| {
            !world.store.operation.state.ended() || (world.source.role.is_none() && world.dest.role.is_none())
        }),
        // What shows that the model gets anywhere.
        Property::sometimes("succeeds", |_, world: &World| world.store.operation.state == State::Succeeded),
        Property::sometimes("is cancelled", |_, world: &World| world.store.operation.state == State::Cancelled),
        Property::sometimes("is opened again and goes on", |_, world: &World| {
            world.history.closed != 0 && world.store.operation.state == State::Ready
        }),
        Property::sometimes("flips after a cancel was asked for", |_, world: &World| {
            match &world.store.operation.state {
                State::Completing(completing) => {
                    matches!(completing.step, CompletionStep::Aborting { .. }) && world.history.opened != 0
                }
                _ => false,
            }
        }),
    ];
    if bounds.attempts > 1 {
        all.push(Property::sometimes("a later attempt flips", |_, world: &World| world.history.opened > 2));
    }
    all
}
