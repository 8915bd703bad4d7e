//! Reading the three files and making rustls configurations of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Error, Identity, TlsFiles};
use crate::env::{Clock, Timestamp};

/// Long enough before the end to renew by hand.
const WARN_BEFORE_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// gRPC is HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

pub(super) struct Loaded {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    pub(super) identity: Identity,
    pub(super) not_after: Timestamp,
    pub(super) fingerprint: u64,
}

#[derive(Debug)]
struct InjectedTime(Arc<dyn Clock>);

impl TimeProvider for InjectedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.now().as_millis()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

pub(super) fn load(clock: Arc<dyn Clock>, files: &TlsFiles) -> Result<Loaded, Error> {
    let fingerprint = fingerprint(files);
    let now = clock.now();
    let chain = certificates("certificate", &files.cert)?;
    let not_after = check_validity("certificate", &files.cert, &chain[0], now)?;
    let identity = Identity::from_der(&chain[0])
        .map_err(|error| content("certificate", &files.cert, format!("has names that cannot be read: {error}")))?;
    let key = private_key(&files.key)?;
    let roots = Arc::new(roots(files, now)?);

    let provider = Arc::new(provider());
    let time = Arc::new(InjectedTime(clock));
    let server = server(&provider, &time, &roots, &chain, key.clone_key(), files)?;
    let client = client(&provider, &time, roots, chain, key, files)?;
    if not_after.since(now) < WARN_BEFORE_EXPIRY {
        tracing::warn!(cert = %files.cert.display(), %not_after, "our certificate expires soon, renew it");
    }
    Ok(Loaded { server: Arc::new(server), client: Arc::new(client), identity, not_after, fingerprint })
}

/// AES-128 first: it seals with 10 rounds instead of 14, and both ends of a transfer, which is all CPU, are ours. TLS 1.3
/// asks for no more, and the others stay for peers that do.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// A number that changes when a file's content does. Zero content for a file that cannot be read.
pub(super) fn fingerprint(files: &TlsFiles) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in [&files.ca, &files.cert, &files.key] {
        std::fs::read(path).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

fn server(
    provider: &Arc<CryptoProvider>,
    time: &Arc<InjectedTime>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
    files: &TlsFiles,
) -> Result<ServerConfig, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| setup(&files.ca, error))?;
    let unix = time.current_time().unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO));
    // Only a warning: while authorities are being changed, own certificate and trusted authorities may differ on purpose.
    if let Err(error) = verifier.verify_client_cert(&chain[0], &chain[1..], unix) {
        tracing::warn!(cert = %files.cert.display(), ca = %files.ca.display(), %error,
            "our own certificate does not pass our own CA; others that trust only this CA will refuse us");
    }
    let mut config = ServerConfig::builder_with_details(provider.clone(), time.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| setup(&files.cert, error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key)
        .map_err(|error| pair(files, error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption: connections are few and long, and a resumed one would outlive its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    provider: &Arc<CryptoProvider>,
    time: &Arc<InjectedTime>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    files: &TlsFiles,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_details(provider.clone(), time.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| setup(&files.cert, error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| pair(files, error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(files: &TlsFiles, now: Timestamp) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for certificate in certificates("CA", &files.ca)? {
        // An expired one among several is no reason not to start; its certificates will be refused.
        match check_validity("CA certificate", &files.ca, &certificate, now) {
            Ok(_) => roots.add(certificate).map_err(|error| setup(&files.ca, error))?,
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if roots.is_empty() => Err(error),
        Some(error) => {
            tracing::warn!(%error, "leave out one of the CA certificates");
            Ok(roots)
        }
        None => Ok(roots),
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(what, path)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().map_err(|error| {
        content(what, path, format!("is not PEM ({error}); it should begin with -----BEGIN CERTIFICATE-----"))
    })?;
    if found.is_empty() {
        return Err(content(
            what,
            path,
            "is not PEM or has no certificate in it; it should begin with -----BEGIN CERTIFICATE-----".to_owned(),
        ));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = read("key", path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let encrypted = b"ENCRYPTED PRIVATE KEY";
        let reason = if bytes.windows(encrypted.len()).any(|part| part == encrypted) {
            "is encrypted; decrypt it with `openssl pkey` and protect it by file permissions".to_owned()
        } else {
            format!(
                "is not PEM or has no private key in it ({error}); it should begin with -----BEGIN PRIVATE KEY-----"
            )
        };
        content("key", path, reason)
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { what, path: path.to_owned(), source })
}

fn check_validity(
    what: &'static str,
    path: &Path,
    certificate: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Timestamp, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| content(what, path, format!("holds a certificate that cannot be read: {error}")))?;
    let moment = |time: x509_parser::time::ASN1Time| Timestamp::from_millis(time.timestamp().saturating_mul(1000));
    let (not_before, not_after) = (moment(parsed.validity().not_before), moment(parsed.validity().not_after));
    if now > not_after {
        return Err(Error::Expired { what, path: path.to_owned(), not_after });
    }
    if now < not_before {
        return Err(Error::NotYetValid { what, path: path.to_owned(), not_before });
    }
    Ok(not_after)
}

fn content(what: &'static str, path: &Path, reason: String) -> Error {
    Error::Content { what, path: path.to_owned(), reason }
}

fn setup(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Setup { path: path.to_owned(), reason: error.to_string() }
}

fn pair(files: &TlsFiles, error: rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => Error::Mismatch { cert: files.cert.clone(), key: files.key.clone() },
        other => setup(&files.key, other),
    }
}
