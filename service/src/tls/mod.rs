//! Mutual TLS for every connection: rustls with ring, TLS 1.3 only, a certificate required of both sides.

mod explain;
mod identity;
mod load;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};

use crate::env::{Env, Timestamp};
use crate::shutdown::Shutdown;

pub use explain::explain;
pub use identity::{Identity, IdentityError};

/// The three files every process needs to speak TLS. All PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authorities whose certificates are accepted of the other side.
    pub ca: PathBuf,
    /// This process's certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// The private key of `cert`: PKCS#8, SEC 1 or PKCS#1, not encrypted.
    pub key: PathBuf,
}

/// Why TLS cannot be set up from the files. Every text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(
        "read the {what} file {path:?}: {source}; check the path and its permissions, or make development certificates with `causeway certs`"
    )]
    Read {
        /// Which of the three.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("the {what} file {path:?} {reason}")]
    Content {
        /// Which of the three.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the key in {key:?} does not belong to the certificate in {cert:?}; give the key the certificate was issued for"
    )]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A certificate's time is over.
    #[error(
        "the {what} in {path:?} expired at {not_after}; issue a new one (for development: `causeway certs`) and check this machine's clock"
    )]
    Expired {
        /// Which of the files.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The end of its validity.
        not_after: Timestamp,
    },
    /// A certificate's time has not come.
    #[error("the {what} in {path:?} is valid only from {not_before}; check this machine's clock")]
    NotYetValid {
        /// Which of the files.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The start of its validity.
        not_before: Timestamp,
    },
    /// rustls will have none of it.
    #[error("set up TLS from {path:?}: {reason}")]
    Setup {
        /// The file at fault, as far as can be told.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
}

/// How often the files are looked at for renewed certificates: issuers for sidecars renew hours ahead, so a minute is soon.
const RELOAD_EVERY: Duration = Duration::from_secs(60);

/// TLS for both directions, from one set of files. Clones share the state, a renewal reaches all of them.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    files: TlsFiles,
    current: RwLock<load::Loaded>,
}

impl Tls {
    /// Read and check the files. Fails if this process's own certificate is not valid now.
    pub async fn load(env: &Env, files: TlsFiles) -> Result<Self, Error> {
        let loaded = read(env, &files).await?;
        Ok(Self { shared: Arc::new(Shared { files, current: RwLock::new(loaded) }) })
    }

    /// Read the files again, for connections made from now on. On an error the old state stays.
    pub async fn reload(&self, env: &Env) -> Result<(), Error> {
        let loaded = read(env, &self.shared.files).await?;
        *self.shared.current.write().expect("no holder of this lock panics") = loaded;
        Ok(())
    }

    /// Keep an eye on the files, until `shutdown`, and take up renewed certificates. Spawn it as a task.
    pub async fn follow_renewals(self, env: Env, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = env.sleep(RELOAD_EVERY) => {}
            }
            let files = self.shared.files.clone();
            let fresh = env.blocking(move || load::fingerprint(&files)).await;
            if fresh == self.current(|loaded| loaded.fingerprint) {
                continue;
            }
            match self.reload(&env).await {
                Ok(()) => tracing::info!(cert = %self.shared.files.cert.display(), "took up renewed certificates"),
                // Renewal writes several files: between the writes they do not fit together. The next look settles it.
                Err(error) => tracing::warn!(%error, "keep the certificates in use"),
            }
        }
    }

    /// What a server uses for the next connection.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.current(|loaded| loaded.server.clone())
    }

    /// What a client uses for the next connection.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.current(|loaded| loaded.client.clone())
    }

    /// Who this process is, by its own certificate.
    pub fn identity(&self) -> Identity {
        self.current(|loaded| loaded.identity.clone())
    }

    /// When this process's own certificate expires.
    pub fn not_after(&self) -> Timestamp {
        self.current(|loaded| loaded.not_after)
    }

    /// The files it came from.
    pub fn files(&self) -> &TlsFiles {
        &self.shared.files
    }

    fn current<T>(&self, look: impl FnOnce(&load::Loaded) -> T) -> T {
        look(&self.shared.current.read().expect("no holder of this lock panics"))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert", &self.shared.files.cert).finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// The files `causeway certs` (see [`crate::certs`]) puts into `dir` for `stem`.
    pub fn in_dir(dir: &Path, stem: &str) -> Self {
        Self { ca: dir.join("ca.pem"), cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}-key.pem")) }
    }
}

async fn read(env: &Env, files: &TlsFiles) -> Result<load::Loaded, Error> {
    let (clock, files) = (env.clock(), files.clone());
    env.blocking(move || load::load(clock, &files)).await
}

#[cfg(test)]
mod tests;
