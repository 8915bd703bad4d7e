//! What goes wrong, when, and for how long: drawn from the seed.

use crate::{
    machine::Weather,
    world::{COORDINATOR, DEST, SOURCE, USERS, World},
};
use engines::{
    dest::DestEngine as _,
    host::RealHost,
    memory::{MemoryDest, MemorySource},
    source::SourceEngine as _,
};
use futures::FutureExt as _;
use rand::{Rng as _, rngs::StdRng};
use std::{sync::Arc, time::Duration};
use turmoil::Sim;

/// How long a completion keeps everybody busy, if nothing goes wrong.
const TENSE: Duration = Duration::from_millis(1500);

/// The links of the network.
const LINKS: [(&str, &str); 4] = [(COORDINATOR, SOURCE), (COORDINATOR, DEST), (SOURCE, DEST), (USERS, COORDINATOR)];

/// Kinds of fault, and how often each comes in relation to the others.
const KINDS: [(Fault, u32); 14] = [
    (Fault::Kill, 3),
    (Fault::DieAtPoint, 8),
    (Fault::Stop, 1),
    (Fault::Cut, 4),
    (Fault::CutOneWay, 3),
    (Fault::Delay, 4),
    (Fault::Slow, 3),
    (Fault::Failing, 3),
    (Fault::Full, 2),
    (Fault::Clock, 2),
    (Fault::LoseLog, 1),
    (Fault::HoldWriter, 2),
    (Fault::TakeOver, 2),
    (Fault::LoseStore, 1),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A process dies, perhaps with its machine.
    Kill,
    /// A process dies at one of its next calls of engine or store.
    DieAtPoint,
    /// A process is asked to end.
    Stop,
    /// A link carries nothing.
    Cut,
    /// A link carries nothing one way.
    CutOneWay,
    /// What a link carries comes later.
    Delay,
    /// A disk is slow.
    Slow,
    /// A disk fails now and then.
    Failing,
    /// A disk is full.
    Full,
    /// A clock is set.
    Clock,
    /// A source loses its log.
    LoseLog,
    /// A client at the source holds a transaction that nobody can end.
    HoldWriter,
    /// Another agent takes the lock of an instance, and goes away.
    TakeOver,
    /// The coordinator dies, and its store is gone.
    LoseStore,
}

/// What is to be done later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Begin(usize),
    Mend(usize),
    ClearUp(usize),
    LetGo(usize),
}

/// The source of all misfortune.
pub struct Chaos {
    rng: StdRng,
    /// When the last fault struck.
    struck: Duration,
    /// Mean time between faults.
    pace: Duration,
    /// How much of that passes before the next.
    patience: f64,
    /// An operation is being completed.
    tense: bool,
    likely: Vec<(Fault, u32)>,
    due: Vec<(Duration, Due)>,
    /// What is wrong with each link.
    links: [Option<Fault>; LINKS.len()],
    /// Faults so far.
    pub faults: usize,
}

impl Chaos {
    /// What goes wrong in a run: each has its own mixture.
    pub fn new(mut rng: StdRng) -> Self {
        let pace = Duration::from_millis(rng.random_range(300..4000));
        let mut likely: Vec<_> = KINDS.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        if likely.is_empty() {
            likely.push(KINDS[1]);
        }
        Self {
            rng,
            struck: Duration::ZERO,
            pace,
            patience: 1.0,
            tense: false,
            likely,
            due: Vec::new(),
            links: [None; LINKS.len()],
            faults: 0,
        }
    }

    /// What goes wrong, and what is mended, at this step.
    pub fn step(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let now = sim.elapsed();
        self.supervise(sim, world, now);
        while let Some(at) = self.due.iter().position(|(at, _)| *at <= now) {
            let (_, due) = self.due.swap_remove(at);
            self.mend(sim, world, due);
        }
        if world.calm() {
            return;
        }
        // Around a flip everything counts, and it is over soon: there the next fault comes sooner.
        self.tense = world.completed_ago().is_some_and(|ago| ago < TENSE);
        let pace = if self.tense { self.pace / 10 } else { self.pace };
        let next = self.struck + pace.mul_f64(self.patience);
        if now >= next {
            (self.struck, self.patience) = (now, self.rng.random_range(0.0..2.0));
            self.strike(sim, world, now);
        }
    }

    /// Everything is mended, and nothing breaks any more.
    pub fn end(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        world.trace.say("chaos", format_args!("ends"));
        world.become_calm();
        for (_, due) in std::mem::take(&mut self.due) {
            self.mend(sim, world, due);
        }
        world.machines.iter().for_each(|machine| machine.set_weather(Weather::FAIR));
    }

    /// Crashes what died, and starts what has ended.
    fn supervise(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        for (number, machine) in world.machines.iter().enumerate() {
            if machine.take_crash() {
                self.crash(sim, world, number, now);
            } else if !sim.is_host_running(machine.name) && !self.due.iter().any(|(_, due)| *due == Due::Begin(number))
            {
                let later = Duration::from_millis(self.rng.random_range(50..2000));
                self.due.push((now + later, Due::Begin(number)));
            }
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, world: &World, number: usize, now: Duration) {
        let name = world.machines[number].name;
        let power = self.rng.random_bool(0.5);
        world.trace.say("chaos", format_args!("{name} crashes{}", if power { " with its machine" } else { "" }));
        world.machines[number].kill();
        sim.crash(name);
        if power && name == COORDINATOR {
            world.disk.lose_power();
        }
        self.due.retain(|(_, due)| *due != Due::Begin(number));
        let away = self.away();
        self.due.push((now + away, Due::Begin(number)));
    }

    /// How long something is away: mostly a moment, sometimes longer than anybody waits.
    fn away(&mut self) -> Duration {
        let most_ms = if self.rng.random_bool(0.15) { 25_000 } else { 4000 };
        Duration::from_millis(self.rng.random_range(50..most_ms))
    }

    fn mend(&mut self, sim: &mut Sim<'_>, world: &World, due: Due) {
        match due {
            Due::Begin(number) => sim.bounce(world.machines[number].name),
            Due::Mend(link) => {
                let (a, b) = LINKS[link];
                match self.links[link].take() {
                    Some(Fault::Delay) => sim.release(a, b),
                    _ => sim.repair(a, b),
                }
                world.trace.say("chaos", format_args!("{a} and {b} are connected"));
            }
            Due::ClearUp(number) => world.machines[number].set_weather(Weather::FAIR),
            Due::LetGo(number) => {
                // It may be gone meanwhile.
                let _ = world.west.hold_writer(&world.subjects[number].ledger.name, false);
            }
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let all: u32 = self.likely.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.random_range(0..all);
        let mut chosen = self.likely[0].0;
        for (fault, weight) in &self.likely {
            chosen = *fault;
            if drawn < *weight {
                break;
            }
            drawn -= weight;
        }
        let fault = chosen;
        let number = self.rng.random_range(0..world.machines.len());
        let machine = world.machines[number].clone();
        let lasts = self.away();
        self.faults += 1;
        match fault {
            Fault::Kill if sim.is_host_running(machine.name) => self.crash(sim, world, number, now),
            Fault::Kill => {}
            Fault::LoseStore => {
                self.crash(sim, world, 0, now);
                world.trace.say("chaos", format_args!("the store is lost"));
                world.lose_store();
            }
            Fault::DieAtPoint => {
                let points = self.rng.random_range(0..if self.tense { 12 } else { 40 });
                world.trace.say("chaos", format_args!("{} dies after {points} points", machine.name));
                machine.die_in(points);
            }
            Fault::Stop => {
                world.trace.say("chaos", format_args!("{} is asked to stop", machine.name));
                machine.stop();
            }
            Fault::Cut | Fault::CutOneWay | Fault::Delay => self.disturb(sim, world, fault, now + lasts),
            Fault::Slow | Fault::Failing | Fault::Full => {
                let weather = match fault {
                    Fault::Slow => Weather { wait_ms: self.rng.random_range(10..3000), ..Weather::FAIR },
                    Fault::Failing => Weather { failing: self.rng.random_range(0.01..0.6), ..Weather::FAIR },
                    _ => Weather { full: true, ..Weather::FAIR },
                };
                world.trace.say("chaos", format_args!("{} has {weather:?}", machine.name));
                machine.set_weather(weather);
                self.due.retain(|(_, due)| *due != Due::ClearUp(number));
                self.due.push((now + lasts, Due::ClearUp(number)));
            }
            Fault::Clock => {
                let most_ms: i64 = if self.rng.random_bool(0.3) { 3_600_000 } else { 3000 };
                let offset_ms = self.rng.random_range(-most_ms..most_ms);
                world.trace.say("chaos", format_args!("{} is off by {offset_ms} ms", machine.name));
                machine.set_clock(offset_ms);
            }
            Fault::LoseLog | Fault::HoldWriter => {
                let number = self.rng.random_range(0..world.subjects.len());
                let name = &world.subjects[number].ledger.name;
                world.trace.say("chaos", format_args!("{fault:?} of {name}"));
                if fault == Fault::LoseLog {
                    let _ = world.west.lose_log(name);
                } else if world.west.hold_writer(name, true).is_ok() {
                    self.due.push((now + lasts, Due::LetGo(number)));
                }
            }
            Fault::TakeOver => {
                world.trace.say("chaos", format_args!("another agent takes over beside {}", machine.name));
                let host = Arc::new(RealHost);
                // Neither waits for anything.
                if machine.name == SOURCE {
                    drop(MemorySource::new(world.west.clone(), host).take_over().now_or_never());
                } else if machine.name == DEST {
                    drop(MemoryDest::new(world.east.clone(), host).take_over().now_or_never());
                }
            }
        }
    }

    fn disturb(&mut self, sim: &mut Sim<'_>, world: &World, fault: Fault, until: Duration) {
        let link = self.rng.random_range(0..LINKS.len());
        if self.links[link].is_some() {
            return;
        }
        let (mut a, mut b) = LINKS[link];
        if self.rng.random_bool(0.5) {
            (a, b) = (b, a);
        }
        world.trace.say("chaos", format_args!("{fault:?} from {a} to {b}"));
        match fault {
            Fault::Cut => sim.partition(a, b),
            Fault::CutOneWay => sim.partition_oneway(a, b),
            _ => sim.hold(a, b),
        }
        self.links[link] = Some(fault);
        self.due.push((until, Due::Mend(link)));
    }
}
