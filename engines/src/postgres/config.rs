//! How an agent reaches its PostgreSQL server, and what it may use of it.

use crate::{Error, Result};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_postgres::config::SslMode;
use tokio_rustls::rustls;

/// What the source does about DDL while an operation runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDdl {
    /// Refuse it with SQLSTATE 55006, naming the operation.
    #[default]
    Block,
    /// Let it through, notice it, and end the operation; the source stays untouched.
    Cancel,
}

/// The settings of an instance's agents, both halves.
#[derive(Clone)]
pub struct Setup {
    /// A libpq connection string or URL: host, port, user, password, sslmode. Its database is the maintenance database,
    /// `postgres` if it names none.
    pub dsn: String,
    /// The password, if the connection string holds none.
    pub password: Option<String>,
    /// Certificates that the server's has to come from; with them its name is checked as well. Without them `sslmode=require`
    /// encrypts and checks nothing.
    pub ca: Option<PathBuf>,
    /// Silence after which the lock of a living agent is taken over.
    pub takeover_after: Duration,
    /// Bytes of log that may be retained for one operation, unless the operation says otherwise.
    pub log_budget_bytes: u64,
    /// The share of the free disk, in percent, that retained log may take, where the agent can see the disk: a cap beside the
    /// budget in bytes. Default 20: applications keep four fifths.
    pub free_share_percent: u8,
    /// The `pg_dump` to read schemas with; not older than the source server.
    pub pg_dump: PathBuf,
    /// What the source does about DDL.
    pub on_ddl: OnDdl,
    /// Connections that apply log side by side; 0 for one per core of the agent's machine, at most 4.
    pub apply_connections: usize,
    /// Load a large table over several lanes at once. Its rows then lie in another order than at the source: what was written
    /// together lies apart, which an index of block ranges and whoever reads a range notice.
    pub split_tables: bool,
    /// Create roles that the destination lacks, without passwords.
    pub create_missing_roles: bool,
}

impl Setup {
    /// Everything at its default.
    pub fn new(dsn: impl Into<String>) -> Self {
        Self {
            dsn: dsn.into(),
            password: None,
            ca: None,
            takeover_after: Duration::from_secs(10),
            log_budget_bytes: 10 << 30,
            free_share_percent: 20,
            pg_dump: PathBuf::from("pg_dump"),
            on_ddl: OnDdl::default(),
            apply_connections: 0,
            split_tables: false,
            create_missing_roles: false,
        }
    }
}

// By hand, so that no log ever shows the connection string or the password.
impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("ca", &self.ca)
            .field("pg_dump", &self.pg_dump)
            .field("on_ddl", &self.on_ddl)
            .finish_non_exhaustive()
    }
}

/// A [`Setup`] that was read and found good. Cloning is cheap.
#[derive(Clone)]
pub struct PostgresConfig {
    inner: Arc<Inner>,
}

struct Inner {
    setup: Setup,
    server: tokio_postgres::Config,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl PostgresConfig {
    /// Reads the connection string and the certificates.
    pub fn new(setup: Setup) -> Result<Self> {
        let mut server: tokio_postgres::Config = setup.dsn.parse().map_err(|error: tokio_postgres::Error| {
            // The string may hold a password, so it is not repeated.
            misconfigured(format!("the connection string cannot be read: {}", chain(&error)), AS_A_WHOLE)
        })?;
        match server.get_hosts().len() {
            1 => {}
            0 => return Err(misconfigured("the connection string names no host".to_owned(), AS_A_WHOLE)),
            hosts => {
                let message = format!("the connection string names {hosts} hosts, and an instance is one server");
                return Err(misconfigured(message, "run agents beside each server, each under an instance of its own"));
            }
        }
        if server.get_user().is_none() {
            return Err(misconfigured("the connection string names no user".to_owned(), AS_A_WHOLE));
        }
        if server.get_dbname().is_none() {
            server.dbname("postgres");
        }
        if let (None, Some(password)) = (server.get_password(), &setup.password) {
            server.password(password);
        }
        let tls = match server.get_ssl_mode() {
            SslMode::Require => Some(Arc::new(client_tls(setup.ca.as_deref())?)),
            // Whoever can get between us and the server could otherwise choose that nothing is checked.
            mode if setup.ca.is_some() => {
                let message = format!("with sslmode={} --postgres-ca protects nothing", name(mode));
                return Err(misconfigured(message, "give sslmode=require, or leave --postgres-ca out"));
            }
            SslMode::Disable => None,
            _ => Some(Arc::new(client_tls(None)?)),
        };
        Ok(Self { inner: Arc::new(Inner { setup, server, tls }) })
    }

    /// The settings.
    pub fn setup(&self) -> &Setup {
        &self.inner.setup
    }

    /// How to reach the server; the database in it is the maintenance database.
    pub(crate) fn server(&self) -> &tokio_postgres::Config {
        &self.inner.server
    }

    /// The maintenance database, in which our records live.
    pub(crate) fn maintenance(&self) -> &str {
        self.inner.server.get_dbname().unwrap_or("postgres")
    }

    /// How to speak TLS, unless it is switched off.
    pub(crate) fn tls(&self) -> Option<&Arc<rustls::ClientConfig>> {
        self.inner.tls.as_ref()
    }

    /// Connections that apply log.
    pub(crate) fn apply_connections(&self) -> usize {
        match self.inner.setup.apply_connections {
            0 => std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4)),
            n => n.min(32),
        }
    }
}

/// The remedy for a connection string that is no good.
const AS_A_WHOLE: &str = "give --postgres 'host=... user=... [port=...] [password=...] [dbname=...] \
    [sslmode=disable|prefer|require]'; with require and --postgres-ca the server's certificate and name are checked";

fn misconfigured(message: String, remedy: &str) -> Error {
    Error::Unsupported { code: "POSTGRES_CONFIG", message, remedy: remedy.to_owned() }
}

fn name(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Require => "require",
        _ => "prefer",
    }
}

fn client_tls(ca: Option<&Path>) -> Result<rustls::ClientConfig> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Internal(format!("set up TLS: {error}")))?;
    let Some(path) = ca else {
        let verifier = Arc::new(Unverified(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    };
    let unreadable = |error: &dyn fmt::Display| {
        let message = format!("read certificates of authorities from {}: {error}", path.display());
        misconfigured(message, "give a PEM file with the certificate of the authority by --postgres-ca")
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"it holds no certificate"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `sslmode=require` as libpq has it: encrypted, whoever the server is.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> std::result::Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The whole chain of causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_needs_a_host_and_a_user() {
        let code = |dsn: &str| PostgresConfig::new(Setup::new(dsn)).err().map(|error| error.code());
        assert_eq!(code("host=127.0.0.1 user=postgres"), None);
        assert_eq!(code("user=postgres"), Some("POSTGRES_CONFIG"));
        assert_eq!(code("host=127.0.0.1"), Some("POSTGRES_CONFIG"));
        assert_eq!(code("postgres://u@127.0.0.1:5/db"), None);
        assert_eq!(code("what is this"), Some("POSTGRES_CONFIG"));
        assert_eq!(code("host=a,b user=u"), Some("POSTGRES_CONFIG"), "an instance is one server");
        assert_eq!(code("host=a user=u sslmode=verify-full"), Some("POSTGRES_CONFIG"));
    }

    #[test]
    fn authorities_protect_only_what_is_encrypted_for_certain() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("write a file");
            path
        };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let good = file("good.pem", &made.cert.pem());
        let refused = |mode: &str, ca: &Path| {
            let setup = Setup { ca: Some(ca.to_owned()), ..Setup::new(format!("host=h user=u{mode}")) };
            PostgresConfig::new(setup).err().map(|error| (error.to_string(), error.remedy()))
        };
        assert_eq!(refused(" sslmode=require", &good), None);
        for mode in ["", " sslmode=prefer", " sslmode=disable"] {
            let (_, remedy) = refused(mode, &good).expect("a way around the check");
            assert!(remedy.contains("sslmode=require"), "{remedy}");
        }
        let rotten = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (ca, part) in [
            (file("empty.pem", ""), "no certificate"),
            (file("rotten.pem", rotten), "rotten.pem"),
            (dir.path().join("nowhere.pem"), "nowhere.pem"),
        ] {
            let (message, remedy) = refused(" sslmode=require", &ca).expect(part);
            assert!(message.contains(part) && remedy.contains("--postgres-ca"), "{message}: {remedy}");
        }
    }

    #[test]
    fn the_connection_strings_own_password_goes_first() {
        let password = |dsn: &str| {
            let setup = Setup { password: Some("other".to_owned()), ..Setup::new(dsn) };
            PostgresConfig::new(setup).expect("good settings").server().get_password().map(<[u8]>::to_vec)
        };
        assert_eq!(password("host=h user=u"), Some(b"other".to_vec()));
        assert_eq!(password("host=h user=u password=own"), Some(b"own".to_vec()));
    }

    #[test]
    fn a_password_is_not_repeated_in_an_error() {
        let error = PostgresConfig::new(Setup::new("user=u password=hunter2")).err().expect("there is no host");
        assert!(!error.to_string().contains("hunter2"));
        let setup = Setup { password: Some("hunter2".to_owned()), ..Setup::new("host=h user=u password=hunter2") };
        assert!(!format!("{setup:?}").contains("hunter2"));
    }
}
