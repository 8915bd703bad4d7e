//! The agent's life: take the instance's lock, take up the operations it knows, serve until told to stop.

use crate::{config::Settings, rpc, session::Registry};
use agent::{Error, failpoint, life};
use engines::{
    guard::{GuardedSource, Lost, SOURCE_STEPS},
    source::SourceEngine,
};
use service::{Env, Shutdown, Tls, dial::Dialer, env::Listener, serve};
use std::sync::Arc;

/// Runs an agent until `shutdown` or until it is taken over. Prints `listening on ADDRESS` to standard output once it
/// obeys commands, so that a supervisor or a test can use port 0.
pub async fn run(
    env: Env,
    listener: Box<dyn Listener>,
    tls: Option<Tls>,
    engine: Arc<dyn SourceEngine>,
    settings: Settings,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let onlooker = failpoint::onlooker(&env, &SOURCE_STEPS)?;
    tracing::info!(instance = %settings.instance, engine = engine.name(), "wait for the source lock of the instance");
    let Some(epoch) = life::lock(engine.take_over(), &shutdown).await? else {
        return Ok(());
    };
    let lost = Lost::default();
    let engine: Arc<dyn SourceEngine> = Arc::new(GuardedSource::new(engine, lost.clone(), onlooker));
    let dialer = Dialer::new(env.clone(), tls.clone());
    let registry = Registry::new(env.clone(), engine.clone(), dialer, settings, epoch);

    let living = async {
        // Signs of life begin at once: taking up may take longer than the take-over time.
        registry.take_up().await.map_err(Error::Engine)?;
        serve::run(&env, listener, tls, rpc::services(&registry), shutdown).await?;
        registry.close().await;
        Ok(())
    };
    let ended = life::live(&env, &lost, || engine.heartbeat(), living).await;
    if let Err(Error::Superseded(_)) = ended {
        // Nothing may be written any more. Readers that would hinder the application's checkpoints go with the process.
        registry.abandon();
    }
    ended
}
