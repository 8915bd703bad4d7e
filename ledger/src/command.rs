//! The commands of the `causeway-ledger` binary, as a library so that another binary can carry them too.

use std::{
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::{
    CheckOptions, FillOptions, Process, Program, Summary, WriteOptions, check, fill, postgres,
    write::{self, write},
};

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write to a database as an ordinary application does, and keep a history of what was acknowledged
    Write(Box<WriteOptions>),
    /// Hold a database against the histories of its writers; exit code 1 if there is a problem
    Check(CheckArgs),
    /// Make a database of a given size
    Fill(FillOptions),
}

/// The options of a check, and how to print what it finds.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    options: CheckOptions,
    /// Print the report as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Does what the command says: one line of JSON on stdout for `write` and `fill`, a report for `check`.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Write(options) => {
            let summary = run_write(&options)?;
            println!("{}", serde_json::to_string(&summary).context("print the summary")?);
            eprintln!("{summary}");
        }
        Command::Fill(options) => {
            let filled = match postgres::is_place(&options.db) {
                true => postgres::fill(&options.db.to_string_lossy(), options.mb)?,
                false => fill(&options)?,
            };
            println!("{}", serde_json::to_string(&filled).context("print the result")?);
        }
        Command::Check(CheckArgs { options, json }) => {
            let report = check(&options)?;
            match json {
                true => println!("{}", serde_json::to_string(&report).context("print the report")?),
                false => println!("{report}"),
            }
            return Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_write(options: &WriteOptions) -> anyhow::Result<Summary> {
    if options.die_with_parent {
        set_parent_process_death_signal(Some(Signal::KILL)).context("ask to die with the parent")?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, Arc::clone(&stop)).context("handle signals")?;
    }
    match options.processes {
        true => run_processes(options, &stop),
        false => Ok(write(options, &stop)?),
    }
}

/// One process for each writer, and one for all readers.
fn run_processes(options: &WriteOptions, stop: &AtomicBool) -> anyhow::Result<Summary> {
    write::set_up(options)?;
    let program = Program::current()?;
    let started = Instant::now();
    let writers = options.writers.max(1);
    let part = WriteOptions { processes: false, no_setup: true, die_with_parent: true, readers: 0, ..options.clone() };
    let mut processes = Vec::new();
    for id in (options.first_writer..).take(options.writers as usize) {
        let rate = options.rate / f64::from(writers);
        processes
            .push(Process::spawn_part(&program, &WriteOptions { first_writer: id, writers: 1, rate, ..part.clone() })?);
    }
    let mut readers = Vec::new();
    if options.readers > 0 {
        readers.push(Process::spawn_part(&program, &WriteOptions { writers: 0, readers: options.readers, ..part })?);
    }
    let mut summary = Summary::default();
    for group in [processes, readers] {
        summary = finish(group, stop, summary)?;
        // Readers have no end of their own once the writers are done.
        stop.store(true, Ordering::Relaxed);
    }
    Ok(summary.conclude(started.elapsed().as_secs_f64()))
}

/// Waits for processes to end, telling them to when it is time.
fn finish(mut processes: Vec<Process>, stop: &AtomicBool, mut summary: Summary) -> anyhow::Result<Summary> {
    const POLL: Duration = Duration::from_millis(5);
    let mut told = false;
    let mut running = true;
    while running {
        if stop.load(Ordering::Relaxed) && !told {
            processes.iter_mut().try_for_each(Process::ask_to_stop)?;
            told = true;
        }
        running = false;
        for process in &mut processes {
            running |= process.is_running()?;
        }
        thread::sleep(POLL);
    }
    for process in processes {
        summary.add(process.wait_at_most(POLL)?);
    }
    Ok(summary)
}
