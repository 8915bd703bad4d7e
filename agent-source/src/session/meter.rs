//! How far an operation is, as the source sees it; for people and for the coordinator's thresholds.

use super::Error;
use engines::source::{Backlog, Held, Plan};
use handover::Position;
use proto::v1::{Progress, Reason};
use service::Env;
use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::Duration,
};
use tokio::sync::watch;

/// The rate is taken over this long: short enough to show a stall, long enough not to jump.
const RATE_OVER: Duration = Duration::from_secs(5);

/// Counters of one operation; nothing durable.
#[derive(Debug)]
pub struct Meter {
    env: Env,
    seeded: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    seed_total: u64,
    parts: HashMap<u32, PartState>,
    seed_sent: u64,
    rows: u64,
    object: String,
    connected: bool,
    connections: u32,
    received: Option<Position>,
    log_durable: Option<Position>,
    advances: u64,
    transactions: u64,
    log_bytes: u64,
    backlog: Backlog,
    trouble: Option<(Reason, bool)>,
    samples: VecDeque<(Duration, u64)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct PartState {
    bytes: u64,
    durable: u64,
    done: bool,
}

impl Meter {
    pub fn new(env: Env) -> Self {
        Self { env, seeded: watch::Sender::new(false), state: Mutex::default() }
    }

    /// A plan was made for a destination that holds this.
    pub fn planned(&self, plan: &Plan, held: &Held) {
        let seeded = held.seeded && held.generation == plan.generation;
        self.seeded.send_replace(seeded);
        let mut state = self.lock();
        state.generation = plan.generation;
        state.seed_total = plan.parts.iter().map(|part| part.bytes).sum();
        state.received = Some(plan.log_resume.clone());
        state.parts =
            plan.parts.iter().map(|p| (p.part, PartState { bytes: p.bytes, durable: 0, done: seeded })).collect();
        if held.generation == plan.generation {
            for part in &held.parts {
                if let Some(known) = state.parts.get_mut(&part.part) {
                    known.durable = part.durable;
                    known.done |= part.done;
                }
            }
        }
    }

    pub fn connected(&self) {
        let mut state = self.lock();
        state.connected = true;
        state.connections += 1;
        state.trouble = None;
    }

    pub fn disconnected(&self) {
        self.lock().connected = false;
    }

    pub fn trouble(&self, error: &Error) {
        self.lock().trouble = Some((error.reason(), error.fatal()));
    }

    /// Chunk bytes went out.
    pub fn sent(&self, object: &str, bytes: u64, rows: u64) {
        let mut state = self.lock();
        state.seed_sent += bytes;
        state.rows += rows;
        if state.object != object {
            state.object = object.to_owned();
        }
    }

    /// The destination holds this much of a part durably.
    pub fn durable(&self, part: u32, bytes: u64, done: bool) {
        let mut state = self.lock();
        state.advances += 1;
        if let Some(known) = state.parts.get_mut(&part) {
            known.durable = known.durable.max(bytes);
            known.done |= done;
        }
    }

    /// The destination holds the log durably up to here.
    pub fn log_durable(&self, position: Position) {
        let mut state = self.lock();
        if state.log_durable.as_ref() != Some(&position) {
            state.advances += 1;
            state.log_durable = Some(position);
        }
    }

    /// How often the destination has made something durable: a connection over which that never happens is a bad one.
    pub fn advances(&self) -> u64 {
        self.lock().advances
    }

    pub fn seeded(&self) {
        self.seeded.send_replace(true);
        self.lock().object.clear();
    }

    /// The destination received log up to here; the figures are since its stream began.
    pub fn received(&self, position: Position, transactions: u64, bytes: u64) {
        let mut state = self.lock();
        state.received = Some(position);
        state.transactions = transactions;
        state.log_bytes = bytes;
    }

    pub fn received_position(&self) -> Option<Position> {
        self.lock().received.clone()
    }

    pub fn backlog(&self, backlog: Backlog) {
        self.lock().backlog = backlog;
    }

    pub fn is_connected(&self) -> bool {
        self.lock().connected
    }

    pub fn is_seeded(&self) -> bool {
        *self.seeded.borrow()
    }

    /// Waits until the destination has confirmed the seed of the present generation.
    pub async fn until_seeded(&self) {
        // The sender lives as long as this meter does.
        let _ = self.seeded.subscribe().wait_for(|seeded| *seeded).await;
    }

    pub fn current_trouble(&self) -> Option<(Reason, bool)> {
        self.lock().trouble.clone()
    }

    /// The figures now.
    pub fn progress(&self) -> Progress {
        let now = self.env.monotonic();
        let mut state = self.lock();
        let done: u64 = state.parts.values().map(|p| if p.done { p.bytes } else { p.durable.min(p.bytes) }).sum();
        state.samples.push_back((now, done));
        while state.samples.len() > 2
            && state.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > RATE_OVER)
        {
            state.samples.pop_front();
        }
        let rate = match (state.samples.front(), self.is_seeded()) {
            (Some((since, was)), false) if now > *since => {
                (done.saturating_sub(*was) as f64 / (now - *since).as_secs_f64()) as u64
            }
            _ => 0,
        };
        let left = state.seed_total.saturating_sub(done);
        let lag_ms = match state.backlog.oldest_ms {
            0 => 0,
            oldest => u64::try_from(self.env.now().as_millis().saturating_sub(oldest)).unwrap_or(0),
        };
        Progress {
            seed_bytes_done: done,
            seed_bytes_total: state.seed_total,
            seed_objects_done: state.parts.values().filter(|p| p.done).count() as u32,
            seed_objects_total: state.parts.len() as u32,
            rows_done: state.rows,
            bytes_per_second: rate,
            eta_seconds: (rate > 0).then(|| left.div_ceil(rate)),
            log_bytes_applied: state.log_bytes,
            transactions_applied: state.transactions,
            lag_bytes: state.backlog.bytes,
            lag_ms,
            retained_bytes: state.backlog.retained_bytes,
            retained_budget_bytes: state.backlog.budget_bytes,
            reconnects: state.connections.saturating_sub(1),
            seed_bytes_sent: state.seed_sent,
            object: state.object.clone(),
            generation: state.generation,
            observed: None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}
