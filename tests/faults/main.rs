//! `make faults`: the matrix of real faults, or any part of it.

use causeway_tests::faults::{self, Cell, Drill, Engine, Fault, Outcome, Results, Settings, Victim};
use clap::Parser;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    time::Duration,
};

/// Hurts every party in every way at every step of the protocol, and checks that nothing is lost and everything ends
#[derive(Debug, Parser)]
struct Args {
    /// Only cells of this engine
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Only cells in which a process waits at this point; the beginning of a name, such as source.fence, will do
    #[arg(long, value_name = "NAME")]
    point: Vec<String>,
    /// Only cells in which this party is hurt; may be repeated
    #[arg(long, value_enum)]
    victim: Vec<Victim>,
    /// Only cells in which it is hurt like this; may be repeated
    #[arg(long, value_enum)]
    fault: Vec<Fault>,
    /// Only these drills; may be repeated
    #[arg(long, value_enum)]
    drill: Vec<Drill>,
    /// The dozen cells that `make test` runs
    #[arg(long)]
    quick: bool,
    /// Only each so manyth of the cells, evenly over the matrix
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Leave out what is green already in the results
    #[arg(long)]
    missing: bool,
    /// Print the cells and run none
    #[arg(long)]
    list: bool,
    /// Cells side by side
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: usize,
    /// Seconds for which somebody is stopped; below 30 some timeouts are not exceeded
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(6..))]
    stop: u64,
    /// Seconds after which no further cell begins
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    budget: u64,
    /// Where results are kept over runs, as JSON; the logs of red cells lie beside it
    #[arg(long, value_name = "FILE", default_value = "target/faults/results.json")]
    results: PathBuf,
    /// Writes the table into this file, below its line "<!-- results -->"
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    causeway_tests::binaries::take_as_built();
    let directory = args.results.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).expect("make the directory of the results");
    let mut results = Results::load(&args.results).expect("read the results of earlier runs");
    let commit = said("git", &["describe", "--always", "--dirty"]);
    let date = said("date", &["-u", "+%Y-%m-%d"]);
    let mut cells = chosen(&args);
    if args.missing {
        cells.retain(|cell| !results.is_green(cell));
    }
    if args.list {
        cells.iter().for_each(|cell| println!("{}", cell.options()));
        return ExitCode::SUCCESS;
    }
    println!("{} cells, {} at once", cells.len(), args.parallel);
    let settings = Settings {
        parallel: args.parallel,
        stop: Duration::from_secs(args.stop),
        budget: Duration::from_secs(args.budget),
        keep: directory.join("red"),
    };
    let shared = Mutex::new(&mut results);
    let outcomes = faults::run(&cells, &settings, |outcome| {
        tell(outcome);
        // Kept at once: a run may be interrupted.
        let mut results = shared.lock().expect("nobody panics with it");
        results.add(outcome, &date, &commit);
        results.save(&args.results).expect("keep the results");
    });
    let red = outcomes.iter().filter(|outcome| outcome.wrong.is_some()).count();
    println!("{}", results.markdown());
    println!("this run: {} green, {red} red, {} not begun", outcomes.len() - red, cells.len() - outcomes.len());
    if let Some(path) = &args.evidence {
        write_evidence(path, &results);
    }
    if red == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chosen(args: &Args) -> Vec<Cell> {
    let narrowed = !args.point.is_empty() || !args.victim.is_empty() || !args.fault.is_empty();
    let wanted = |cell: &Cell| {
        args.engine.is_none_or(|engine| engine == cell.engine())
            && match cell {
                Cell::Hurt { point, victim, fault, .. } => {
                    (narrowed || args.drill.is_empty())
                        && (args.point.is_empty() || args.point.iter().any(|name| point.name.starts_with(name)))
                        && (args.victim.is_empty() || args.victim.contains(victim))
                        && (args.fault.is_empty() || args.fault.contains(fault))
                }
                Cell::Drill { drill, .. } => {
                    if args.drill.is_empty() {
                        !narrowed
                    } else {
                        args.drill.contains(drill)
                    }
                }
            }
    };
    let from = if args.quick { faults::quick() } else { faults::all() };
    from.into_iter().filter(wanted).step_by(args.every as usize).collect()
}

fn tell(outcome: &Outcome) {
    let seconds = outcome.took.as_secs();
    match &outcome.wrong {
        None => println!("green {seconds:>4} s  {}", outcome.cell),
        Some(wrong) => {
            println!("RED   {seconds:>4} s  {}\n{wrong}", outcome.cell);
            println!("      again: make faults FAULTS_ARGS='{}'", outcome.cell.options());
        }
    }
}

fn write_evidence(path: &Path, results: &Results) {
    const MARK: &str = "<!-- results -->\n";
    let text = fs::read_to_string(path).expect("read the page");
    let head = text.split_once(MARK).map_or(text.as_str(), |(head, _)| head);
    let text = format!("{head}{MARK}\n{}", results.markdown());
    fs::write(path, text).expect("write the page");
}

/// What a program prints; empty if it cannot be run.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
