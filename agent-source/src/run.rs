//! The agent's life: take the instance's lock, take up the operations it knows, serve until told to stop.

use crate::{config::Settings, rpc, session::Registry};
use engines::source::SourceEngine;
use proto::v1::source_agent_server::SourceAgentServer;
use service::{
    Env, Shutdown, Tls,
    dial::Dialer,
    env::Listener,
    serve::{self, ServeOptions},
};
use std::{io::Write as _, sync::Arc, time::Duration};
use tonic::service::Routes;

/// Exit code of an agent that was taken over, so that a supervisor does not start it again at once.
pub const EXIT_SUPERSEDED: i32 = 75;

/// A tenth of the shortest take-over time that makes sense.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent took the instance's source half over.
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
    tracing::info!(instance = %settings.instance, engine = engine.name(), "take the source lock of the instance");
    let epoch = tokio::select! {
        epoch = engine.take_over() => epoch.map_err(Error::Engine)?,
        () = shutdown.wait() => return Ok(()),
    };
    let dialer = Dialer::new(env.clone(), tls.clone());
    let registry = Registry::new(env.clone(), engine.clone(), dialer, settings, epoch);
    registry.take_up().await.map_err(Error::Engine)?;

    let service = SourceAgentServer::new(rpc::Commands::new(registry.clone()));
    let (routes, _health) =
        serve::with_standard_services(Routes::new(service), proto::FILE_DESCRIPTOR_SET, &["causeway.v1.SourceAgent"])
            .await?;
    let address = listener.local_addr().map_err(|source| serve::Error::Serve(source.to_string()))?;
    tracing::info!(%address, epoch = epoch.0, "ready for commands");
    // Nobody may be reading it; that is no reason to end.
    let _ = writeln!(std::io::stdout(), "listening on {address}");

    let options = ServeOptions::default();
    let serving = serve::serve(&env, listener, tls, routes, &options, shutdown.clone());
    let outcome = tokio::select! {
        served = serving => served.map_err(Error::from),
        lost = heartbeat(&env, &engine, &registry) => Err(Error::Superseded(lost)),
    };
    registry.close().await;
    outcome
}

/// Gives signs of life until the lock is lost.
async fn heartbeat(env: &Env, engine: &Arc<dyn SourceEngine>, registry: &Registry) -> engines::Error {
    let mut interval = env.interval(HEARTBEAT);
    loop {
        tokio::select! {
            () = interval.tick() => {}
            lost = registry.superseded() => return lost,
        }
        match engine.heartbeat().await {
            Ok(()) => {}
            Err(lost @ engines::Error::Superseded { .. }) => return lost,
            Err(error) => tracing::warn!(error = %service::status::chain(&error), "give a sign of life"),
        }
    }
}
