//! Many seeds, each in a process of its own: what a library draws once a process is then the same for each, and one that
//! hangs or dies harms no other.

use crate::Args;
use clap::ValueEnum as _;
use std::{
    process::{Command, ExitCode, Output},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Begins a line about something found.
pub const FOUND: &str = "FOUND";
/// Begins the line about a run.
pub const RAN: &str = "RAN";

#[derive(Default)]
struct Sum {
    seeds: u64,
    red: Vec<u64>,
    simulated_ms: u64,
    operations: u64,
    faults: u64,
}

/// Runs the seeds that are asked for.
pub fn run(args: &Args) -> ExitCode {
    let (next, stop, sum) = (AtomicU64::new(args.first), AtomicBool::new(false), Mutex::new(Sum::default()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= args.first.saturating_add(args.seeds) || stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let output = child(args, seed);
                    let mut sum = sum.lock().expect("no holder of this lock panics");
                    if !take(&mut sum, args, seed, &output) && args.until_found {
                        stop.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    tell(&sum.into_inner().expect("no holder of this lock panics"), begun.elapsed())
}

fn child(args: &Args, seed: u64) -> Output {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(["--seed", &seed.to_string()]);
    if let Some(planted) = planted(args) {
        command.args(["--planted", &planted]);
    }
    command.output().expect("this program can be started again")
}

fn planted(args: &Args) -> Option<String> {
    let value = args.planted?.to_possible_value()?;
    Some(value.get_name().to_owned())
}

/// Adds up what a child said; whether it found nothing.
fn take(sum: &mut Sum, args: &Args, seed: u64, output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stdout);
    let ran = said.lines().find(|line| line.starts_with(RAN)).unwrap_or_default();
    let figure = |name: &str| {
        let mut words = ran.split(' ').skip_while(|word| *word != name);
        words.nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    sum.seeds += 1;
    sum.simulated_ms += figure("simulated_ms");
    sum.operations += figure("operations");
    sum.faults += figure("faults");
    if output.status.success() {
        return true;
    }
    sum.red.push(seed);
    println!("seed {seed}:");
    said.lines().filter(|line| line.starts_with(FOUND)).for_each(|line| println!("  {line}"));
    if ran.is_empty() {
        println!("  it ended with {}", output.status);
        String::from_utf8_lossy(&output.stderr).lines().for_each(|line| println!("  {line}"));
    }
    let planted = planted(args).map(|name| format!(" --planted {name}")).unwrap_or_default();
    println!("  replay: cargo run -p causeway-simulation -- --seed {seed}{planted} --trace");
    false
}

fn tell(sum: &Sum, took: Duration) -> ExitCode {
    let Sum { seeds, red, simulated_ms, operations, faults } = sum;
    println!(
        "{seeds} seeds, {operations} operations, {faults} faults, {} s simulated in {:.1} s: {}",
        simulated_ms / 1000,
        took.as_secs_f64(),
        if red.is_empty() { "nothing found".to_owned() } else { format!("{} found something: {red:?}", red.len()) }
    );
    if red.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
