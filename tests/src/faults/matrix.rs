//! Which cells there are: engines, failpoints, parties and faults, and why some combinations are none.

use super::{Drill, Engine, Victim};
use std::fmt;

/// What befalls a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// `kill -9`, and started again a second later; a link is cut and mended.
    Kill,
    /// Stopped for longer than the timeouts, and continued; a link holds everything up.
    Stop,
    /// Started elsewhere: an agent while the first one is stopped, which then wakes up; a coordinator and a server after a
    /// `kill -9`, at another address.
    Elsewhere,
}

/// What an operation goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A move that is completed.
    Move,
    /// A copy that is completed.
    Copy,
    /// A move whose first attempt exceeds its freeze, goes back, and is completed again.
    Retry,
    /// A move that is cancelled when it is ready.
    Cancel,
}

/// A failpoint and the journey on which an operation comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Its name; what stands before the first dot is the process.
    pub name: &'static str,
    /// The journey.
    pub what: What,
}

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// A party is hurt while a process waits at a point.
    Hurt {
        /// On which engine.
        engine: Engine,
        /// Where.
        point: Point,
        /// Whom.
        victim: Victim,
        /// How.
        fault: Fault,
    },
    /// An operator's override, or half a flip that somebody has to be told about.
    Drill {
        /// On which engine.
        engine: Engine,
        /// Which.
        drill: Drill,
    },
}

const fn on(what: What, name: &'static str) -> Point {
    Point { name, what }
}

/// The points. A step's `before` is left out where nothing durable and no message lies between it and the `after` of the
/// step before: `source.fenced.before` is `source.fence.after`, and so on.
const POINTS: [Point; 81] = {
    use What::{Cancel, Copy, Move, Retry};
    [
        on(Move, "coordinator.queued.before"),
        on(Move, "coordinator.queued.after"),
        on(Move, "coordinator.preparing.before"),
        on(Move, "coordinator.preparing.after"),
        on(Move, "dest.prepare.before"),
        on(Move, "dest.prepare.after"),
        on(Move, "source.begin.before"),
        on(Move, "source.begin.after"),
        on(Move, "coordinator.seeding.before"),
        on(Move, "coordinator.seeding.after"),
        on(Move, "source.plan.before"),
        on(Move, "source.plan.after"),
        on(Move, "dest.plan.before"),
        on(Move, "dest.plan.after"),
        on(Move, "dest.chunk.before"),
        on(Move, "dest.chunk.after"),
        on(Move, "source.seed-done.before"),
        on(Move, "source.seed-done.after"),
        on(Move, "dest.seed-done.before"),
        on(Move, "dest.seed-done.after"),
        on(Move, "dest.replica.after"),
        on(Move, "dest.log.before"),
        on(Move, "dest.log.after"),
        on(Move, "coordinator.catching-up.before"),
        on(Move, "coordinator.catching-up.after"),
        on(Move, "coordinator.ready.before"),
        on(Move, "coordinator.ready.after"),
        on(Move, "coordinator.cutover.before"),
        on(Move, "coordinator.cutover.after"),
        on(Move, "source.fence.before"),
        on(Move, "source.fence.after"),
        on(Move, "source.fenced.after"),
        on(Move, "dest.marker.before"),
        on(Move, "dest.marker.after"),
        on(Move, "dest.prepared.after"),
        on(Move, "dest.primary.before"),
        on(Move, "dest.primary.after"),
        on(Move, "coordinator.flipped.before"),
        on(Move, "coordinator.flipped.after"),
        on(Move, "source.releasing.before"),
        on(Move, "source.releasing.after"),
        on(Move, "source.release.after"),
        on(Move, "source.released.after"),
        on(Move, "dest.finish.before"),
        on(Move, "dest.finish.after"),
        on(Move, "coordinator.half-done.before"),
        on(Move, "coordinator.half-done.after"),
        on(Move, "coordinator.forgetting.before"),
        on(Move, "coordinator.forgetting.after"),
        on(Move, "source.forget.before"),
        on(Move, "source.forget.after"),
        on(Move, "coordinator.source-clean.before"),
        on(Move, "coordinator.source-clean.after"),
        on(Move, "dest.forget.before"),
        on(Move, "dest.forget.after"),
        on(Move, "coordinator.succeeded.before"),
        on(Move, "coordinator.succeeded.after"),
        on(Copy, "source.mark.before"),
        on(Copy, "source.mark.after"),
        on(Retry, "coordinator.aborting.before"),
        on(Retry, "coordinator.aborting.after"),
        on(Retry, "dest.aborted.before"),
        on(Retry, "dest.aborted.after"),
        on(Retry, "coordinator.unfencing.before"),
        on(Retry, "coordinator.unfencing.after"),
        on(Retry, "source.unfence.before"),
        on(Retry, "source.unfence.after"),
        on(Cancel, "coordinator.discarding.before"),
        on(Cancel, "coordinator.discarding.after"),
        on(Cancel, "dest.discarding.before"),
        on(Cancel, "dest.discarding.after"),
        on(Cancel, "dest.discard.after"),
        on(Cancel, "dest.discarded.after"),
        on(Cancel, "coordinator.cleaning-source.before"),
        on(Cancel, "coordinator.cleaning-source.after"),
        on(Cancel, "source.cleaning.before"),
        on(Cancel, "source.cleaning.after"),
        on(Cancel, "source.cleanup.after"),
        on(Cancel, "coordinator.forgetting-dest.before"),
        on(Cancel, "coordinator.forgetting-dest.after"),
        on(Cancel, "coordinator.cancelled.before"),
    ]
};

/// All points, in the order in which an operation may come to them.
pub fn points() -> impl Iterator<Item = Point> {
    POINTS.into_iter()
}

/// A point by its name.
pub fn point(name: &str) -> Option<Point> {
    POINTS.into_iter().find(|point| point.name == name)
}

impl Point {
    /// The process that waits there.
    pub fn process(self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }
}

impl Fault {
    /// All, in the order of the table.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Stop, Self::Elsewhere];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Stop => "stop",
            Fault::Elsewhere => "elsewhere",
        }
    }
}

impl Cell {
    /// Its engine.
    pub fn engine(&self) -> Engine {
        match self {
            Cell::Hurt { engine, .. } | Cell::Drill { engine, .. } => *engine,
        }
    }

    /// The options that run it again.
    pub fn options(&self) -> String {
        match self {
            Cell::Hurt { engine, point, victim, fault } => {
                format!("--engine {} --point {} --victim {victim} --fault {}", engine.name(), point.name, fault.name())
            }
            Cell::Drill { engine, drill } => format!("--engine {} --drill {}", engine.name(), drill.name()),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Hurt { engine, point, victim, fault } => {
                write!(f, "{} {} {} {}", engine.name(), point.name, victim, fault.name())
            }
            Cell::Drill { engine, drill } => write!(f, "{} drill {}", engine.name(), drill.name()),
        }
    }
}

/// Why a party cannot be hurt so, if it cannot.
pub fn not_applicable(engine: Engine, victim: Victim, fault: Fault) -> Option<&'static str> {
    match (engine, victim, fault) {
        (_, Victim::Transfer | Victim::Control, Fault::Elsewhere) => {
            Some("a link is not started; that its ends are elsewhere is what the agents' and the coordinator's rows do")
        }
        (Engine::Sqlite, Victim::West, Fault::Elsewhere) => Some(
            "a SQLite instance is a directory, its only process is the application, and one elsewhere is another application",
        ),
        (Engine::Sqlite, Victim::East, _) => {
            Some("a SQLite instance is a directory, and before the flip no application has a process there")
        }
        _ => None,
    }
}

/// Every cell, the most telling ones first: whoever waits at a point is hurt there; then the agents and the coordinator,
/// the instances, the links; kills before restarts elsewhere before stops, which take longest.
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for engine in Engine::ALL {
        let drills = Drill::ALL.into_iter().filter(|drill| drill.is_for(engine));
        cells.extend(drills.map(|drill| Cell::Drill { engine, drill }));
        for point in POINTS {
            for victim in Victim::ALL {
                let faults = Fault::ALL.into_iter().filter(|fault| not_applicable(engine, victim, *fault).is_none());
                cells.extend(faults.map(|fault| Cell::Hurt { engine, point, victim, fault }));
            }
        }
    }
    cells.sort_by_key(rank);
    cells
}

fn rank(cell: &Cell) -> (u32, u32, usize) {
    let Cell::Hurt { point, victim, fault, .. } = cell else { return (0, 0, 0) };
    let own = point.process() == victim.name();
    let flip = POINTS.iter().position(|p| p.name == "source.fence.before").unwrap_or(0);
    let at = POINTS.iter().position(|p| p == point).unwrap_or(0);
    let how = match fault {
        Fault::Kill => 0,
        Fault::Elsewhere => 1,
        Fault::Stop => 2,
    };
    // From the fence on everything is at stake.
    let stake = u32::from(at < flip);
    (if own { 1 } else { 2 + stake }, how, at)
}

/// A few cells that are quick and tell most, for `make test`.
pub fn quick() -> Vec<Cell> {
    use Engine::{Postgres, Sqlite};
    let hurt = |engine, name, victim, fault| Cell::Hurt {
        engine,
        point: point(name).expect("a point of the matrix"),
        victim,
        fault,
    };
    vec![
        hurt(Sqlite, "source.fence.after", Victim::Source, Fault::Kill),
        hurt(Postgres, "source.fence.after", Victim::Source, Fault::Kill),
        hurt(Sqlite, "dest.primary.after", Victim::Dest, Fault::Kill),
        hurt(Postgres, "dest.primary.before", Victim::Dest, Fault::Kill),
        hurt(Sqlite, "coordinator.flipped.before", Victim::Coordinator, Fault::Kill),
        hurt(Postgres, "source.releasing.after", Victim::West, Fault::Kill),
        hurt(Postgres, "dest.prepared.after", Victim::East, Fault::Kill),
        hurt(Sqlite, "source.fenced.after", Victim::Transfer, Fault::Kill),
        hurt(Sqlite, "source.unfence.before", Victim::Source, Fault::Kill),
        hurt(Postgres, "source.cleanup.after", Victim::Source, Fault::Kill),
        hurt(Sqlite, "dest.prepared.after", Victim::Dest, Fault::Elsewhere),
        hurt(Postgres, "source.mark.after", Victim::Control, Fault::Kill),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every step that a process knows is in the matrix, with both its sides unless one is the side of another step.
    #[test]
    fn the_matrix_has_every_point_that_the_processes_have() {
        let steps = engines::guard::SOURCE_STEPS.iter().chain(&engines::guard::DEST_STEPS);
        let steps = steps.chain(&coordinator::store::STEPS);
        let same_as_the_one_before = [
            "source.fenced",
            "source.release",
            "source.released",
            "source.cleanup",
            "dest.replica",
            "dest.prepared",
            "dest.discard",
            "dest.discarded",
        ];
        let mut count = 0;
        for step in steps {
            for side in ["before", "after"] {
                let name = format!("{step}.{side}");
                let left_out = side == "before" && same_as_the_one_before.contains(step);
                // A user who sees the end is gone, and nothing happens any more.
                let left_out = left_out || name == "coordinator.cancelled.after";
                assert_eq!(point(&name).is_none(), left_out, "{name}");
                count += usize::from(!left_out);
            }
        }
        assert_eq!(count, POINTS.len());
    }

    #[test]
    fn each_cell_is_there_once() {
        let mut cells = all();
        let count = cells.len();
        cells.sort();
        cells.dedup();
        assert_eq!(cells.len(), count);
        assert!(quick().iter().all(|cell| cells.contains(cell)));
    }
}
