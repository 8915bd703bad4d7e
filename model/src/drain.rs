//! "In the end": from every state that was reached, the faults stop, and the operation has to end by itself.
//!
//! The drain takes transitions of the model in a fixed, fair order: what was on its way is lost, sleepers stay asleep, the
//! coordinator loads its record and repeats its commands, agents do what they have begun. That it ends from every
//! reachable state means that no reachable state is a trap; and as the states are finitely many, every run ends in
//! which whatever can happen again and again happens at some time.

use crate::{
    Mutation,
    bounds::Bounds,
    coordinator::{Override, observed, overrides},
    message::{Message, Net},
    rules::Rules,
    source::Process,
    transition::{Transition, apply},
    world::{Left, World},
};
use handover::{
    Kind, Side,
    operation::{CompletionStep, State},
    source_role::Phase,
};

/// What the user and the source do meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Completions that the user still asks for; after them the window ends.
    completions: u8,
    /// The source in doubt has waited for its fence timeout, before the coordinator is back.
    source_asks_first: bool,
}

/// The plans by which every state is drained.
pub const PLANS: [Plan; 4] = [
    Plan { completions: 2, source_asks_first: false },
    Plan { completions: 2, source_asks_first: true },
    Plan { completions: 0, source_asks_first: false },
    Plan { completions: 0, source_asks_first: true },
];

/// Rounds after which it is not going to end: an operation with all its retries takes fewer than a hundred.
const ROUNDS: u32 = 400;

/// Messages that one round of them may cause; more would be two parties that tell each other the same for ever.
const MESSAGES: u32 = 64;

/// Where a drain begins: the faults have stopped.
pub fn calm(world: &World) -> World {
    let mut calm = world.clone();
    calm.net = Net::default();
    calm.coordinators = [Some(world.store.clone()), None];
    calm.source.asleep = None;
    calm.dest.asleep = None;
    calm.left = Left { source_takeovers: 0, dest_takeovers: 0, restores: 0, losses: 0, seeds_again: 0, lags: 0 };
    calm
}

/// Drains a calm world; or why it does not end as it should.
pub fn drain(mut world: World, bounds: &Bounds, rules: Rules, plan: Plan) -> Result<(), &'static str> {
    let mut completions = plan.completions;
    let mut drain = Drain { rules, kind: bounds.kind };
    if plan.source_asks_first {
        drain.happens(&mut world, Transition::SourceAsks);
        drain.deliver(&mut world);
    }
    for _ in 0..ROUNDS {
        if world.store.operation.state.ended() {
            return ends_well(&world, bounds.kind);
        }
        let before = world.clone();
        drain.round(&mut world);
        if world != before {
            continue;
        }
        // Nothing goes on by itself: it is the turn of clock and people.
        let helped = drain.operator_helps(&mut world);
        match &world.store.operation.state {
            _ if helped => {}
            State::Ready => {
                if bounds.kind == Kind::Move && !world.source_open() && world.lost.is_none() {
                    return Err("ready for completion, and the source stays closed");
                }
                if completions > 0 {
                    completions -= 1;
                    drain.happens(&mut world, Transition::Complete);
                } else {
                    drain.happens(&mut world, Transition::Expire);
                }
            }
            State::Seeding | State::CatchingUp | State::Preparing if world.lost.is_some() => {
                drain.happens(&mut world, Transition::Cancel);
            }
            State::Seeding | State::CatchingUp => return Err("never becomes ready"),
            State::Completing(completing) => match completing.step {
                CompletionStep::Cutover => drain.happens(&mut world, Transition::GiveUp(0)),
                CompletionStep::Aborting { .. } => return Err("stuck: the attempt is never decided"),
                CompletionStep::Unfencing { .. } => return Err("stuck: the source is never reopened"),
                CompletionStep::Flipped { .. } => return Err("stuck after the flip"),
                CompletionStep::Forgetting { .. } => return Err("stuck: records are never forgotten"),
            },
            State::Preparing => return Err("stuck: never begun"),
            State::Cancelling(_) => return Err("stuck: never cancelled"),
            State::Queued | State::Succeeded | State::Failed | State::Cancelled => return Err("stuck"),
        }
    }
    Err("does not end")
}

struct Drain {
    rules: Rules,
    kind: Kind,
}

impl Drain {
    fn happens(&mut self, world: &mut World, transition: Transition) {
        apply(world, self.rules, self.kind, transition);
        if self.rules.broken(Mutation::ActBeforeStore) {
            // Late, but nobody dies any more.
            apply(world, self.rules, self.kind, Transition::StoreLate(0));
        }
    }

    /// An operator goes on with an override that is half done, or begins one that helps. Whether there was one.
    fn operator_helps(&mut self, world: &mut World) -> bool {
        for (half, what) in [(world.history.unfenced, Override::Unfence), (world.history.promoted, Override::Promote)] {
            if half {
                self.happens(world, Transition::Recorded(what));
                return true;
            }
        }
        // The mildest first.
        let Some(what) = overrides(world, self.rules).next() else { return false };
        let before = world.clone();
        self.happens(world, Transition::Forces(what));
        *world != before
    }

    /// Everybody does what is to be done, once.
    fn round(&mut self, world: &mut World) {
        self.happens(world, Transition::Reload(0));
        self.deliver(world);
        if world.source.fencing {
            self.happens(world, Transition::FenceDone);
        }
        self.happens(world, Transition::SeedLoaded);
        while world.log_until(self.rules).is_some_and(|until| world.dest.applied < until) {
            let before = world.dest.applied;
            self.happens(world, Transition::LogArrives);
            if world.dest.applied == before {
                break;
            }
        }
        self.happens(world, Transition::AnnouncesAgain);
        self.deliver(world);
        for transition in [Transition::DiscardDone, Transition::ReleaseDone] {
            self.happens(world, transition);
            self.deliver(world);
        }
        if world.source.role.as_ref().is_some_and(|role| matches!(role.phase, Phase::CleaningUp { .. })) {
            self.happens(world, Transition::SourceRemoved);
            self.deliver(world);
        }
        if observed(&world.store.operation) {
            self.happens(world, Transition::Observe(0, false));
            self.deliver(world);
        }
    }

    /// Every message arrives, once, and what is sent because of it.
    fn deliver(&mut self, world: &mut World) {
        for _ in 0..MESSAGES {
            let Some(message) = world.net.take() else { return };
            let transition = match message {
                Message::ToSource(_) | Message::Answered(..) => Transition::SourceHears(Process::Present, message),
                Message::ToDest(_) | Message::Asks(_) | Message::Marker(..) => {
                    Transition::DestHears(Process::Present, message)
                }
                Message::Reply(reply) => Transition::Hear(0, reply),
            };
            self.happens(world, transition);
        }
    }
}

/// How an operation ends, and how it must not.
fn ends_well(world: &World, kind: Kind) -> Result<(), &'static str> {
    if world.source.role.is_some() || world.dest.role.is_some() {
        return Err("ended, and a record is left");
    }
    match world.store.operation.state {
        // What was at the lost side alone is lost; the other side must not have gone with it.
        _ if (world.lost == Some(Side::Dest) || world.history.undone) && !world.history.beyond_help => {
            if world.source_open() { Ok(()) } else { Err("the destination was lost, and the source went with it") }
        }
        _ if world.lost.is_some() || world.history.undone => Ok(()),
        State::Succeeded if !world.dest_open() => Err("succeeded without a flip"),
        State::Succeeded if world.source.dropped != (kind == Kind::Move) => {
            Err("a move drops the source, a copy does not")
        }
        State::Succeeded => Ok(()),
        _ if world.history.opened != 0 => Err("ended without success after a flip"),
        _ if !world.source_open() => Err("ended with both sides closed"),
        _ => Ok(()),
    }
}
