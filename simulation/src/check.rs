//! What must hold: at every step, when an operation ends, and when everything has ended.

use crate::world::{Subject, World};
use handover::Kind;
use proto::v1::State;

/// What must hold at every step.
pub fn step(world: &World) {
    for subject in &world.subjects {
        step_of(world, subject);
    }
}

fn step_of(world: &World, subject: &Subject) {
    let name = &subject.ledger.name;
    let (west, east) = (world.west.takes_writes(name), world.east.takes_writes(name));
    let mut standing = subject.standing();
    if standing.kind == Some(Kind::Move) && west && east {
        world.violated(format!("{name} takes writes at both instances"));
        // Said once.
        standing.kind = None;
    }
    if standing.opened && !east {
        world.violated(format!("{name} was opened at the destination, and takes no writes there any more"));
    }
    if east && !standing.opened {
        world.trace.say("check", format_args!("{name} is open at east, {} writes", subject.ledger.acknowledged()));
        let rows = world.east.rows(name).unwrap_or_default();
        let wrong = match (standing.kind, standing.completed_at) {
            (_, None) => Some(format!("{name} was opened at the destination and nobody asked for it")),
            (Some(Kind::Copy), Some(least)) => subject.ledger.judge_prefix(&rows, least),
            (_, Some(_)) => subject.ledger.judge(&rows),
        };
        if let Some(wrong) = wrong {
            world.violated(format!("at the flip {wrong}"));
        }
        standing.copied = standing.kind == Some(Kind::Copy);
    }
    standing.opened = east;
    let gone = !west && matches!(world.west.rows(name), Err(engines::Error::NoDatabase(_)));
    if gone && !east {
        world.violated(format!("{name} was dropped at the source before it is open at the destination"));
    }
}

/// What must hold when an operation ended.
pub fn ended(world: &World, subject: &Subject, kind: Kind, state: State) {
    let name = &subject.ledger.name;
    let (west, east) = (world.west.takes_writes(name), world.east.takes_writes(name));
    let wanted = match (state, kind) {
        (State::Succeeded, Kind::Move) => (false, true),
        (State::Succeeded, Kind::Copy) => (true, true),
        (State::Cancelled | State::Failed, _) => (true, false),
        // Found wrong already.
        _ => return,
    };
    if (west, east) != wanted {
        world.violated(format!(
            "the {kind} of {name} ended as {state:?}, and the database takes writes at (west, east): {:?} instead of {wanted:?}",
            (west, east)
        ));
    }
    let home = if west { &world.west } else { &world.east };
    if let Some(wrong) = home.rows(name).ok().and_then(|rows| subject.ledger.judge(&rows)) {
        world.violated(format!("at the end {wrong}"));
    }
}

/// What must hold when nobody remembers an operation any more: it has ended one way or the other.
pub fn forgotten(world: &World, subject: &Subject) -> State {
    let east = world.east.takes_writes(&subject.ledger.name);
    world.trace.say("check", format_args!("{} is forgotten; open at east: {east}", subject.ledger.name));
    if east { State::Succeeded } else { State::Cancelled }
}

/// What must hold once nobody has anything left to do.
pub fn everything_ended(world: &World) {
    for (side, instance) in [("west", &world.west), ("east", &world.east)] {
        if !instance.is_clean() {
            world.violated(format!("something of an operation is left at {side}"));
        }
    }
}
