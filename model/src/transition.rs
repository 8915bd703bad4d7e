//! What may happen next: every message that is on its way may arrive, every process may act, sleep or die.

use crate::{
    Mutation,
    bounds::Bounds,
    coordinator::{Override, Which, cutting_over, observed, overrides, too_late},
    message::{Message, Reply, nth},
    rules::Rules,
    source::Process,
    world::{NOW_MS, World},
};
use handover::{
    Kind, dest_role,
    operation::{Event, State},
    source_role::Phase,
};

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transition {
    /// A client commits a transaction at the source.
    Write,
    /// The user asks for completion.
    Complete,
    /// The user cancels.
    Cancel,
    /// The window ends.
    Expire,
    /// An operator uses an override: at the agent, or on the operation where no agent is asked.
    Forces(Override),
    /// The override is recorded on the operation.
    Recorded(Override),
    /// The source is lost for ever.
    SourceLost,
    /// The destination is lost for ever.
    DestLost,
    /// A coordinator starts again, or learns that the record has changed.
    Reload(Which),
    /// An answer arrives.
    Hear(Which, Reply),
    /// A coordinator gives the attempt up: the freeze lasts too long, or would.
    GiveUp(Which),
    /// A stale coordinator repeats its command under the newest version.
    Adopt(Which),
    /// A coordinator looks at both agents; they may be behind.
    Observe(Which, bool),
    /// The store takes what was acted on already.
    StoreLate(Which),
    /// A message reaches the source.
    SourceHears(Process, Message),
    /// It reaches the source, which dies between reopening the database and recording that.
    SourceDiesReopening(Message),
    /// A message reaches the destination.
    DestHears(Process, Message),
    /// The fence is durable.
    FenceDone,
    /// The engine could not fence.
    FenceBusy,
    /// The source is dropped or retains no more.
    ReleaseDone,
    /// The source is clean.
    SourceRemoved,
    /// The source in doubt asks the destination.
    SourceAsks,
    /// The source connects again and sends its marker again.
    AnnouncesAgain,
    /// The source agent dies and starts again.
    SourceCrashes,
    /// The source's lock is taken over from a process that sleeps.
    SourceTakenOver,
    /// One transaction of the log arrives.
    LogArrives,
    /// The seed is loaded.
    SeedLoaded,
    /// The seed is verified again.
    SeedAgain,
    /// The half-made database is removed.
    DiscardDone,
    /// The destination dies and starts again.
    DestCrashes,
    /// The destination's lock is taken over from a process that sleeps.
    DestTakenOver,
    /// The destination is restored from a backup.
    DestRestored,
}

/// All that may happen, in an order that depends on the state alone.
pub fn possible(world: &World, bounds: &Bounds, rules: Rules, all: &mut Vec<Transition>) {
    outside(world, bounds, rules, all);
    coordinators(world, rules, all);
    arrivals(world, all);
    source(world, all);
    dest(world, rules, all);
}

fn outside(world: &World, bounds: &Bounds, rules: Rules, all: &mut Vec<Transition>) {
    let operation = &world.store.operation;
    if operation.state.ended() {
        return;
    }
    if world.source.written < bounds.writes && world.source.role.is_some() && world.source_open() {
        all.push(Transition::Write);
    }
    if operation.state == State::Ready && nth(operation.attempt) < bounds.attempts {
        all.push(Transition::Complete);
    }
    all.push(Transition::Cancel);
    if observed(operation) && operation.times.deadline_ms.is_some() {
        all.push(Transition::Expire);
    }
    all.extend(overrides(world, rules).map(Transition::Forces));
    if world.history.unfenced {
        all.push(Transition::Recorded(Override::Unfence));
    }
    if world.history.promoted {
        all.push(Transition::Recorded(Override::Promote));
    }
    if world.left.losses > 0 {
        all.extend([Transition::SourceLost, Transition::DestLost]);
    }
}

fn coordinators(world: &World, rules: Rules, all: &mut Vec<Transition>) {
    for (c, memory) in world.coordinators.iter().enumerate() {
        let Some(memory) = memory else { continue };
        let stale = *memory != world.store;
        if stale {
            all.push(Transition::Reload(c));
        }
        if stale && rules.broken(Mutation::AdoptAnyVersion) {
            all.push(Transition::Adopt(c));
        }
        if rules.broken(Mutation::ActBeforeStore) && memory.version == world.store.version + 1 {
            all.push(Transition::StoreLate(c));
        }
        if cutting_over(&memory.operation).is_some() {
            all.push(Transition::GiveUp(c));
        }
        if observed(&memory.operation) {
            all.push(Transition::Observe(c, false));
            if world.left.lags > 0 {
                all.push(Transition::Observe(c, true));
            }
        }
        for message in world.net.iter() {
            if let Message::Reply(reply) = message {
                all.push(Transition::Hear(c, reply));
            }
        }
    }
}

fn arrivals(world: &World, all: &mut Vec<Transition>) {
    for message in world.net.iter() {
        match message {
            Message::ToSource(_) | Message::Answered(..) => {
                all.push(Transition::SourceHears(Process::Present, message));
                if world.source.role.as_ref().is_some_and(|role| role.in_doubt().is_some()) && !world.source.lifted {
                    all.push(Transition::SourceDiesReopening(message));
                }
                if world.source.asleep.is_some() {
                    all.push(Transition::SourceHears(Process::Asleep, message));
                }
            }
            Message::ToDest(_) | Message::Asks(_) => {
                all.push(Transition::DestHears(Process::Present, message));
                if world.dest.asleep.is_some() {
                    all.push(Transition::DestHears(Process::Asleep, message));
                }
            }
            Message::Marker(..) => all.push(Transition::DestHears(Process::Present, message)),
            Message::Reply(_) => {}
        }
    }
}

fn source(world: &World, all: &mut Vec<Transition>) {
    let Some(role) = &world.source.role else { return };
    if world.source.fencing {
        all.extend([Transition::FenceDone, Transition::FenceBusy]);
    }
    match role.phase {
        Phase::Releasing { .. } => all.push(Transition::ReleaseDone),
        Phase::CleaningUp { .. } => all.push(Transition::SourceRemoved),
        Phase::Fencing { .. } | Phase::Fenced { .. } => all.push(Transition::SourceAsks),
        Phase::Replicating | Phase::Released { .. } => {}
    }
    if world.source.halt.is_some() {
        all.push(Transition::AnnouncesAgain);
    }
    if world.source.fencing || world.source.halt.is_some() {
        all.push(Transition::SourceCrashes);
    }
    if world.left.source_takeovers > 0 {
        all.push(Transition::SourceTakenOver);
    }
}

fn dest(world: &World, rules: Rules, all: &mut Vec<Transition>) {
    if world.left.dest_takeovers > 0 {
        all.push(Transition::DestTakenOver);
    }
    let Some(role) = &world.dest.role else { return };
    match role.phase {
        dest_role::Phase::Seeding => all.push(Transition::SeedLoaded),
        dest_role::Phase::Replica | dest_role::Phase::Prepared { .. } => {
            if world.log_until(rules).is_some_and(|until| world.dest.applied < until) {
                all.push(Transition::LogArrives);
            }
            if world.left.seeds_again > 0 {
                all.push(Transition::SeedAgain);
            }
        }
        dest_role::Phase::Discarding => all.push(Transition::DiscardDone),
        dest_role::Phase::Primary { .. } | dest_role::Phase::Discarded => {}
    }
    all.push(Transition::DestCrashes);
    if world.left.restores > 0 {
        all.push(Transition::DestRestored);
    }
}

/// What a transition makes of the world.
pub fn apply(world: &mut World, rules: Rules, kind: Kind, transition: Transition) {
    match transition {
        Transition::Write => world.source.written += 1,
        Transition::Complete => world.decided(rules, &Event::Complete { max_freeze_ms: 1, grace_ms: 1 }),
        Transition::Cancel => world.decided(rules, &Event::Cancel { now_ms: NOW_MS }),
        Transition::Expire => world.decided(rules, &too_late()),
        Transition::Forces(what) => world.forced(rules, what),
        Transition::Recorded(what) => world.record_override(rules, what),
        Transition::SourceLost => {
            world.left.losses -= 1;
            world.source_is_lost();
        }
        Transition::DestLost => {
            world.left.losses -= 1;
            world.dest_is_lost();
        }
        Transition::Reload(c) => world.reload(rules, c),
        Transition::Hear(c, reply) => world.hear(rules, c, reply),
        Transition::GiveUp(c) => world.give_up(rules, c),
        Transition::Adopt(c) => world.adopt(rules, c),
        Transition::Observe(c, behind) => {
            world.left.lags -= u8::from(behind);
            world.observe(rules, c, behind);
        }
        Transition::StoreLate(c) => world.store_late(c),
        Transition::SourceHears(process, message) => world.source_hears(rules, kind, process, message),
        Transition::SourceDiesReopening(message) => world.dies_between_reopening_and_record(rules, message),
        Transition::DestHears(_, Message::Marker(n, to)) => world.marker_arrives(rules, n, to),
        Transition::DestHears(process, message) => world.dest_hears(rules, kind, process, message),
        Transition::FenceDone => world.fence_done(rules),
        Transition::FenceBusy => world.fence_busy(rules),
        Transition::ReleaseDone => world.release_done(rules),
        Transition::SourceRemoved => world.source_removed(),
        Transition::SourceAsks => world.source_asks(rules),
        Transition::AnnouncesAgain => world.announces_again(),
        Transition::SourceCrashes => world.source_crashes(),
        Transition::SourceTakenOver => {
            world.left.source_takeovers -= 1;
            world.source_is_taken_over();
        }
        Transition::LogArrives => world.log_arrives(rules),
        Transition::SeedLoaded => world.seed_loaded(rules),
        Transition::SeedAgain => {
            world.left.seeds_again -= 1;
            world.seed_again(rules);
        }
        Transition::DiscardDone => world.discard_done(rules),
        Transition::DestCrashes => world.dest_crashes(rules),
        Transition::DestTakenOver => {
            world.left.dest_takeovers -= 1;
            world.dest_is_taken_over();
        }
        Transition::DestRestored => {
            world.left.restores -= 1;
            world.dest_is_restored();
        }
    }
}
