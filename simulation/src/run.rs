//! One run, from its seed to its end.

use crate::{
    Planted,
    chaos::Chaos,
    check, hosts, trace, users,
    world::{COORDINATOR, DEST, SOURCE, USERS, World},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};
use turmoil::Sim;

/// Once nothing goes wrong any more, everything has to end within this.
const END_WITHIN: Duration = Duration::from_secs(240);

/// When everything has ended, late messages may still do something for so long.
const AFTERMATH: Duration = Duration::from_secs(3);

/// What came of a run.
pub struct Outcome {
    /// What was not as it must be; nothing if all is well.
    pub violations: Vec<String>,
    /// The hash of the trace.
    pub trace: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
    /// How long it took, in simulated time.
    pub simulated: Duration,
    /// Operations that were started.
    pub operations: usize,
    /// Faults that struck.
    pub faults: usize,
}

/// Runs the world of a seed. `set_clock` is told the simulated time before every step, for what reads the machine's clock.
///
/// A process runs one: what a library draws at random for each process would not be the same in a second run.
pub fn run(seed: u64, planted: Option<Planted>, print: bool, set_clock: fn(Duration)) -> Outcome {
    let panics = collect_panics();
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(&mut rng, planted, print);
    let mut sim = network(&mut rng);
    people(&mut sim, &world, &mut rng);
    let chaos_until = Duration::from_millis(rng.random_range(5_000..45_000));
    let mut chaos = Chaos::new(StdRng::seed_from_u64(rng.random()));

    let mut through = None;
    let ended = loop {
        let now = sim.elapsed();
        set_clock(now);
        trace::set_now(now);
        if let Err(error) = sim.step() {
            break Err(format!("a process failed: {error}"));
        }
        trace::set_now(sim.elapsed());
        if !world.calm() && now >= chaos_until {
            chaos.end(&mut sim, &world);
        }
        chaos.step(&mut sim, &world);
        check::step(&world);
        if world.is_all_through() {
            if !world.calm() {
                chaos.end(&mut sim, &world);
            }
            if now > *through.get_or_insert(now) + AFTERMATH {
                break Ok(());
            }
        }
        if now > chaos_until + END_WITHIN {
            break Err(never_ends(&world));
        }
        if !world.violations().is_empty() {
            break Ok(());
        }
    };
    match ended {
        Ok(()) if world.violations().is_empty() => check::everything_ended(&world),
        Ok(()) => {}
        Err(what) => world.violated(what),
    }
    for panic in panics.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        world.violated(format!("a panic: {panic}"));
    }
    Outcome {
        violations: world.violations(),
        trace: world.trace.hash(),
        tail: world.trace.tail(),
        simulated: sim.elapsed(),
        operations: world.operations.load(Ordering::SeqCst),
        faults: chaos.faults,
    }
}

fn network(rng: &mut StdRng) -> Sim<'static> {
    let mut builder = turmoil::Builder::new();
    let slowest = [2, 10, 40, 150][rng.random_range(0..4)];
    builder
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(crate::env::EPOCH_MS as u64))
        .simulation_duration(Duration::from_secs(3600))
        .tick_duration(Duration::from_millis(rng.random_range(1..=4)))
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(slowest))
        // Segments under way on a connection; HTTP/2 windows bound them well below.
        .tcp_capacity(1 << 16)
        .enable_random_order()
        .rng_seed(rng.random());
    builder.build()
}

fn people(sim: &mut Sim<'static>, world: &Arc<World>, rng: &mut StdRng) {
    let fence_timeout = Duration::from_millis(rng.random_range(1000..8000));
    let coordinator = world.clone();
    sim.host(COORDINATOR, move || hosts::coordinator(coordinator.clone()));
    let source = world.clone();
    sim.host(SOURCE, move || hosts::source(source.clone(), fence_timeout));
    let dest = world.clone();
    sim.host(DEST, move || hosts::dest(dest.clone()));
    let (users, seed) = (world.clone(), rng.random::<u64>());
    sim.client(USERS, async move {
        let everybody = (0..users.subjects.len())
            .map(|number| users::use_database(users.clone(), number, seed.wrapping_add(number as u64)));
        futures::future::join_all(everybody).await;
        if users.lost_a_store() {
            users::clean_up(users.clone()).await;
        }
        users.all_through();
        Ok(())
    });
}

fn never_ends(world: &World) -> String {
    let left = world.subjects.iter().filter(|subject| !subject.standing().through);
    let left: Vec<String> =
        left.map(|subject| format!("{}: {}", subject.ledger.name, subject.standing().seen)).collect();
    match left.is_empty() {
        true => "something of an operation is left for ever".to_owned(),
        false => format!("not everything ends although nothing goes wrong any more: {}", left.join("; ")),
    }
}

/// Panics of tasks end the task and nothing else: they are collected here.
fn collect_panics() -> Arc<Mutex<Vec<String>>> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let collected = panics.clone();
    std::panic::set_hook(Box::new(move |panic| {
        collected.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
    }));
    panics
}
