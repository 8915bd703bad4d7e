//! The coordinator process.

use std::process::ExitCode;

use causeway_coordinator::{
    Config, Coordinator,
    config::{Args, SECTIONS, StoreAddress},
    copy_store,
};
use service::{Env, Shutdown, config, serve};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Help, version and usage go where clap sends them, with clap's exit status.
            if let Some(config::Error::Usage(usage)) = error.downcast_ref::<config::Error>() {
                usage.exit();
            }
            eprintln!("causeway-coordinator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let loaded = config::parse::<Args>(&SECTIONS)?;
    let args = &loaded.args;
    args.common.log.init()?;
    let env = Env::real();
    let shutdown = Shutdown::on_signals()?;
    let config = Config::from_loaded(&loaded)?;
    let tls = args.common.tls.load(&env).await?;
    if let Some(to) = &args.copy_store_to {
        let copied = Box::pin(copy_store(&env, tls.as_ref(), &config.store, &StoreAddress::parse(to)?)).await?;
        println!("{copied} entries copied from {} to {to}", args.store);
        return Ok(());
    }
    let listener = serve::bind(&env, &args.common.listen, tls.is_some()).await?;
    let coordinator = Coordinator::open(env, tls, config).await?;
    Box::pin(coordinator.run(listener, shutdown)).await?;
    Ok(())
}
