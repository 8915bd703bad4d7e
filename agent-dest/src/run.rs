//! The agent's life: take the instance's lock, roll forward what is durable, serve until told to stop.

use crate::{
    config::Settings,
    guard::{Guard, Lost},
    rpc,
    session::Registry,
};
use engines::dest::DestEngine;
use proto::v1::{dest_agent_server::DestAgentServer, transfer_server::TransferServer};
use service::{
    Env, Shutdown, Tls,
    env::Listener,
    serve::{self, ServeOptions},
    status::chain,
};
use std::{io::Write as _, sync::Arc, time::Duration};
use tonic::service::Routes;

/// Exit code of an agent that was taken over, so that a supervisor does not start it again at once.
pub const EXIT_SUPERSEDED: i32 = 75;

/// A tenth of the default take-over time: nine signs of life may be late before the lock is lost.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent took the instance's destination half over. The process has to end without another write.
    #[error("end because another agent took over")]
    Superseded(#[source] engines::Error),
    /// The engine cannot even begin.
    #[error("take up the instance")]
    Engine(#[source] engines::Error),
    /// The port cannot be served.
    #[error("serve commands and transfers")]
    Serve(#[from] serve::Error),
}

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
    tracing::info!(instance = %settings.instance, engine = engine.name(), "wait for the destination lock of the instance");
    let epoch = tokio::select! {
        epoch = engine.take_over() => epoch.map_err(Error::Engine)?,
        () = shutdown.wait() => return Ok(()),
    };
    tracing::info!(epoch = epoch.0, "hold the destination lock");
    let lost = Lost::default();
    let engine: Arc<dyn DestEngine> = Arc::new(Guard::new(engine, lost.clone()));
    let registry = Registry::new(env.clone(), engine.clone(), settings.clone(), epoch, shutdown.clone());

    let living = async {
        // Signs of life begin at once: rolling forward may take longer than the take-over time.
        registry.take_up().await.map_err(Error::Engine)?;
        let routes = Routes::new(DestAgentServer::new(rpc::Commands::new(registry.clone(), tls.is_some())))
            .add_service(
                TransferServer::new(rpc::Lanes::new(registry.clone()))
                    .max_decoding_message_size(proto::MESSAGE_BYTES_MAX),
            );
        let names = ["causeway.v1.DestAgent", "causeway.v1.Transfer"];
        let (routes, _health) = serve::with_standard_services(routes, proto::FILE_DESCRIPTOR_SET, &names).await?;
        let address = listener.local_addr().map_err(|source| serve::Error::Serve(source.to_string()))?;
        tracing::info!(%address, epoch = epoch.0, "ready for commands and transfers");
        // Nobody may be reading it; that is no reason to end.
        let _ = writeln!(std::io::stdout(), "listening on {address}");
        if let Some(tls) = &tls {
            env.spawn("renewals", tls.clone().follow_renewals(env.clone(), shutdown.clone()));
        }
        serve::serve(&env, listener, tls.clone(), routes, &ServeOptions::transfer(), shutdown.clone()).await?;
        registry.close().await;
        Ok(())
    };
    tokio::select! {
        biased;
        cause = lost.wait() => {
            tracing::error!(error = %chain(&cause), "end at once");
            Err(Error::Superseded(cause))
        }
        never = heartbeat(&env, &engine) => match never {},
        ended = living => ended,
    }
}

/// Gives signs of life. Never ends: the guard around the engine tells when the lock is lost.
async fn heartbeat(env: &Env, engine: &Arc<dyn DestEngine>) -> std::convert::Infallible {
    let mut interval = env.interval(HEARTBEAT);
    loop {
        interval.tick().await;
        if let Err(error) = engine.heartbeat().await {
            tracing::warn!(error = %chain(&error), "give a sign of life");
        }
    }
}
