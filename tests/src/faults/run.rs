//! Running cells side by side: most of their time is waiting.

use super::{Cell, cell, cell::Red, drills};
use std::{
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// How cells are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// So many at once.
    pub parallel: usize,
    /// How long a stop lasts.
    pub stop: Duration,
    /// No cell begins after this long.
    pub budget: Duration,
    /// Where the logs of red cells are kept.
    pub keep: PathBuf,
}

/// What came of a cell.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The cell.
    pub cell: Cell,
    /// What is wrong; nothing if it is green.
    pub wrong: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// How often a point that was not reached is tried again: whether an operation comes to one may depend on what lags.
const TRIES: usize = 3;

/// Runs cells until all are through or the budget is used up; each outcome is told as it comes.
pub fn run(cells: &[Cell], settings: &Settings, tell: impl Fn(&Outcome) + Sync) -> Vec<Outcome> {
    let (began, outcomes) = (Instant::now(), Mutex::new(Vec::new()));
    let next = Mutex::new(cells.iter());
    let work = || {
        while began.elapsed() < settings.budget {
            let Some(cell) = next.lock().expect("nobody panics with it").next() else { return };
            let outcome = one(cell, settings);
            tell(&outcome);
            outcomes.lock().expect("nobody panics with it").push(outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..settings.parallel.max(1) {
            scope.spawn(work);
        }
    });
    outcomes.into_inner().expect("nobody panics with it")
}

fn one(cell: &Cell, settings: &Settings) -> Outcome {
    let began = Instant::now();
    let keep = settings.keep.join(cell.to_string().replace(' ', "-"));
    let keep = keep.to_string_lossy();
    let mut wrong = None;
    for _ in 0..TRIES {
        let result = match *cell {
            Cell::Hurt { engine, point, victim, fault } => {
                cell::hurt(engine, point, victim, fault, settings.stop, &keep)
            }
            Cell::Drill { engine, drill } => drills::drill(engine, drill, settings.stop, &keep),
        };
        match result {
            Err(Red::NotReached(why)) => wrong = Some(why),
            Err(Red::Wrong(why)) => {
                wrong = Some(why);
                break;
            }
            Ok(()) => {
                wrong = None;
                break;
            }
        }
    }
    Outcome { cell: *cell, wrong, took: began.elapsed() }
}
