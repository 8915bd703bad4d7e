//! The matrix of real faults: every party hurt in every way while a process waits at every step of the protocol, with
//! writers on, and the ledger checked at the end of each cell.
//!
//! A cell is a cluster of real processes with TLS and links of its own. One process waits at a failpoint; a party is killed,
//! stopped, or started elsewhere; the process goes on; and everything has to end by itself as if nothing had happened.

mod cell;
mod drills;
mod judge;
mod matrix;
mod run;
mod strike;
mod table;
mod user;

pub use drills::Drill;
pub use matrix::{Cell, Fault, Point, What, all, point, quick};
pub use run::{Outcome, Settings, run};
pub use table::Results;

use std::fmt;

/// The engines of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Engine {
    /// Directories of SQLite databases.
    Sqlite,
    /// PostgreSQL servers.
    Postgres,
}

/// Who is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Victim {
    /// The coordinator.
    Coordinator,
    /// The source agent.
    Source,
    /// The destination agent.
    Dest,
    /// The source instance: the server, or, for SQLite, the application, in whose process the database lives.
    West,
    /// The destination instance.
    East,
    /// The link between the agents.
    Transfer,
    /// The link between the coordinator and the agents.
    Control,
}

impl Victim {
    /// All, in the order of the table.
    pub const ALL: [Self; 7] =
        [Self::Coordinator, Self::Source, Self::Dest, Self::West, Self::East, Self::Transfer, Self::Control];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Victim::Coordinator => "coordinator",
            Victim::Source => "source",
            Victim::Dest => "dest",
            Victim::West => "west",
            Victim::East => "east",
            Victim::Transfer => "transfer",
            Victim::Control => "control",
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
        }
    }
}
