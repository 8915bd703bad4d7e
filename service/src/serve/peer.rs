//! Who is calling.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tonic::{Code, Request, Status};

use super::calls::Calls;
use crate::status::problem;
use crate::tls::Identity;

/// The other end of a connection. Handlers get it by [`peer_of`].
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Where it calls from; nothing for calls within the process.
    pub addr: Option<SocketAddr>,
    /// Who it is, from its verified certificate; nothing on plain-text loopback connections and within the process.
    pub identity: Option<Arc<Identity>>,
    /// It came over TLS without a certificate, to a server that lets such in ([`super::ServeOptions::open`]): it has to
    /// prove who it is by other means.
    pub unproven: bool,
    /// The calls of its connection.
    pub(super) calls: Option<Arc<Calls>>,
}

/// Who sent `request`.
pub fn peer_of<T>(request: &Request<T>) -> Peer {
    request.extensions().get::<Peer>().cloned().unwrap_or_default()
}

impl Peer {
    /// Whether the peer proved to be `name`.
    pub fn is(&self, name: &str) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.matches(name))
    }

    /// Refuse everybody but `allowed`.
    ///
    /// A peer without identity passes if it came in plain text: there are none but on a server that runs with
    /// `--insecure`, where loopback is the protection the operator chose.
    pub fn require(&self, allowed: &[&str]) -> Result<(), Status> {
        let Some(identity) = &self.identity else {
            return match self.unproven {
                false => Ok(()),
                true => Err(problem(Code::Unauthenticated, "this needs a certificate")
                    .reason("CREDENTIALS_MISSING")
                    .remedy("give --cert and --key")
                    .status()),
            };
        };
        if allowed.iter().any(|name| identity.matches(name)) {
            return Ok(());
        }
        let wanted = allowed.join(" or ");
        tracing::warn!(caller = %self, wanted, "refuse a command");
        Err(problem(Code::PermissionDenied, format!("{identity} may not do this, only {wanted}"))
            .reason("IDENTITY_NOT_ALLOWED")
            .meta("identity", identity.to_string())
            .remedy(format!("call with the certificate of {wanted}, or have this process accept {identity}"))
            .status())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.identity, &self.addr) {
            (Some(identity), Some(addr)) => write!(f, "{identity} ({addr})"),
            (Some(identity), None) => write!(f, "{identity}"),
            (None, Some(addr)) if self.unproven => write!(f, "somebody without a certificate ({addr})"),
            (None, Some(addr)) => write!(f, "{addr}"),
            (None, None) => f.write_str("this process"),
        }
    }
}
