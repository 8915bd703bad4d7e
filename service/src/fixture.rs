//! What the tests share: certificates of several authorities, a clock that is off, and a server that records its callers.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::certs::{Spec, issue_dev};
use crate::env::{BoxFuture, Clock, Env, Timestamp};
use crate::serve::{self, Peer, ServeOptions, peer_of};
use crate::shutdown::Shutdown;
use crate::tls::{Tls, TlsFiles};

pub(crate) const SERVER: &str = "spiffe://causeway/agent-dest/east";
pub(crate) const CLIENT: &str = "spiffe://causeway/agent-source/west";

/// Real time, moved by a number of milliseconds.
#[derive(Debug)]
pub(crate) struct Shifted(pub(crate) i64);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(Env::real().now().as_millis() + self.0)
    }

    fn monotonic(&self) -> Duration {
        Env::real().monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Env::real().clock().sleep(duration)
    }
}

/// A clock whose every wait lasts a millisecond.
#[derive(Debug)]
pub(crate) struct Hasty;

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Env::real().now()
    }

    fn monotonic(&self) -> Duration {
        Env::real().monotonic()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Env::real().clock().sleep(Duration::from_millis(1))
    }
}

/// An environment whose wall clock is `days` off.
pub(crate) fn env_off_by(days: i64) -> Env {
    Env::real().with_clock(Arc::new(Shifted(days * 86_400_000)))
}

pub(crate) fn days_from_now(days: i64) -> Timestamp {
    env_off_by(days).now()
}

/// Server and client certificates by a fresh authority in `dir`, valid from ten days ago.
pub(crate) fn authority(dir: &Path) {
    let long = |spec: Spec| spec.valid(days_from_now(-10), days_from_now(100));
    let now = days_from_now(-10);
    let specs = [long(Spec::new("server", SERVER, now)), long(Spec::new("client", CLIENT, now))];
    issue_dev(dir, &specs, now).unwrap();
}

pub(crate) async fn tls(env: &Env, dir: &Path, stem: &str) -> Tls {
    Tls::load(env, TlsFiles::in_dir(dir, stem)).await.unwrap()
}

/// A health service that records its callers. Asked for `slow` it answers when released; a watch says "serving" once
/// and then nothing, for ever.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pub(crate) peers: Arc<Mutex<Vec<Peer>>>,
    pub(crate) slow_begun: Arc<Notify>,
    pub(crate) release: Arc<Notify>,
}

#[tonic::async_trait]
impl Health for Recorder {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.peers.lock().unwrap().push(peer_of(&request));
        if request.get_ref().service == "slow" {
            self.slow_begun.notify_one();
            self.release.notified().await;
        }
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let first = tokio_stream::once(Ok(HealthCheckResponse { status: 1 }));
        Ok(Response::new(Box::pin(first.chain(tokio_stream::pending()))))
    }
}

/// A server on a port of its own.
pub(crate) struct Running {
    pub(crate) address: String,
    pub(crate) recorder: Recorder,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<Result<(), serve::Error>>,
}

pub(crate) async fn start(tls: Option<Tls>) -> Running {
    start_with(tls, "127.0.0.1:0", ServeOptions::default()).await
}

pub(crate) async fn start_with(tls: Option<Tls>, address: &str, options: ServeOptions) -> Running {
    let env = Env::real();
    let listener = serve::bind(&env, address, tls.is_some()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (recorder, shutdown) = (Recorder::default(), Shutdown::new());
    let routes = Routes::new(HealthServer::new(recorder.clone()));
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { serve::serve(&env, listener, tls, routes, &options, shutdown).await }
    });
    Running { address, recorder, shutdown, task }
}
