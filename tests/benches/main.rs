//! Measures the road with real processes, on each engine: seed, log, freeze, load and memory, each against its bar.
//!
//! `make bench` runs it from a release build. Every figure that has a peer is measured with that peer in the same run,
//! in turns, on the same disk.

mod freezes;
mod peak;
mod postgres;
mod scale;
mod sqlite;
mod table;

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use table::Row;

/// Measures Causeway
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// The engine to measure; both if left out
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// What to measure; may be repeated; everything if left out
    #[arg(long, value_enum)]
    only: Vec<Subject>,
    /// Where the databases are made, a directory that the account postgres can enter; the system's place for temporary files
    /// if left out
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Size of the database for the seed, in units of 1000000 bytes
    #[arg(long, default_value_t = 1000)]
    seed_mb: u64,
    /// Rounds of ours and each peer in turns, of which the medians count
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Transactions for the log to catch up with
    #[arg(long, default_value_t = 60_000)]
    log_transactions: u64,
    /// The kind of backlog (PostgreSQL): tpcb, insert or update; may be repeated; all if left out
    #[arg(long, value_name = "KIND")]
    backlog: Vec<String>,
    /// Moves whose freezes are measured
    #[arg(long, default_value_t = 50)]
    moves: u32,
    /// Transactions a second while they are
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Sizes of the databases for the agents' memory, in units of 1000000 bytes; 100 and 2000 for SQLite, 100 and 5000 for
    /// PostgreSQL if left out
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    memory_mb: Vec<u64>,
    /// Instances of the one coordinator whose scale is measured, each the source of ten operations
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..))]
    scale_instances: u16,
    /// Seconds for which it is looked at while all its operations are ready
    #[arg(long, default_value_t = 30)]
    scale_seconds: u64,
    /// Leave the peers out: for a profile of Causeway alone
    #[arg(long)]
    alone: bool,
    /// Be the agents of so many instances: the bench starts itself so
    #[arg(long, hide = true)]
    serve_agents: Option<usize>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// The seed against what else copies a database.
    Seed,
    /// How fast a backlog of log is applied.
    Log,
    /// How long moves freeze an application.
    Freeze,
    /// What a copy costs the source (PostgreSQL).
    Load,
    /// The most memory that each agent takes.
    Memory,
    /// How many operations one coordinator drives; no engine has a part in it.
    Scale,
}

/// An engine with figures of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
}

/// Measures one subject.
pub type Measure<A> = fn(&A) -> Vec<Row>;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(count) = args.serve_agents {
        scale::agents::run(count, scale::SEEDING);
        return ExitCode::SUCCESS;
    }
    if let Some(dir) = &args.dir
        && let Err(error) = std::fs::create_dir_all(dir)
    {
        eprintln!("--dir {}: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    causeway_tests::binaries::take_as_built();
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: the figures mean little");
    }
    let engines = [(Engine::Sqlite, &sqlite::SUBJECTS[..]), (Engine::Postgres, &postgres::SUBJECTS[..])];
    let mut rows: Vec<Row> = Vec::new();
    if args.engine.is_none() && args.takes(Subject::Scale) {
        eprintln!("measure the scale of a coordinator ...");
        rows.extend(scale::measure(&args));
    }
    for (engine, subjects) in engines {
        if args.engine.is_some_and(|only| only != engine) {
            continue;
        }
        for (subject, measure) in subjects {
            if args.takes(*subject) {
                eprintln!("measure {subject:?} on {engine:?} ...");
                rows.extend(measure(&args));
            }
        }
    }
    table::print(&rows);
    if rows.iter().all(Row::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Args {
    fn takes(&self, subject: Subject) -> bool {
        self.only.is_empty() || self.only.contains(&subject)
    }

    /// A cluster on the disk that is measured.
    fn cluster(&self) -> causeway_tests::Builder {
        let builder = causeway_tests::Cluster::builder();
        match &self.dir {
            Some(dir) => builder.base(dir),
            None => builder,
        }
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
