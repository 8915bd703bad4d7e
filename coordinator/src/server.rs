//! Config -> Coordinator -> run: puts the parts together and serves until shutdown.

use std::io::Write as _;
use std::sync::Arc;

use proto::FILE_DESCRIPTOR_SET;
use service::{
    Env, Shutdown, Tls,
    dial::{Dialer, Pool},
    env::Listener,
    serve::{self, ServeOptions},
};

use crate::{
    agents::Agents,
    config::{Config, Limits, StoreAddress},
    core::Core,
    driver::{self, Hub},
    instances::Instances,
    rpc,
    store::{self, InstanceRecord, Records, RedbStore},
};

/// A coordinator with its store open, ready to run.
pub struct Coordinator {
    env: Env,
    tls: Option<Tls>,
    limits: Limits,
    instances: Vec<InstanceRecord>,
    records: Records,
}

/// Why a coordinator does not start or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The server.
    #[error(transparent)]
    Serve(#[from] serve::Error),
}

impl Coordinator {
    /// Open the store. `tls` serves callers and calls agents; nothing means plain text on loopback.
    pub async fn open(env: Env, tls: Option<Tls>, config: Config) -> Result<Self, Error> {
        let StoreAddress::Redb(path) = &config.store;
        let store = RedbStore::open(&env, path).await?;
        tracing::info!(store = %path.display(), "store open");
        let records = Records::new(Arc::new(store));
        Ok(Self { env, tls, limits: config.limits, instances: config.instances, records })
    }

    /// Serve on `listener` and drive all operations, until `shutdown`.
    pub async fn run(self, listener: Box<dyn Listener>, shutdown: Shutdown) -> Result<(), Error> {
        let Self { env, tls, limits, instances, records } = self;
        let pool = Pool::new(Dialer::new(env.clone(), tls.clone()));
        let core = Arc::new(Core {
            agents: Agents::new(env.clone(), pool, tls.is_some(), limits.timeouts.clone()),
            instances: Instances::new(records.clone(), instances),
            env: env.clone(),
            limits,
            records,
            hub: Hub::new(),
            gate: tokio::sync::Mutex::new(()),
            shutdown: shutdown.clone(),
        });
        if let Some(tls) = tls.clone() {
            env.spawn("follow-renewals", tls.follow_renewals(env.clone(), shutdown.clone()));
        }
        let (routes, health) =
            serve::with_standard_services(rpc::routes(core.clone()), FILE_DESCRIPTOR_SET, &[rpc::SERVICE]).await?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls = tls.is_some(), "coordinator listens");
            // For a supervisor or a test that gave port 0; the agents do the same.
            let mut out = std::io::stdout();
            // Whoever closed it does not care.
            let _ = writeln!(out, "listening on {address}").and_then(|()| out.flush());
        }
        let options = ServeOptions::default();
        let driving = driver::run(core);
        let serving = serve::serve(&env, listener, tls, routes, &options, shutdown.clone());
        // Whichever ends first, by shutdown or by an error, ends the other.
        let (driven, served, ()) = tokio::join!(
            async {
                let ended = driving.await;
                shutdown.trigger();
                ended
            },
            async {
                let ended = serving.await;
                shutdown.trigger();
                ended
            },
            async {
                shutdown.wait().await;
                health.set_serving(false).await;
            },
        );
        tracing::info!("coordinator stopped");
        driven?;
        Ok(served?)
    }
}
