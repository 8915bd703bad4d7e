//! Running a model: the checker, what it found, and the drain of every state it reaches.

use crate::{
    Mutation,
    bounds::Bounds,
    drain::{PLANS, calm, drain},
    message::Message,
    properties,
    rules::Rules,
    transition::{Transition, apply, possible},
    world::World,
};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The protocol within bounds, perhaps with a fault.
pub struct Protocol {
    /// How far it goes.
    pub bounds: Bounds,
    /// Its rules.
    pub rules: Rules,
    /// Fingerprints of the calm worlds from which every drain ended well.
    drained: Vec<Mutex<HashSet<u64>>>,
    drains: AtomicU64,
}

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// Everything, depth first, which takes the least memory; it ends early if a property fails.
    Everything,
    /// The shortest way to break this property.
    Shortest(&'static str),
}

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// States that differ.
    pub states: usize,
    /// Transitions that were taken.
    pub transitions: usize,
    /// The longest path.
    pub depth: usize,
    /// Calm worlds that were drained, each by all plans.
    pub drains: u64,
    /// How long it took.
    pub took: Duration,
    /// Properties that do not hold.
    pub failures: Vec<Counterexample>,
    /// What should happen at some time, and did not.
    pub missing: Vec<&'static str>,
}

/// How a property comes to fail.
#[derive(Debug)]
pub struct Counterexample {
    /// The property.
    pub property: &'static str,
    /// What happens, in order.
    pub steps: Vec<String>,
    /// Where it ends; and for a drain, why.
    pub end: String,
}

/// Explores everything within the bounds.
pub fn check(bounds: &Bounds, mutation: Option<Mutation>, search: Search, threads: usize) -> Report {
    let began = Instant::now();
    let builder = Protocol::new(bounds.clone(), Rules(mutation)).checker().threads(threads);
    match search {
        Search::Everything => report(began, builder.finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join()),
        Search::Shortest(property) => {
            let found = HasDiscoveries::AllOf([property].into());
            report(began, builder.finish_when(found).spawn_bfs().join())
        }
    }
}

impl Report {
    /// Whether every property holds, and all that should be possible is.
    pub fn holds(&self) -> bool {
        self.failures.is_empty() && self.missing.is_empty()
    }
}

fn report(began: Instant, checker: impl Checker<Protocol>) -> Report {
    let model = checker.model();
    let mut failures = Vec::new();
    let mut seen = HashSet::new();
    for (property, path) in checker.discoveries() {
        seen.insert(property);
        let Some(found) = model.properties().into_iter().find(|p| p.name == property) else { continue };
        if !found.expectation.discovery_is_failure() {
            continue;
        }
        let (steps, end) = model.shortened(path.into_actions(), found.condition);
        let steps = steps.iter().map(|step| format!("{step:?}")).collect();
        let why = model.why(&end).map(|why| format!("{why}\n")).unwrap_or_default();
        failures.push(Counterexample { property, steps, end: format!("{why}{end:#?}") });
    }
    let all = model.properties();
    let missing = all.iter().filter(|p| !p.expectation.discovery_is_failure() && !seen.contains(p.name));
    Report {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        drains: model.drains.load(Ordering::Relaxed),
        took: began.elapsed(),
        missing: missing.map(|p| p.name).collect(),
        failures,
    }
}

/// Calm worlds are kept in so many sets, so that threads rarely wait for each other.
const SETS: usize = 64;

impl Protocol {
    fn new(bounds: Bounds, rules: Rules) -> Self {
        let drained = (0..SETS).map(|_| Mutex::default()).collect();
        Self { bounds, rules, drained, drains: AtomicU64::new(0) }
    }

    /// Whether the operation ends well from this state once the faults stop.
    pub fn drains(&self, world: &World) -> bool {
        let calm = calm(world);
        let print = BuildHasherDefault::<DefaultHasher>::default().hash_one(&calm);
        let set = &self.drained[print as usize % SETS];
        if set.lock().unwrap_or_else(PoisonError::into_inner).contains(&print) {
            return true;
        }
        self.drains.fetch_add(1, Ordering::Relaxed);
        let ends = PLANS.iter().all(|plan| drain(calm.clone(), &self.bounds, self.rules, *plan).is_ok());
        if ends {
            set.lock().unwrap_or_else(PoisonError::into_inner).insert(print);
        }
        ends
    }

    /// A counterexample without the steps that do not matter: as long as the property still fails, one step less.
    fn shortened(&self, mut steps: Vec<Transition>, holds: fn(&Protocol, &World) -> bool) -> (Vec<Transition>, World) {
        let mut at = steps.len();
        while at > 0 {
            at -= 1;
            let mut fewer = steps.clone();
            fewer.remove(at);
            if self.replay(&fewer).is_some_and(|end| !holds(self, &end)) {
                steps = fewer;
                at = at.min(steps.len());
            }
        }
        let end = self.replay(&steps).expect("the checker has taken these steps");
        (steps, end)
    }

    /// Where steps lead; nothing if one of them cannot be taken.
    fn replay(&self, steps: &[Transition]) -> Option<World> {
        let mut world = self.init_states().remove(0);
        let mut possible = Vec::new();
        for step in steps {
            possible.clear();
            self.actions(&world, &mut possible);
            world = possible.contains(step).then(|| self.next_state(&world, *step))??;
        }
        Some(world)
    }

    fn why(&self, world: &World) -> Option<String> {
        PLANS.iter().find_map(|plan| {
            let why = drain(calm(world), &self.bounds, self.rules, *plan).err()?;
            Some(format!("drained by {plan:?}: {why}"))
        })
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Transition;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::begin(&self.bounds);
        world.send_commands(self.rules, 0);
        world.send_commands(self.rules, 1);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Transition>) {
        possible(world, &self.bounds, self.rules, actions);
    }

    fn next_state(&self, world: &World, transition: Transition) -> Option<World> {
        let mut next = world.clone();
        apply(&mut next, self.rules, self.bounds.kind, transition);
        let mut net = std::mem::take(&mut next.net);
        net.retain(|message| match message {
            Message::Reply(reply) => next.is_awaited(self.rules, reply),
            _ => true,
        });
        next.net = net;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.store.operation.attempt.0 <= u32::from(self.bounds.attempts)
    }
}
