//! `make model`: explores the models one after the other, and says how far and what it found.

use causeway_model::{Counterexample, Mutation, Report, Search, bounds, check};
use clap::Parser;
use std::process::ExitCode;

/// Explores the protocol of a copy or move exhaustively within named bounds.
#[derive(Parser)]
struct Args {
    /// The models to explore, by name; all that `make model` explores if none is given.
    models: Vec<String>,
    /// List the models and their bounds, and the faults.
    #[arg(long)]
    list: bool,
    /// Put this fault into the rules and show the shortest way in which it breaks a property.
    #[arg(long, value_name = "NAME")]
    fault: Option<String>,
    /// Worker threads.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, |n| n.get()))]
    threads: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        list();
        return ExitCode::SUCCESS;
    }
    match &args.fault {
        Some(name) => show_fault(name, args.threads),
        None => explore(&args.models, args.threads),
    }
}

fn list() {
    for bounds in bounds::ALL.iter().chain(bounds::SMALL_ONES) {
        println!("{bounds:#?}");
    }
    for mutation in Mutation::ALL {
        let (bounds, property) = mutation.shown_by();
        println!("fault {mutation:?}: breaks \"{property}\" in {}", bounds.name);
    }
}

fn explore(names: &[String], threads: usize) -> ExitCode {
    let known = || bounds::ALL.iter().chain(bounds::SMALL_ONES);
    if let Some(unknown) = names.iter().find(|name| !known().any(|bounds| bounds.name == **name)) {
        let names: Vec<&str> = known().map(|bounds| bounds.name).collect();
        eprintln!("there is no model {unknown:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let chosen: Vec<_> = match names {
        [] => bounds::ALL.iter().collect(),
        names => known().filter(|bounds| names.iter().any(|name| name == bounds.name)).collect(),
    };
    println!(
        "{:<16} {:>12} {:>13} {:>6} {:>8} {:>9}  result",
        "model", "states", "transitions", "depth", "drains", "seconds"
    );
    let (mut states, mut failed) = (0, false);
    for bounds in chosen {
        let report = check(bounds, None, Search::Everything, threads);
        println!("{}", row(bounds.name, &report));
        report.failures.iter().for_each(show);
        states += report.states;
        failed |= !report.holds();
    }
    println!("{states} states in all; every property held in each: {}", if failed { "no" } else { "yes" });
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn row(name: &str, report: &Report) -> String {
    let result = match (report.failures.first(), report.missing.as_slice()) {
        (Some(failure), _) => format!("BROKEN: {}", failure.property),
        (None, []) => "holds".to_owned(),
        (None, missing) => format!("NEVER HAPPENED: {}", missing.join(", ")),
    };
    let Report { states, transitions, depth, drains, .. } = report;
    let seconds = report.took.as_secs_f64();
    format!("{name:<16} {states:>12} {transitions:>13} {depth:>6} {drains:>8} {seconds:>9.1}  {result}")
}

fn show(found: &Counterexample) {
    println!("\"{}\" does not hold:", found.property);
    for (n, step) in found.steps.iter().enumerate() {
        println!("{:>4}. {step}", n + 1);
    }
    println!("{}", found.end);
}

fn show_fault(name: &str, threads: usize) -> ExitCode {
    let Some(mutation) = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name) else {
        let names: Vec<String> = Mutation::ALL.iter().map(|mutation| format!("{mutation:?}")).collect();
        eprintln!("there is no fault {name:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    };
    let (bounds, property) = mutation.shown_by();
    let report = check(bounds, Some(mutation), Search::Shortest(property), threads);
    match report.failures.iter().find(|failure| failure.property == property) {
        Some(found) => show(found),
        None => println!("{name} breaks nothing within {}", bounds.name),
    }
    // A fault is there to be found: this is the outcome asked for.
    if report.failures.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
