//! `causeway-agent-dest`: the process.

use agent::process::{self, Process};
use causeway_agent_dest::{Error, config::Args, run};

fn main() {
    process::main(
        |args: &Args| &args.agent,
        async |args, Process { env, listener, tls, shutdown }| {
            let engine = args.engine(&env).map_err(Error::Configuration)?;
            run(env, listener, tls, engine, args.settings(), shutdown).await
        },
    );
}
