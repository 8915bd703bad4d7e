//! Config -> Coordinator -> run: puts the parts together and serves until shutdown.

use std::sync::Arc;

use service::{
    Env, Shutdown, Tls,
    dial::{Dialer, Pool},
    env::Listener,
    failpoint::{self, Failpoints},
    serve,
};

use crate::{
    agents::Agents,
    auth::{self, Auth},
    config::{Config, Limits, StoreAddress},
    core::Core,
    driver::{self, Hub},
    instances::Instances,
    retention, rpc,
    store::{self, InstanceRecord, Records, RedbStore, Store, WithFailpoints},
};

/// A coordinator with its store open, ready to run.
pub struct Coordinator {
    env: Env,
    tls: Option<Tls>,
    limits: Limits,
    instances: Vec<InstanceRecord>,
    records: Records,
    auth: Arc<Auth>,
}

/// Why a coordinator does not start or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The files about callers.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// A test armed failpoints that there are not.
    #[error(transparent)]
    Failpoints(#[from] failpoint::Error),
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
        let store: Arc<dyn Store> = match Failpoints::from_environment(&env, &store::STEPS)? {
            Some(points) => Arc::new(WithFailpoints { inner: Arc::new(store), points, env: env.clone() }),
            None => Arc::new(store),
        };
        Self::over(env, tls, config, store).await
    }

    /// A coordinator over a store that is open already, wherever that is.
    pub async fn over(env: Env, tls: Option<Tls>, config: Config, store: Arc<dyn Store>) -> Result<Self, Error> {
        let auth = Auth::open(&env, &config.auth).await?;
        let records = Records::new(store);
        Ok(Self { env, tls, limits: config.limits, instances: config.instances, records, auth })
    }

    /// Serve on `listener` and drive all operations, until `shutdown`.
    pub async fn run(self, listener: Box<dyn Listener>, shutdown: Shutdown) -> Result<(), Error> {
        let Self { env, tls, limits, instances, records, auth } = self;
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
        let serving = serve::run(&env, listener, tls, rpc::services(core.clone(), auth.clone()), shutdown.clone());
        // No task of its own: nobody may hold the store open after this future is gone.
        let forgetting = retention::run(core.clone());
        let driving = driver::run(core);
        let guarding = auth.clone().run(shutdown.clone());
        // Whichever ends first, by shutdown or by an error, ends the other.
        let (driven, served, (), ()) = tokio::join!(
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
            // Heeds the shutdown too; what it has not got to is for the next start.
            forgetting,
            guarding,
        );
        auth.close().await;
        tracing::info!("coordinator stopped");
        driven?;
        Ok(served?)
    }
}
