//! The `causeway-ledger` binary: write, check, fill.

use std::process::ExitCode;

use causeway_ledger::command::{Command, run};
use clap::Parser;

/// A writer that keeps a ledger of acknowledged transactions, and the checker that holds a database against it
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> anyhow::Result<ExitCode> {
    run(Cli::parse().command)
}
