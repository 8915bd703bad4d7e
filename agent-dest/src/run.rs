//! The agent's life: take the instance's lock, roll forward what is durable, serve until told to stop.

use crate::{config::Settings, rpc, session::Registry};
use agent::{Error, failpoint, life};
use engines::{
    dest::DestEngine,
    guard::{DEST_STEPS, GuardedDest, Lost},
};
use service::{Env, Shutdown, Tls, env::Listener, serve};
use std::sync::Arc;

/// Runs an agent until `shutdown` or until it is taken over. Prints `listening on ADDRESS` to standard output once it
/// obeys commands, so that a supervisor or a test can use port 0.
pub async fn run(
    env: Env,
    listener: Box<dyn Listener>,
    tls: Option<Tls>,
    engine: Arc<dyn DestEngine>,
    settings: Settings,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let onlooker = failpoint::onlooker(&env, &DEST_STEPS)?;
    tracing::info!(instance = %settings.instance, engine = engine.name(), "wait for the destination lock of the instance");
    let Some(epoch) = life::lock(engine.take_over(), &shutdown).await? else {
        return Ok(());
    };
    let lost = Lost::default();
    let engine: Arc<dyn DestEngine> = Arc::new(GuardedDest::new(engine, lost.clone(), onlooker));
    let registry = Registry::new(env.clone(), engine.clone(), settings, epoch, shutdown.clone());

    let living = async {
        // Signs of life begin at once: rolling forward may take longer than the take-over time.
        registry.take_up().await.map_err(Error::Engine)?;
        let services = rpc::services(&registry, tls.is_some());
        serve::run(&env, listener, tls, services, shutdown).await?;
        registry.close().await;
        Ok(())
    };
    life::live(&env, &lost, || engine.heartbeat(), living).await
}
