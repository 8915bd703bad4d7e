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
    office::{Mandate, Office, Standing},
    retention, rpc,
    store::{
        self, InstanceRecord, Records, RedbStore, Store, WithFailpoints, copy,
        etcd::{Election, EtcdAddress, Lead},
    },
};

/// A coordinator with its store open, ready to run.
pub struct Coordinator {
    env: Env,
    tls: Option<Tls>,
    limits: Limits,
    instances: Vec<InstanceRecord>,
    source: Source,
    auth: Arc<Auth>,
}

/// Where the store comes from.
enum Source {
    /// It is this coordinator's own.
    Own(Arc<dyn Store>),
    /// From whoever leads.
    Elected(Box<Election>, Option<String>),
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
    /// Nobody could find it.
    #[error("other coordinators cannot reach this one at {0}: give --advertise HOST:PORT")]
    Unreachable(String),
    /// Somebody leads at a store that is to be copied.
    #[error("the coordinator at {0} uses the store: stop all coordinators of it first")]
    Led(String),
}

impl Coordinator {
    /// Open the store. `tls` serves callers and calls agents; nothing means plain text on loopback.
    pub async fn open(env: Env, tls: Option<Tls>, config: Config) -> Result<Self, Error> {
        let source = match &config.store {
            StoreAddress::Redb(path) => {
                let store = RedbStore::open(&env, path).await?;
                tracing::info!(store = %path.display(), "store open");
                Source::Own(match Failpoints::from_environment(&env, &store::STEPS)? {
                    Some(points) => Arc::new(WithFailpoints { inner: Arc::new(store), points, env: env.clone() }),
                    None => Arc::new(store),
                })
            }
            StoreAddress::Etcd(address) => {
                let election = Election::new(&env, address, tls.as_ref()).await?;
                tracing::info!(endpoints = address.endpoints.join(","), prefix = address.prefix, "store in etcd");
                Source::Elected(Box::new(election), address.advertise.clone())
            }
        };
        Self::of(env, tls, config, source).await
    }

    /// A coordinator over a store that is open already, wherever that is.
    pub async fn over(env: Env, tls: Option<Tls>, config: Config, store: Arc<dyn Store>) -> Result<Self, Error> {
        Self::of(env, tls, config, Source::Own(store)).await
    }

    async fn of(env: Env, tls: Option<Tls>, config: Config, source: Source) -> Result<Self, Error> {
        let auth = Auth::open(&env, &config.auth).await?;
        Ok(Self { env, tls, limits: config.limits, instances: config.instances, source, auth })
    }

    /// Serve on `listener` and, while this one leads, drive all operations; until `shutdown`.
    pub async fn run(self, listener: Box<dyn Listener>, shutdown: Shutdown) -> Result<(), Error> {
        let Self { env, tls, limits, instances, source, auth } = self;
        let office = Office::new();
        let post = Post { env: env.clone(), tls: tls.clone(), limits, instances, office: office.clone() };
        let address = match &source {
            Source::Own(_) => String::new(),
            Source::Elected(_, advertise) => reachable(listener.as_ref(), advertise.as_ref())?,
        };
        // Before anybody is served: whoever asks a coordinator that has its store gets an answer.
        let own = match &source {
            Source::Own(store) => Some(post.take(store.clone(), Mandate::default(), &shutdown).await?),
            Source::Elected(..) => None,
        };
        let services = rpc::services(office, auth.clone(), Dialer::new(env.clone(), tls.clone()), tls.as_ref());
        let serving = Box::pin(serve::run(&env, listener, tls, services, shutdown.clone()));
        let driving = async {
            match (&source, own) {
                (Source::Elected(election, _), _) => Box::pin(post.stand(election, &address, &shutdown)).await,
                (Source::Own(_), Some(core)) => Box::pin(drive(core)).await?,
                (Source::Own(_), None) => {}
            }
            Ok::<(), Error>(())
        };
        let guarding = auth.clone().run(shutdown.clone());
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
            guarding,
        );
        auth.close().await;
        tracing::info!("coordinator stopped");
        driven?;
        Ok(served?)
    }
}

/// What a coordinator that leads works with.
struct Post {
    env: Env,
    tls: Option<Tls>,
    limits: Limits,
    instances: Vec<InstanceRecord>,
    office: Office,
}

impl Post {
    /// Takes the lead over `store`, until `ended`: from now on requests are answered here.
    async fn take(&self, store: Arc<dyn Store>, mandate: Mandate, ended: &Shutdown) -> Result<Arc<Core>, Error> {
        copy::check_whole(store.as_ref()).await?;
        let records = Records::new(store);
        let pool = Pool::new(Dialer::new(self.env.clone(), self.tls.clone()));
        let core = Arc::new(Core {
            agents: Agents::new(self.env.clone(), pool, self.tls.is_some(), self.limits.timeouts.clone()),
            instances: Instances::new(records.clone(), self.instances.clone()),
            env: self.env.clone(),
            limits: self.limits.clone(),
            records,
            hub: Hub::new(),
            gate: tokio::sync::Mutex::new(()),
            mandate,
            shutdown: ended.clone(),
        });
        self.office.set(Standing::Leading(core.clone()));
        Ok(core)
    }

    /// Stands for the lead, drives while it has it, and stands again; until `shutdown`.
    async fn stand(&self, election: &Election, address: &str, shutdown: &Shutdown) {
        let mut backoff = service::Backoff::default();
        while !shutdown.is_set() {
            let lead = tokio::select! {
                biased;
                () = shutdown.wait() => return,
                lead = election.campaign(address, |seen| self.office.see(seen)) => lead,
            };
            tracing::info!(address, "leading");
            let begun = self.env.monotonic();
            if let Err(error) = self.serve_term(&lead, shutdown).await {
                tracing::error!(%error, "this coordinator cannot lead, trying again");
                self.office.set(Standing::Vacant(error.to_string()));
            }
            // The lease is given back in any case: it may outlive an etcd that was away.
            lead.resign().await;
            if self.env.monotonic().saturating_sub(begun) > service::Backoff::MOST {
                backoff.reset();
            }
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = backoff.wait(&self.env) => {}
            }
        }
    }

    async fn serve_term(&self, lead: &Lead, shutdown: &Shutdown) -> Result<(), Error> {
        let ended = Shutdown::new();
        let ending = async {
            tokio::select! {
                biased;
                () = shutdown.wait() => {}
                () = ended.wait() => {}
                () = lead.hold() => {}
            }
            self.office.set(Standing::Vacant("this coordinator has given up the lead".to_owned()));
            ended.trigger();
        };
        let holding = async {
            let store = Arc::new(lead.store.clone());
            let held = match self.take(store, Mandate::until(lead), &ended).await {
                Ok(core) => drive(core).await,
                Err(error) => Err(error),
            };
            ended.trigger();
            held
        };
        let (held, ()) = tokio::join!(holding, ending);
        held
    }
}

/// Drives all operations, until the core's shutdown.
async fn drive(core: Arc<Core>) -> Result<(), Error> {
    // No task of its own: nobody may hold the store open after this future is gone.
    let forgetting = retention::run(core.clone());
    let driving = async {
        let driven = driver::run(core.clone()).await;
        core.shutdown.trigger();
        driven
    };
    // Forgetting heeds the end too; what it has not got to is for the next start.
    let (driven, ()) = tokio::join!(driving, forgetting);
    Ok(driven?)
}

/// The address by which others reach this one.
fn reachable(listener: &dyn Listener, advertise: Option<&String>) -> Result<String, Error> {
    if let Some(address) = advertise {
        return Ok(address.clone());
    }
    let address = listener.local_addr().map_err(|error| serve::Error::Serve(error.to_string()))?;
    match address.ip().is_unspecified() {
        true => Err(Error::Unreachable(address.to_string())),
        false => Ok(address.to_string()),
    }
}

/// Copies one store to another; answers how many entries it has. Fails if a coordinator uses either.
pub async fn copy_store(env: &Env, tls: Option<&Tls>, from: &StoreAddress, to: &StoreAddress) -> Result<usize, Error> {
    let (from, from_lead) = alone(env, tls, from).await?;
    let copied = match alone(env, tls, to).await {
        Ok((to, to_lead)) => {
            let copied = copy::copy(from.as_ref(), to.as_ref()).await;
            resign(to_lead).await;
            copied.map_err(Error::from)
        }
        Err(error) => Err(error),
    };
    resign(from_lead).await;
    copied
}

async fn resign(lead: Option<Lead>) {
    if let Some(lead) = lead {
        lead.resign().await;
    }
}

/// A store that nobody else uses now.
async fn alone(env: &Env, tls: Option<&Tls>, address: &StoreAddress) -> Result<(Arc<dyn Store>, Option<Lead>), Error> {
    match address {
        StoreAddress::Redb(path) => Ok((Arc::new(RedbStore::open(env, path).await?), None)),
        StoreAddress::Etcd(address) => {
            // A copy takes seconds, and nothing keeps the lease meanwhile.
            let address = EtcdAddress { lease: COPY_LEASE, ..address.clone() };
            let election = Election::new(env, &address, tls).await?;
            let lead = election.lead_now("causeway store copy").await?.map_err(Error::Led)?;
            Ok((Arc::new(lead.store.clone()), Some(lead)))
        }
    }
}

/// How long a copy of a store may take; after that its writes are refused, and it begins again.
const COPY_LEASE: std::time::Duration = std::time::Duration::from_secs(600);
