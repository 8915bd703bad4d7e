//! Mutual TLS for every connection: rustls with ring, TLS 1.3 only, a certificate required of both sides; only who proves
//! themselves by a token instead may come without one, where a server lets them.

mod explain;
mod identity;
mod load;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::sync::watch;

use crate::env::{Env, Timestamp};
use crate::shutdown::Shutdown;

pub use explain::explain;
pub use identity::{Identity, IdentityError};

/// The files a process needs to speak TLS. All PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authorities whose certificates are accepted of the other side.
    pub ca: PathBuf,
    /// This process's certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// The private key of `cert`: PKCS#8, SEC 1 or PKCS#1, not encrypted.
    pub key: PathBuf,
    /// Lists of certificates that their authorities revoked, if any are to be heeded.
    pub crl: Option<PathBuf>,
}

/// The files as they are read: who only calls, and proves themselves by a token, has no certificate.
#[derive(Debug, Clone)]
struct Files {
    ca: PathBuf,
    own: Option<Own>,
    crl: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct Own {
    cert: PathBuf,
    key: PathBuf,
}

/// Why TLS cannot be set up from the files. Every text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(
        "read the {what} file {path:?}: {source}; check the path and its permissions, or make development certificates with `causeway certs`"
    )]
    Read {
        /// Which of the files.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("the {what} file {path:?} {reason}")]
    Content {
        /// Which of the files.
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

/// How often the files are looked at. Renewals have hours, but who revokes a certificate wants it refused now.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// TLS for both directions, from one set of files. Clones share the state, a renewal reaches all of them.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    files: Files,
    current: RwLock<load::Loaded>,
    /// Counts what was taken up.
    changes: watch::Sender<u64>,
}

impl Tls {
    /// Read and check the files. Fails if this process's own certificate is not valid now.
    pub async fn load(env: &Env, files: TlsFiles) -> Result<Self, Error> {
        let TlsFiles { ca, cert, key, crl } = files;
        Self::of(env, Files { ca, own: Some(Own { cert, key }), crl }).await
    }

    /// TLS for a caller who has no certificate and shows a token instead. It cannot serve.
    pub async fn load_unproven(env: &Env, ca: PathBuf, crl: Option<PathBuf>) -> Result<Self, Error> {
        Self::of(env, Files { ca, own: None, crl }).await
    }

    async fn of(env: &Env, files: Files) -> Result<Self, Error> {
        let loaded = read(env, &files).await?;
        Ok(Self { shared: Arc::new(Shared { files, current: RwLock::new(loaded), changes: watch::Sender::new(0) }) })
    }

    /// Read the files again, for connections made from now on. On an error the old state stays.
    pub async fn reload(&self, env: &Env) -> Result<(), Error> {
        let loaded = read(env, &self.shared.files).await?;
        *self.shared.current.write().expect("no holder of this lock panics") = loaded;
        self.shared.changes.send_modify(|count| *count += 1);
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
                Ok(()) => tracing::info!(ca = %self.shared.files.ca.display(), "took up changed certificates"),
                // Renewal writes several files: between the writes they do not fit together. The next look settles it.
                Err(error) => tracing::warn!(%error, "keep the certificates in use"),
            }
        }
    }

    /// What a server uses for the next connection; `open` lets in clients without a certificate too. Nothing for a caller
    /// without a certificate of its own.
    pub fn server_config(&self, open: bool) -> Option<Arc<ServerConfig>> {
        self.current(|loaded| {
            let server = loaded.server.as_ref()?;
            Some(if open { server.open.clone() } else { server.proven.clone() })
        })
    }

    /// Completes with the reason once files are taken up by which a client that was let in with this chain would be refused:
    /// its certificate was revoked, or its authority is trusted no more.
    pub async fn until_refused(&self, env: &Env, chain: &[CertificateDer<'_>]) -> rustls::Error {
        self.until_judged(|loaded| loaded.server.as_ref()?.judge(env.now(), chain).err()).await
    }

    /// The same for a server with this chain that was dialled by this name.
    pub async fn until_server_refused(
        &self,
        env: &Env,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> rustls::Error {
        self.until_judged(|loaded| loaded.judge_server(env.now(), chain, name).err()).await
    }

    async fn until_judged(&self, judge: impl Fn(&load::Loaded) -> Option<rustls::Error>) -> rustls::Error {
        let mut changes = self.shared.changes.subscribe();
        loop {
            // The sender lives as long as this does.
            let _ = changes.changed().await;
            if let Some(error) = self.current(&judge) {
                return error;
            }
        }
    }

    /// What a client uses for the next connection.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.current(|loaded| loaded.client.clone())
    }

    /// Who this process is, by its own certificate.
    pub fn identity(&self) -> Identity {
        self.current(|loaded| loaded.identity.clone())
    }

    /// When this process's own certificate expires; never, if it has none.
    pub fn not_after(&self) -> Timestamp {
        self.current(|loaded| loaded.not_after)
    }

    fn current<T>(&self, look: impl FnOnce(&load::Loaded) -> T) -> T {
        look(&self.shared.current.read().expect("no holder of this lock panics"))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("own", &self.shared.files.own).finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// The files `causeway certs` (see [`crate::certs`]) puts into `dir` for `stem`.
    pub fn in_dir(dir: &Path, stem: &str) -> Self {
        let (cert, key) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}-key.pem")));
        Self { ca: dir.join("ca.pem"), cert, key, crl: None }
    }
}

async fn read(env: &Env, files: &Files) -> Result<load::Loaded, Error> {
    let (clock, files) = (env.clock(), files.clone());
    env.blocking(move || load::load(clock, &files)).await
}

#[cfg(test)]
mod tests;
