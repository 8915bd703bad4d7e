//! `causeway`: the process.

use std::process::ExitCode;

use causeway_cli::{args::Cli, exit::Exit};
use service::config;

#[tokio::main]
async fn main() -> ExitCode {
    match config::parse::<Cli>(&[]) {
        Ok(loaded) => causeway_cli::run(loaded.args).await,
        Err(config::Error::Usage(usage)) => usage.exit(),
        Err(error) => {
            eprintln!("error: {}", service::status::chain(&error));
            Exit::Usage.into()
        }
    }
}
