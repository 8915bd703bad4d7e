//! The command line `causeway`: what a person or a script says to the coordinator, and a demo of the whole thing.
//!
//! [`args`] is what can be said, [`commands`] does it through [`rpc`], [`view`] and [`render`] put the answers on the
//! screen, [`watch`] follows operations while they run. Exit codes are in [`exit`].

pub mod args;
pub mod units;

pub mod commands;
pub mod rpc;

pub mod render;
pub mod view;
pub mod watch;

pub mod exit;
pub mod failure;

use std::process::ExitCode;

use service::Env;

use args::Cli;
use exit::Exit;
use failure::Failure;
use render::Output;

/// Runs one command line to its end, prints what there is to say, and gives the process its exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.global.output);
    let done = commands::run(cli, &output, Env::real()).await;
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => report(&failure, &output).into(),
    }
}

fn report(failure: &Failure, output: &Output) -> Exit {
    output.failure(failure);
    failure.exit
}
