//! `make simulation`: runs many seeds, each in a process of its own, and says which of them find something.

#[allow(unsafe_code, reason = "two functions of the C library are replaced, see the module")]
mod frozen;
mod many;

use causeway_simulation::{Planted, run};
use clap::Parser;
use std::process::ExitCode;

/// Runs the real coordinator and agents on a simulated network, clock and disk.
#[derive(Parser)]
struct Args {
    /// Run this one seed, here.
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Processes at once.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, |n| n.get()))]
    jobs: usize,
    /// Put this fault in.
    #[arg(long)]
    planted: Option<Planted>,
    /// End with the first seed that finds something.
    #[arg(long)]
    until_found: bool,
    /// Print the trace of a seed to standard error.
    #[arg(long)]
    trace: bool,
    /// Print the services' logs to standard error; RUST_LOG chooses.
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.seed {
        Some(seed) => one(seed, &args),
        None => many::run(&args),
    }
}

fn one(seed: u64, args: &Args) -> ExitCode {
    if args.log {
        let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(tracing::Level::INFO.into());
        let logs = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).without_time();
        logs.with_writer(std::io::stderr).init();
    }
    let (planted, trace) = (args.planted, args.trace);
    frozen::freeze(seed);
    // In a thread that begins after the freeze, since each thread draws its own randomness once.
    let running = std::thread::spawn(move || run(seed, planted, trace, frozen::set_clock));
    let Ok(outcome) = running.join() else {
        println!("{} the simulation itself panicked", many::FOUND);
        return ExitCode::FAILURE;
    };
    if !outcome.violations.is_empty() && !args.trace {
        outcome.tail.iter().for_each(|line| eprintln!("{line}"));
    }
    for violation in &outcome.violations {
        println!("{} {violation}", many::FOUND);
    }
    println!(
        "{} seed {seed} trace {:016x} simulated_ms {} operations {} faults {}",
        many::RAN,
        outcome.trace,
        outcome.simulated.as_millis(),
        outcome.operations,
        outcome.faults
    );
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
