//! The real world's clock, randomness, network and threads.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rand::TryRngCore;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::{Blocking, BoxFuture, Clock, Io, Listener, Net, Random, Timestamp};

/// A host name that gives no address.
#[derive(Debug, thiserror::Error)]
#[error("resolve {host:?}: {reason}")]
pub struct ResolveError {
    /// The name that was looked up.
    pub host: String,
    /// What the resolver said.
    pub reason: String,
}

#[derive(Debug)]
pub(super) struct SystemClock;

/// When this process first asked for monotonic time. Tokio's clock, so that a paused test clock is honoured.
static START: OnceLock<Instant> = OnceLock::new();

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from(SystemTime::now())
    }

    fn monotonic(&self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(*START.get_or_init(|| now))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

pub(super) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // The operating system's generator fails only where getrandom(2) is missing or forbidden; tokens must not be
        // made from anything less, so there is no going on.
        rand::rngs::OsRng.try_fill_bytes(bytes).expect("the operating system gives random bytes");
    }
}

pub(super) struct Tcp;

impl Net for Tcp {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let mut last = None;
            for candidate in resolve(&address).await? {
                match TcpStream::connect(candidate).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream) as Box<dyn Io>);
                    }
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| no_address(&address, "the name has no address")))
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let mut last = None;
            for candidate in resolve(&address).await? {
                match TcpListener::bind(candidate).await {
                    Ok(listener) => return Ok(Box::new(listener) as Box<dyn Listener>),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| no_address(&address, "the name has no address")))
        })
    }
}

impl Listener for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Io>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Io>, peer))
        })
    }
}

pub(super) struct Threads;

impl Blocking for Threads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
}

async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    // Kept apart from connecting: "no such name" and "nobody listens there" have different remedies.
    match tokio::net::lookup_host(address).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(no_address(address, &error.to_string())),
    }
}

fn no_address(address: &str, reason: &str) -> io::Error {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    io::Error::new(io::ErrorKind::NotFound, ResolveError { host: host.to_owned(), reason: reason.to_owned() })
}
