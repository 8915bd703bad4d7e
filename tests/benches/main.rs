//! Measures the road on SQLite with real processes: seed, log, freeze and memory, each against its bar.
//!
//! `make bench` runs it from a release build. Every figure that has a peer is measured with that peer in the same run,
//! in turns, on the same disk.

mod freeze;
mod log;
mod memory;
mod seed;
mod table;

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use table::Row;

/// Measures Causeway on SQLite
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// What to measure; may be repeated; everything if left out
    #[arg(long, value_enum)]
    only: Vec<Subject>,
    /// Where the databases are made; the system's place for temporary files if left out
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Size of the database for the seed, in units of 1000000 bytes
    #[arg(long, default_value_t = 1000)]
    seed_mb: u64,
    /// Rounds of seed and cp in turns, of which the medians count
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Transactions for the log to catch up with
    #[arg(long, default_value_t = 60_000)]
    log_transactions: u64,
    /// Moves whose freezes are measured
    #[arg(long, default_value_t = 50)]
    moves: u32,
    /// Transactions a second while they are
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Sizes of the databases for the agents' memory, in units of 1000000 bytes
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values_t = [100, 2000])]
    memory_mb: Vec<u64>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Seed MB/s against cp followed by sync.
    Seed,
    /// Transactions a second that the log applies.
    Log,
    /// How long moves freeze an application.
    Freeze,
    /// The most memory that each agent takes.
    Memory,
}

fn main() -> ExitCode {
    let args = Args::parse();
    causeway_tests::binaries::take_as_built();
    let wanted = |subject| args.only.is_empty() || args.only.contains(&subject);
    let mut rows: Vec<Row> = Vec::new();
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: the figures mean little");
    }
    type Measure = fn(&Args) -> Vec<Row>;
    let subjects: [(Subject, Measure); 4] = [
        (Subject::Seed, seed::measure),
        (Subject::Log, log::measure),
        (Subject::Freeze, freeze::measure),
        (Subject::Memory, memory::measure),
    ];
    for (subject, measure) in subjects {
        if wanted(subject) {
            eprintln!("measure {subject:?} ...");
            rows.extend(measure(&args));
        }
    }
    table::print(&rows);
    if rows.iter().all(Row::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Args {
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
