//! Serving gRPC: an accept loop nobody can stall, mutual TLS, health and reflection, and a shutdown with an end.

mod accept;
mod calls;
mod peer;
mod run;
mod standard;

use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::dial;
use crate::env::{Env, Listener};
use crate::shutdown::Shutdown;
use crate::status::chain;
use crate::tls::Tls;

pub use peer::{Peer, peer_of};
pub use run::{Services, run};
pub use standard::{Health, with_standard_services};

/// How a server treats its connections.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Bytes a client may send ahead on one stream (HTTP/2 flow control): the memory bound of a slow handler.
    pub stream_window: u32,
    /// Bytes a client may send ahead on all streams of its connection together.
    pub connection_window: u32,
    /// Let HTTP/2 measure the link and choose the windows itself; the two above are then ignored.
    pub adaptive_window: bool,
    /// Largest HTTP/2 frame a client may send.
    pub frame_bytes_max: u32,
    /// Calls a client may have open on one connection.
    pub streams_max: u32,
    /// Connections that one identity may have open; without identity, one address. Not counted in plain text on loopback.
    pub connections_per_peer: usize,
    /// How long a client may be silent once it is connected: HTTP/2 begins with its words.
    pub first_words: Duration,
    /// How long a connection may be open without a call.
    pub idle: Duration,
    /// Lets clients in that have no certificate ([`Peer::unproven`]); the services must ask who they are.
    pub open: bool,
    /// How long calls may go on after the shutdown signal.
    pub drain: Duration,
}

impl Default for ServeOptions {
    /// For commands.
    fn default() -> Self {
        Self {
            stream_window: 1 << 20,
            connection_window: 2 << 20,
            adaptive_window: false,
            frame_bytes_max: 16 << 10,
            // A console with a watch per operation comes to dozens.
            streams_max: 256,
            // A quarter of what a server takes: nobody alone shuts others out.
            connections_per_peer: 256,
            first_words: Duration::from_secs(10),
            // A coordinator that drives an operation asks every second, and whoever comes back later just dials again.
            idle: Duration::from_secs(900),
            open: false,
            // Handlers that heed the signal are done in milliseconds; supervisors kill after 30 s or more.
            drain: Duration::from_secs(10),
        }
    }
}

impl ServeOptions {
    /// For the receiving side of a transfer; matches [`dial::DialOptions::transfer`]. Frames of a quarter chunk save work
    /// and still let a ping through between two.
    pub fn transfer() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 8 << 20,
            frame_bytes_max: 256 << 10,
            // Every lane of every operation of one source has one of its own.
            connections_per_peer: 512,
            ..Self::default()
        }
    }
}

/// Why a server does not start or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address.
    #[error("{address:?} is not an address to listen at; write host:port, such as 0.0.0.0:7443 or [::1]:7443")]
    Address {
        /// What was given.
        address: String,
    },
    /// Without TLS only loopback may be bound.
    #[error(
        "refuse to listen at {address} in plain text: --insecure is for loopback addresses only; give --ca, --cert and --key, or listen at 127.0.0.1"
    )]
    PlainText {
        /// What was to be bound.
        address: String,
    },
    /// The address cannot be bound.
    #[error("listen at {address}: {source}; {remedy}")]
    Listen {
        /// What was to be bound.
        address: String,
        /// What the system says.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The descriptor set is not one.
    #[error("build the reflection service: {0}")]
    Reflection(String),
    /// The server broke.
    #[error("serve: {0}")]
    Serve(String),
}

/// Listen at `address` (`host:port`, port 0 picks one). Refuses plain text (`tls` false) beyond loopback.
pub async fn bind(env: &Env, address: &str, tls: bool) -> Result<Box<dyn Listener>, Error> {
    let host = host_of(address).ok_or_else(|| Error::Address { address: address.to_owned() })?;
    if !tls && !env.is_loopback(host) {
        return Err(Error::PlainText { address: address.to_owned() });
    }
    env.listen(address).await.map_err(|source| {
        let remedy = match source.kind() {
            std::io::ErrorKind::AddrInUse => "another process uses this port: stop it or choose another",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose a higher one",
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address: use one of its own, or 0.0.0.0",
            _ => "check the address",
        };
        Error::Listen { address: address.to_owned(), source, remedy }
    })
}

/// Serve `routes` on `listener` until `shutdown`, then let calls under way end, for `options.drain` at most.
///
/// Handlers learn who calls by [`peer_of`]. Streams that live long should themselves heed the same [`Shutdown`], else
/// they are cut off when the drain is over. Dropping the future cuts all connections at once.
///
/// Message sizes are the services' own business: tonic decodes up to 4 MiB unless a service is built with
/// `max_decoding_message_size`; for transfer frames set 4 MiB explicitly on server and client.
pub async fn serve(
    env: &Env,
    listener: Box<dyn Listener>,
    tls: Option<Tls>,
    routes: Routes,
    options: &ServeOptions,
    shutdown: Shutdown,
) -> Result<(), Error> {
    if tls.is_none() {
        refuse_plain_text(env, &*listener)?;
    }
    let cut = CutOnDrop(Shutdown::new());
    let incoming = accept::start(env.clone(), listener, tls, options, shutdown.clone(), cut.0.clone());
    let server = Server::builder()
        .layer(calls::Counting::new(env.clone()))
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .http2_adaptive_window(Some(options.adaptive_window))
        .max_frame_size(options.frame_bytes_max)
        .max_concurrent_streams(options.streams_max)
        // Clients ask every 5 s; this finds those that vanished without a word, within 20 s.
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        // Tokens and tracing headers come to under 2 KiB.
        .http2_max_header_list_size(16 << 10)
        .serve_with_incoming_shutdown(routes.prepare(), ReceiverStream::new(incoming), {
            let shutdown = shutdown.clone();
            async move { shutdown.wait().await }
        });
    let mut server = Box::pin(server);
    let overdue = async {
        shutdown.wait().await;
        env.sleep(options.drain).await;
    };
    let ended = tokio::select! {
        biased;
        ended = &mut server => ended,
        () = overdue => {
            tracing::warn!(drain = ?options.drain, "calls still under way are cut off");
            drop(cut);
            // Cut connections end by themselves, at their tasks' next turn.
            env.timeout(Duration::from_secs(1), server).await.unwrap_or(Ok(()))
        }
    };
    ended.map_err(|error| Error::Serve(chain(&error)))
}

struct CutOnDrop(Shutdown);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

/// [`bind`] checked already, but a listener may come from elsewhere.
fn refuse_plain_text(env: &Env, listener: &dyn Listener) -> Result<(), Error> {
    let address = listener.local_addr().map_err(|error| Error::Serve(error.to_string()))?;
    if env.is_loopback(&address.ip().to_string()) {
        return Ok(());
    }
    Err(Error::PlainText { address: address.to_string() })
}

fn host_of(address: &str) -> Option<&str> {
    // Port 0 is fine to listen at and nowhere else.
    match address.strip_suffix(":0") {
        Some(host) if !host.is_empty() => Some(host),
        _ => dial::split(address).map(|(host, _)| host),
    }
}

#[cfg(test)]
mod tests;
