//! Why a connection cannot be made, with the remedy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::env::ResolveError;
use crate::status::chain;
use crate::tls::explain;

/// Why a connection cannot be made. Every text names the address and a remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Not an address.
    #[error("{address:?} is not an address; write host:port, such as db2.example:7443 or [::1]:7443")]
    Address {
        /// What was given.
        address: String,
    },
    /// Without TLS only loopback may be dialled.
    #[error(
        "refuse to dial {address} in plain text: --insecure is for loopback addresses only; give --ca, --cert and --key"
    )]
    PlainText {
        /// What was to be dialled.
        address: String,
    },
    /// The name has no address.
    #[error("resolve the host of {address}: {reason}; check the name and this machine's DNS")]
    Resolve {
        /// What was dialled.
        address: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nobody answers, or the connection broke.
    #[error("connect to {address}: {source}; {remedy}")]
    Connect {
        /// What was dialled.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
        /// What to do.
        remedy: &'static str,
    },
    /// It takes too long.
    #[error(
        "connect to {address}: no answer within {limit:?}; check that the process runs and that no firewall drops the packets"
    )]
    Timeout {
        /// What was dialled.
        address: String,
        /// How long was waited.
        limit: Duration,
    },
    /// One side does not accept the other's certificate, or it is no TLS at all.
    #[error("{what}; {remedy}")]
    Tls {
        /// What was dialled.
        address: String,
        /// What happened.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The certificate is good but belongs to somebody else.
    #[error(
        "{address} is {found}, but {expected} is expected there; check the address, and the certificate that process was given"
    )]
    WrongPeer {
        /// What was dialled.
        address: String,
        /// Who should have answered.
        expected: String,
        /// Who did.
        found: String,
    },
}

const REFUSED: &str = "check that the process runs and listens on this port";
const NETWORK: &str = "check the network between the two machines";
const NOT_TLS: &str = "check the port, and that the process there runs with certificates too and not with --insecure";
const NOT_PLAIN: &str =
    "if the process there runs with certificates, give --ca, --cert and --key instead of --insecure";

impl Error {
    /// Whether the same call may succeed later without anybody changing anything here.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Resolve { .. } | Self::Connect { .. } | Self::Timeout { .. })
    }

    pub(super) fn dial(address: &str, error: io::Error) -> Self {
        if let Some(unresolved) = error.get_ref().and_then(|inner| inner.downcast_ref::<ResolveError>()) {
            return Self::Resolve { address: address.to_owned(), reason: unresolved.reason.clone() };
        }
        let remedy = match error.kind() {
            io::ErrorKind::ConnectionRefused => REFUSED,
            _ => NETWORK,
        };
        Self::Connect { address: address.to_owned(), source: Arc::new(error), remedy }
    }

    pub(super) fn handshake(address: &str, error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(cause) => {
                let (what, remedy) = explain(cause, address);
                Self::Tls { address: address.to_owned(), what, remedy }
            }
            None => Self::Connect { address: address.to_owned(), source: Arc::new(error), remedy: NOT_TLS },
        }
    }

    /// The connection was made and then lost before anything was answered.
    pub(super) fn lost(address: &str, tls: bool, error: &(dyn std::error::Error + 'static)) -> Self {
        let source = Arc::new(io::Error::new(io::ErrorKind::ConnectionReset, chain(error)));
        Self::Connect { address: address.to_owned(), source, remedy: if tls { NOT_TLS } else { NOT_PLAIN } }
    }
}
