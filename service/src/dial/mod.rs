//! Dialling other Causeway processes: gRPC channels over mutual TLS, each an HTTP/2 connection of its own.

mod connector;
mod error;
mod pool;

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::env::Env;
use crate::status;
use crate::tls::Tls;
use connector::Connector;

pub use error::Error;
pub use pool::Pool;

/// Makes channels. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Dialer {
    env: Env,
    tls: Option<Tls>,
}

/// How a channel behaves.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// Bound on resolving, connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// Bytes the other side may send ahead on one stream (HTTP/2 flow control).
    pub stream_window: u32,
    /// Bytes the other side may send ahead on all streams of the connection together.
    pub connection_window: u32,
    /// Let HTTP/2 measure the link and choose the windows itself; the two above are then ignored.
    pub adaptive_window: bool,
    /// How often to ask the other side for a sign of life, also while no call is under way.
    pub keepalive_interval: Duration,
    /// How long to wait for that sign before the connection counts as lost.
    pub keepalive_timeout: Duration,
    /// Identity the other side's certificate must carry, beyond the host name; see [`crate::Identity::matches`].
    pub expect: Option<String>,
}

impl Default for DialOptions {
    /// For commands: small windows, and a lost peer is noticed within 10 s.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            stream_window: 1 << 20,
            connection_window: 2 << 20,
            adaptive_window: false,
            // A frozen operation waits for this: 5 s and 5 s are well within every fence timeout, and a ping costs nothing.
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            expect: None,
        }
    }
}

impl DialOptions {
    /// For a lane of a transfer: 4 MiB a stream are several chunks under way, enough for 1 Gbit/s at 30 ms.
    pub fn transfer() -> Self {
        Self { stream_window: 4 << 20, connection_window: 8 << 20, ..Self::default() }
    }

    /// The same, but the other side must be `identity`.
    pub fn expecting(self, identity: impl Into<String>) -> Self {
        Self { expect: Some(identity.into()), ..self }
    }
}

impl Dialer {
    /// A dialer over mutual TLS; without `tls` it dials loopback addresses in plain text and refuses all others.
    pub fn new(env: Env, tls: Option<Tls>) -> Self {
        Self { env, tls }
    }

    /// The environment it dials through.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// A channel to `address` (`host:port`) that connects at its first call, and again after a loss.
    ///
    /// Each call gives a channel with its own connection; clones of a channel share theirs. A failure to connect shows
    /// as a status `Unavailable` of the call, see [`crate::status::describe`]. Errors here are about the address only.
    pub fn channel(&self, address: &str) -> Result<Channel, Error> {
        self.channel_with(address, &DialOptions::default())
    }

    /// [`Dialer::channel`] with options.
    pub fn channel_with(&self, address: &str, options: &DialOptions) -> Result<Channel, Error> {
        let (endpoint, connector) = self.prepare(address, options)?;
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// A channel that is known to work: connected, and the other side has answered over it.
    pub async fn connect(&self, address: &str) -> Result<Channel, Error> {
        self.connect_with(address, &DialOptions::default()).await
    }

    /// [`Dialer::connect`] with options.
    pub async fn connect_with(&self, address: &str, options: &DialOptions) -> Result<Channel, Error> {
        let (endpoint, connector) = self.prepare(address, options)?;
        let fault = connector.fault();
        let blame = |error: &(dyn std::error::Error + 'static)| {
            fault.take().unwrap_or_else(|| Error::lost(address, self.tls.is_some(), error))
        };
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| blame(&error))?;
        // In TLS 1.3 a client is done before the server has judged its certificate. Only an answer proves the connection,
        // and any answer will do, also that there is no health service.
        let mut health = HealthClient::new(channel.clone());
        let probe = health.check(HealthCheckRequest { service: String::new() });
        match self.env.timeout(options.connect_timeout, probe).await {
            Ok(Err(status)) if status::is_transport(&status) => Err(blame(&status)),
            Ok(_) => Ok(channel),
            Err(elapsed) => {
                Err(fault.take().unwrap_or(Error::Timeout { address: address.to_owned(), limit: elapsed.limit }))
            }
        }
    }

    fn prepare(&self, address: &str, options: &DialOptions) -> Result<(Endpoint, Connector), Error> {
        let malformed = || Error::Address { address: address.to_owned() };
        let (host, _port) = split(address).ok_or_else(malformed)?;
        if self.tls.is_none() && !self.env.is_loopback(host) {
            return Err(Error::PlainText { address: address.to_owned() });
        }
        let uri = |scheme: &str| format!("{scheme}://{address}").parse::<Uri>().map_err(|_| malformed());
        // The endpoint says http because the connector brings the TLS; what goes out as :scheme is the truth.
        let endpoint = Endpoint::from(uri("http")?)
            .origin(uri(if self.tls.is_some() { "https" } else { "http" })?)
            .user_agent(concat!("causeway/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| malformed())?
            .initial_stream_window_size(options.stream_window)
            .initial_connection_window_size(options.connection_window)
            .http2_adaptive_window(options.adaptive_window)
            .http2_keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(true);
        let connector =
            Connector::new(self.env.clone(), self.tls.clone(), address, host, options).map_err(|_| malformed())?;
        Ok((endpoint, connector))
    }
}

/// Host and port of `host:port`; the host of `[::1]:80` comes without its brackets.
pub fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!bare.is_empty()).then_some((bare, port))
}

#[cfg(test)]
mod tests;
