//! The four contracts an environment is made of; the real ones are in `real`, a simulation brings its own.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Timestamp;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = futures::future::BoxFuture<'a, T>;

/// Time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;

    /// Time since a fixed moment of this clock's choosing. Never decreases.
    fn monotonic(&self) -> Duration;

    /// Completes when `duration` of monotonic time has passed. Dropping it is free.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Randomness, of cryptographic quality except in a simulation.
pub trait Random: Send + Sync {
    /// Overwrite all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// A byte stream between two processes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The network.
pub trait Net: Send + Sync {
    /// Connect to `address` (`host:port`). Tries each address the name resolves to; small writes leave at once (no Nagle).
    ///
    /// A name that does not resolve gives an error whose inner error is a [`super::ResolveError`].
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;

    /// Listen at `address` (`host:port`; port 0 picks a free one). Connections queue from the moment this returns.
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// Whether `host` is this machine, so that plain text cannot be overheard.
    fn is_loopback(&self, host: &str) -> bool {
        host_is_loopback(host)
    }
}

/// A listening socket. Dropping it closes the port.
pub trait Listener: Send + Sync {
    /// The address in use, with the port that was picked.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection and where it comes from. Cancelling loses no connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Io>, SocketAddr)>>;
}

/// Threads that are allowed to block.
pub trait Blocking: Send + Sync {
    /// Run `work` to its end, soon. A closure that has begun is never abandoned.
    fn run(&self, work: Box<dyn FnOnce() + Send>);
}

/// Whether `host` is `localhost` or a loopback address such as `127.0.0.1`, `::1` or `[::1]`.
pub fn host_is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}
