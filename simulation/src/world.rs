//! What a run is made of, and what was found wrong with it.

use crate::{
    disk::Disk,
    ledger::Ledger,
    limits::limits,
    machine::{Machine, Process},
    planted::Planted,
    trace::Trace,
};
use coordinator::config::Limits;
use engines::memory::MemoryInstance;
use handover::Kind;
use rand::{Rng as _, rngs::StdRng};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The name of the coordinator's machine, and so on.
pub const COORDINATOR: &str = "coordinator";
/// Beside the instance west.
pub const SOURCE: &str = "source";
/// Beside the instance east.
pub const DEST: &str = "dest";
/// Where people and applications are.
pub const USERS: &str = "users";

/// The port of every service.
pub const PORT: &str = "7443";

/// A run.
pub struct World {
    /// What happened.
    pub trace: Arc<Trace>,
    /// What is wrong on purpose.
    pub planted: Option<Planted>,
    /// The source instance.
    pub west: MemoryInstance,
    /// The destination instance.
    pub east: MemoryInstance,
    /// The machines of coordinator, source agent and destination agent.
    pub machines: [Arc<Machine>; 3],
    /// The one process on the users' machine.
    pub users: Process,
    /// The coordinator's store.
    pub disk: Arc<Disk>,
    /// The coordinator's limits.
    pub limits: Limits,
    /// The databases.
    pub subjects: Vec<Subject>,
    /// Operations started so far.
    pub operations: AtomicUsize,
    /// When an operation was last asked to complete.
    completed: Mutex<Option<Duration>>,
    /// How often the coordinator's store was lost.
    stores_lost: AtomicUsize,
    all_through: AtomicBool,
    calm: AtomicBool,
    violations: Mutex<Vec<String>>,
}

/// A database, and what its users do with it.
pub struct Subject {
    /// What was written.
    pub ledger: Ledger,
    standing: Mutex<Standing>,
}

/// Where a database's users are.
#[derive(Clone, Default)]
pub struct Standing {
    /// What the present operation is.
    pub kind: Option<Kind>,
    /// A copy was promoted; whatever comes later finds the name taken.
    pub copied: bool,
    /// Writes that were acknowledged when the present operation was first asked to complete.
    pub completed_at: Option<usize>,
    /// It takes writes at east.
    pub opened: bool,
    /// Its users are through.
    pub through: bool,
    /// The operation as last seen, for people.
    pub seen: String,
}

impl Subject {
    /// Looks at or changes where its users are.
    pub fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// The world of a seed.
    pub fn new(rng: &mut StdRng, planted: Option<Planted>, print: bool) -> Arc<Self> {
        let trace = Arc::new(Trace::new(print));
        let mut machine = |name| Machine::new(name, rng.random(), trace.clone());
        let machines = [machine(COORDINATOR), machine(SOURCE), machine(DEST)];
        let users = machine(USERS).start();
        let (west, east) = (MemoryInstance::new(), MemoryInstance::new());
        let subjects = (0..rng.random_range(1..=3)).map(|number| {
            let ledger = Ledger::new(&format!("shop{number}"));
            west.create(&ledger.name);
            (0..rng.random_range(0..400)).for_each(|_| ledger.write(&west, &east, false, rng));
            Subject { ledger, standing: Mutex::default() }
        });
        let subjects = subjects.collect();
        Arc::new(Self {
            disk: Disk::new(rng.random(), planted == Some(Planted::DiskLies)),
            limits: limits(rng),
            trace,
            planted,
            west,
            east,
            machines,
            users,
            subjects,
            operations: AtomicUsize::new(0),
            completed: Mutex::default(),
            stores_lost: AtomicUsize::new(0),
            all_through: AtomicBool::new(false),
            calm: AtomicBool::new(false),
            violations: Mutex::default(),
        })
    }

    /// The coordinator's store is lost.
    pub fn lose_store(&self) {
        self.disk.lose_everything();
        self.stores_lost.fetch_add(1, Ordering::SeqCst);
    }

    /// How often the coordinator's store was lost.
    pub fn stores_lost(&self) -> usize {
        self.stores_lost.load(Ordering::SeqCst)
    }

    /// Whether it ever was.
    pub fn lost_a_store(&self) -> bool {
        self.stores_lost() > 0
    }

    /// An operation is asked to complete.
    pub fn completes(&self) {
        *self.completed.lock().unwrap_or_else(PoisonError::into_inner) = Some(crate::trace::now());
    }

    /// How long ago an operation was asked to complete.
    pub fn completed_ago(&self) -> Option<Duration> {
        let completed = *self.completed.lock().unwrap_or_else(PoisonError::into_inner);
        Some(crate::trace::now().saturating_sub(completed?))
    }

    /// Whether nothing goes wrong any more.
    pub fn calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Nobody has anything left to do.
    pub fn all_through(&self) {
        self.all_through.store(true, Ordering::SeqCst);
    }

    /// Whether nobody has anything left to do.
    pub fn is_all_through(&self) -> bool {
        self.all_through.load(Ordering::SeqCst)
    }

    /// From now on nothing goes wrong any more.
    pub fn become_calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// Something is not as it must be.
    pub fn violated(&self, what: String) {
        self.trace.say("VIOLATION", format_args!("{what}"));
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// All that was not as it must be.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
