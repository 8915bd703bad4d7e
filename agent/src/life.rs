//! The life of a process that holds the lock of half an instance: wait for it, give signs of life, end at once when it is
//! lost.

use engines::guard::Lost;
use handover::Epoch;
use service::{Env, Shutdown, serve, status::chain};
use std::{convert::Infallible, time::Duration};

/// A tenth of the default take-over time: nine signs of life may be late before the lock is lost.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are not enough for the engine.
    #[error(transparent)]
    Configuration(engines::Error),
    /// A test armed failpoints that there are not.
    #[error(transparent)]
    Failpoints(#[from] service::failpoint::Error),
    /// Another agent took this half of the instance over. The process has to end without another write.
    #[error("end because another agent took over")]
    Superseded(#[source] engines::Error),
    /// The engine cannot even begin.
    #[error("take up the instance")]
    Engine(#[source] engines::Error),
    /// The port cannot be served.
    #[error("serve")]
    Serve(#[from] serve::Error),
}

/// Waits for the lock; nothing if the agent is told to stop meanwhile.
pub async fn lock(
    take_over: impl Future<Output = engines::Result<Epoch>>,
    shutdown: &Shutdown,
) -> Result<Option<Epoch>, Error> {
    let epoch = tokio::select! {
        epoch = take_over => epoch.map_err(Error::Engine)?,
        () = shutdown.wait() => return Ok(None),
    };
    tracing::info!(epoch = epoch.0, "hold the lock of this half");
    Ok(Some(epoch))
}

/// Lives until `living` ends or the lock is lost, whichever comes first, and gives signs of life meanwhile.
pub async fn live<Beat>(
    env: &Env,
    lost: &Lost,
    heartbeat: impl Fn() -> Beat,
    living: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error>
where
    Beat: Future<Output = engines::Result<()>>,
{
    tokio::select! {
        biased;
        cause = lost.wait() => {
            tracing::error!(error = %chain(&cause), "end at once");
            Err(Error::Superseded(cause))
        }
        never = beat(env, heartbeat) => match never {},
        ended = living => ended,
    }
}

/// Never ends: the guard around the engine tells when the lock is lost.
async fn beat<Beat: Future<Output = engines::Result<()>>>(env: &Env, heartbeat: impl Fn() -> Beat) -> Infallible {
    let mut interval = env.interval(HEARTBEAT);
    loop {
        interval.tick().await;
        if let Err(error) = heartbeat().await {
            tracing::warn!(error = %chain(&error), "give a sign of life");
        }
    }
}
