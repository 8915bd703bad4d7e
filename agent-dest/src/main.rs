//! `causeway-agent-dest`: the process.

use agent_dest::config::Args;
use causeway_agent_dest as agent_dest;
use service::{Env, Shutdown, config, memory, serve};

fn main() {
    memory::bound();
    start();
}

#[tokio::main]
async fn start() {
    let loaded = config::parse::<Args>(&[]).unwrap_or_else(|error| match error {
        config::Error::Usage(usage) => usage.exit(),
        other => fail(&other, 2),
    });
    let args = loaded.args;
    args.common.log.init().unwrap_or_else(|error| fail(&error, 2));
    let env = Env::real();
    let tls = args.common.tls.load(&env).await.unwrap_or_else(|error| fail(&error, 2));
    let shutdown = Shutdown::on_signals().unwrap_or_else(|error| fail(&error, 1));
    let listener = serve::bind(&env, &args.common.listen, tls.is_some()).await.unwrap_or_else(|error| fail(&error, 1));
    let engine = args.engine(&env).unwrap_or_else(|error| fail(&error, 2));
    match agent_dest::run(env, listener, tls, engine, args.settings(), shutdown).await {
        Ok(()) => {}
        // At once: nothing more may be written by a process that has lost its lock.
        Err(error @ agent_dest::Error::Superseded(_)) => fail(&error, agent_dest::EXIT_SUPERSEDED),
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &(dyn std::error::Error + 'static), code: i32) -> ! {
    eprintln!("causeway-agent-dest: {}", service::status::chain(error));
    std::process::exit(code)
}
