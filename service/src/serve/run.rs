//! The common life of a server: standard services, the line that says where it listens, renewals, serving.

use std::future::pending;
use std::io::Write as _;

use tonic::service::Routes;

use super::{Error, ServeOptions, serve, with_standard_services};
use crate::env::{Env, Listener};
use crate::shutdown::Shutdown;
use crate::tls::Tls;

/// What a process serves.
pub struct Services {
    /// Its own services.
    pub routes: Routes,
    /// The encoded file descriptor set in which they are described.
    pub descriptors: &'static [u8],
    /// Their full names, such as `causeway.v1.Coordinator`.
    pub names: &'static [&'static str],
    /// How connections are treated.
    pub options: ServeOptions,
}

/// Serve a whole process until `shutdown`: its own services with health and reflection beside them. Takes up renewed
/// certificates meanwhile, and says over health that it serves no more once it was told to stop.
///
/// Prints `listening on ADDRESS` to standard output once connections are taken, so that a supervisor or a test can use
/// port 0. Dropping the future ends everything at once.
pub async fn run(
    env: &Env,
    listener: Box<dyn Listener>,
    tls: Option<Tls>,
    services: Services,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let Services { routes, descriptors, names, options } = services;
    let (routes, health) = with_standard_services(routes, descriptors, names).await?;
    let address = listener.local_addr().map_err(|source| Error::Serve(source.to_string()))?;
    tracing::info!(%address, tls = tls.is_some(), services = names.join(" "), "listening");
    // Nobody may be reading it; that is no reason to end.
    let _ = writeln!(std::io::stdout(), "listening on {address}");

    let renewals = async {
        match tls.clone() {
            Some(tls) => tls.follow_renewals(env.clone(), shutdown.clone()).await,
            None => shutdown.wait().await,
        }
    };
    let farewell = async {
        shutdown.wait().await;
        health.set_serving(false).await;
    };
    let beside = async {
        tokio::join!(renewals, farewell);
        // Calls under way may go on for a while.
        pending().await
    };
    tokio::select! {
        served = serve(env, listener, tls.clone(), routes, &options, shutdown.clone()) => served,
        never = beside => never,
    }
}
