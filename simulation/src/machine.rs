//! A machine that runs one process: its clock, its randomness, its disk's moods, and the points at which it may die.

use crate::trace::Trace;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use service::Shutdown;
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// A machine. It outlives the processes that run on it one after the other.
pub struct Machine {
    /// Its name on the network.
    pub name: &'static str,
    trace: Arc<Trace>,
    state: Mutex<State>,
    /// Which process runs, counted from 1; those before it are dead.
    life: AtomicU64,
    crash_wanted: AtomicBool,
    offset_ms: AtomicI64,
    /// Seconds of its clock that pass in a true one.
    rate: f64,
}

struct State {
    rng: StdRng,
    weather: Weather,
    /// The process dies when it has come by so many more points.
    dies_in: Option<u32>,
    shutdown: Shutdown,
}

/// How the disk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// Longest wait for it, in milliseconds.
    pub wait_ms: u64,
    /// How likely a call fails.
    pub failing: f64,
    /// Nothing can be written.
    pub full: bool,
}

impl Weather {
    /// A disk as one wishes for.
    pub const FAIR: Weather = Weather { wait_ms: 2, failing: 0.0, full: false };
}

/// Whether a call changes something, and so needs space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only looks.
    Reads,
    /// It changes something.
    Writes,
}

impl Machine {
    /// A machine of that name, whose randomness follows from `seed`.
    pub fn new(name: &'static str, seed: u64, trace: Arc<Trace>) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        // Clocks of machines differ by far less; this shows what relies on their being equal.
        let rate = rng.random_range(0.97..1.03);
        let state = State { rng, weather: Weather::FAIR, dies_in: None, shutdown: Shutdown::new() };
        Arc::new(Self {
            name,
            trace,
            state: Mutex::new(state),
            life: AtomicU64::new(0),
            crash_wanted: AtomicBool::new(false),
            offset_ms: AtomicI64::new(0),
            rate,
        })
    }

    /// A process begins.
    pub fn start(self: &Arc<Self>) -> Process {
        let life = self.life.fetch_add(1, Ordering::SeqCst) + 1;
        let shutdown = Shutdown::new();
        let mut state = self.lock();
        state.dies_in = None;
        state.shutdown = shutdown.clone();
        drop(state);
        self.trace.say(self.name, format_args!("process {life} begins"));
        Process { machine: self.clone(), life, shutdown }
    }

    /// Nothing of the process that runs has an effect any more.
    pub fn kill(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    /// The process is told to stop.
    pub fn stop(&self) {
        self.lock().shutdown.trigger();
    }

    /// The process dies after so many more points.
    pub fn die_in(&self, points: u32) {
        self.lock().dies_in = Some(points);
    }

    /// Whether the process came by the point at which it dies; asked once each time.
    pub fn take_crash(&self) -> bool {
        self.crash_wanted.swap(false, Ordering::SeqCst)
    }

    /// Changes the disk's mood.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// The wall clock is set.
    pub fn set_clock(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::SeqCst);
    }

    /// How fast its clock goes.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// How far its wall clock is off, in milliseconds.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process on a machine.
#[derive(Clone)]
pub struct Process {
    /// Where it runs.
    pub machine: Arc<Machine>,
    life: u64,
    /// By which it is told to stop.
    pub shutdown: Shutdown,
}

impl Process {
    /// Whether it was killed.
    pub fn dead(&self) -> bool {
        self.machine.life.load(Ordering::SeqCst) != self.life
    }

    /// Fills with the machine's randomness.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.machine.lock().rng.fill(bytes);
    }

    /// A number below `below`, of the machine's randomness.
    pub fn below(&self, below: u32) -> u32 {
        self.machine.lock().rng.random_range(0..below)
    }

    /// The process comes by a point at which it may die, wait, or fail.
    pub async fn point(&self, call: &str, effect: Effect) -> io::Result<()> {
        let wait = self.mood();
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
        match self.fault(call, effect) {
            Some(error) if self.dead() => {
                drop(error);
                std::future::pending().await
            }
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn mood(&self) -> Duration {
        let mut state = self.machine.lock();
        let most = state.weather.wait_ms * 1000;
        // Most calls find what they want in memory.
        let waits = state.rng.random_bool(0.25) && most > 0;
        let micros = if waits { state.rng.random_range(0..=most) } else { 0 };
        Duration::from_micros(micros)
    }

    /// What goes wrong at a point, if anything; a process that is dead, or dies here, is told an error that nobody shall see.
    pub fn fault(&self, call: &str, effect: Effect) -> Option<io::Error> {
        if self.dead() {
            return Some(io::Error::other("dead"));
        }
        let mut state = self.machine.lock();
        if let Some(left) = &mut state.dies_in {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => {
                    state.dies_in = None;
                    drop(state);
                    self.machine.trace.say(self.machine.name, format_args!("dies at {call}"));
                    self.machine.kill();
                    self.machine.crash_wanted.store(true, Ordering::SeqCst);
                    return Some(io::Error::other("dead"));
                }
            }
        }
        let Weather { failing, full, .. } = state.weather;
        if full && effect == Effect::Writes {
            return Some(io::Error::new(io::ErrorKind::StorageFull, "simulated: the disk is full"));
        }
        (failing > 0.0 && state.rng.random_bool(failing)).then(|| io::Error::other("simulated: input or output failed"))
    }

    /// Notes what came of a call.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        self.machine.trace.say(self.machine.name, what);
    }
}
