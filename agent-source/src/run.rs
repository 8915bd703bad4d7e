//! The agent's life: take the instance's lock, take up the operations it knows, serve until told to stop.

use crate::{config::Settings, rpc, session::Registry};
use engines::{
    guard::{GuardedSource, Lost},
    source::SourceEngine,
};
use service::{Env, Shutdown, Tls, dial::Dialer, env::Listener, serve, status::chain};
use std::{sync::Arc, time::Duration};

/// Exit code of an agent that was taken over, so that a supervisor does not start it again at once.
pub const EXIT_SUPERSEDED: i32 = 75;

/// A tenth of the default take-over time: nine signs of life may be late before the lock is lost.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent took the instance's source half over. The process has to end without another write.
    #[error("end because another agent took over")]
    Superseded(#[source] engines::Error),
    /// The engine cannot even begin.
    #[error("take up the instance")]
    Engine(#[source] engines::Error),
    /// The port cannot be served.
    #[error("serve commands")]
    Serve(#[from] serve::Error),
}

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
    tracing::info!(instance = %settings.instance, engine = engine.name(), "wait for the source lock of the instance");
    let epoch = tokio::select! {
        epoch = engine.take_over() => epoch.map_err(Error::Engine)?,
        () = shutdown.wait() => return Ok(()),
    };
    tracing::info!(epoch = epoch.0, "hold the source lock");
    let lost = Lost::default();
    let engine: Arc<dyn SourceEngine> = Arc::new(GuardedSource::new(engine, lost.clone()));
    let dialer = Dialer::new(env.clone(), tls.clone());
    let registry = Registry::new(env.clone(), engine.clone(), dialer, settings, epoch);

    let living = async {
        // Signs of life begin at once: taking up may take longer than the take-over time.
        registry.take_up().await.map_err(Error::Engine)?;
        serve::run(&env, listener, tls, rpc::services(&registry), shutdown).await?;
        registry.close().await;
        Ok(())
    };
    tokio::select! {
        biased;
        cause = lost.wait() => {
            tracing::error!(error = %chain(&cause), "end at once");
            // Nothing may be written any more. Readers that would hinder the application's checkpoints go with the process.
            registry.abandon();
            Err(Error::Superseded(cause))
        }
        never = heartbeat(&env, &engine) => match never {},
        ended = living => ended,
    }
}

/// Gives signs of life. Never ends: the guard around the engine tells when the lock is lost.
async fn heartbeat(env: &Env, engine: &Arc<dyn SourceEngine>) -> std::convert::Infallible {
    let mut interval = env.interval(HEARTBEAT);
    loop {
        interval.tick().await;
        if let Err(error) = engine.heartbeat().await {
            tracing::warn!(error = %chain(&error), "give a sign of life");
        }
    }
}
