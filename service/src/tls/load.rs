//! Reading the files and making rustls configurations of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{Error, Files, Identity, Own};
use crate::env::{Clock, Timestamp};

/// Long enough before the end to renew by hand.
const WARN_BEFORE_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// gRPC is HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

pub(super) struct Loaded {
    /// Nothing without a certificate of one's own.
    pub(super) server: Option<Server>,
    pub(super) client: Arc<ClientConfig>,
    /// By what servers are judged.
    servers: Arc<WebPkiServerVerifier>,
    pub(super) identity: Identity,
    pub(super) not_after: Timestamp,
    pub(super) fingerprint: u64,
}

pub(super) struct Server {
    /// For clients that have a certificate.
    pub(super) proven: Arc<ServerConfig>,
    /// For clients that may have one.
    pub(super) open: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// What certificates of others are judged by.
struct Trust {
    provider: Arc<CryptoProvider>,
    time: Arc<InjectedTime>,
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

/// This process's own certificate.
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

#[derive(Debug)]
struct InjectedTime(Arc<dyn Clock>);

impl TimeProvider for InjectedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.now().as_millis()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

pub(super) fn load(clock: Arc<dyn Clock>, files: &Files) -> Result<Loaded, Error> {
    let fingerprint = fingerprint(files);
    let now = clock.now();
    let own = match &files.own {
        None => None,
        Some(own) => {
            let chain = certificates("certificate", &own.cert)?;
            let not_after = check_validity("certificate", &own.cert, &chain[0], now)?;
            let identity = Identity::from_der(&chain[0]).map_err(|error| {
                content("certificate", &own.cert, format!("has names that cannot be read: {error}"))
            })?;
            if not_after.since(now) < WARN_BEFORE_EXPIRY {
                tracing::warn!(cert = %own.cert.display(), %not_after, "our certificate expires soon, renew it");
            }
            Some((own, Pair { chain, key: private_key(&own.key)? }, identity, not_after))
        }
    };
    let trust = Trust {
        provider: Arc::new(provider()),
        time: Arc::new(InjectedTime(clock)),
        roots: Arc::new(roots(files, now)?),
        revoked: revoked(files, now)?,
    };
    let (pair, server, identity, not_after) = match own {
        None => (None, None, Identity::default(), Timestamp::from_millis(i64::MAX)),
        Some((own, pair, identity, not_after)) => {
            let server = server(&trust, &pair, own, files)?;
            (Some((own, pair)), Some(server), identity, not_after)
        }
    };
    let servers = WebPkiServerVerifier::builder_with_provider(trust.roots.clone(), trust.provider.clone())
        .with_crls(trust.revoked.iter().cloned())
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| setup(&files.ca, error))?;
    let client = Arc::new(client(&trust, servers.clone(), pair, files)?);
    Ok(Loaded { server, client, servers, identity, not_after, fingerprint })
}

impl Loaded {
    /// What a server's certificate is worth now to whoever dials this name.
    pub(super) fn judge_server(
        &self,
        now: Timestamp,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        let Some((first, rest)) = chain.split_first() else { return Ok(()) };
        self.servers.verify_server_cert(first, rest, name, &[], unix(now)).map(drop)
    }
}

/// AES-128 first: it seals with 10 rounds instead of 14, and both ends of a transfer, which is all CPU, are ours. TLS 1.3
/// asks for no more, and the others stay for peers that do.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// A number that changes when a file's content does. Zero content for a file that cannot be read.
pub(super) fn fingerprint(files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    let own = files.own.iter().flat_map(|own| [&own.cert, &own.key]);
    for path in own.chain([&files.ca]).chain(&files.crl) {
        std::fs::read(path).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

impl Trust {
    fn verifier(&self, open: bool, files: &Files) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        // A list says what its own authority revoked; others need not have one.
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .with_crls(self.revoked.iter().cloned())
            .allow_unknown_revocation_status();
        let builder = if open { builder.allow_unauthenticated() } else { builder };
        builder.build().map_err(|error| setup(&files.ca, error))
    }
}

impl Server {
    /// What a client's certificate is worth now.
    pub(super) fn judge(&self, now: Timestamp, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some((first, rest)) = chain.split_first() else { return Ok(()) };
        self.verifier.verify_client_cert(first, rest, unix(now)).map(drop)
    }
}

fn unix(moment: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(moment.as_millis()).unwrap_or(0)))
}

fn server(trust: &Trust, pair: &Pair, own: &Own, files: &Files) -> Result<Server, Error> {
    let config = |verifier: Arc<dyn ClientCertVerifier>| {
        let mut config = ServerConfig::builder_with_details(trust.provider.clone(), trust.time.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| setup(&own.cert, error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(pair.chain.clone(), pair.key.clone_key())
            .map_err(|error| mismatch(own, error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // No resumption: connections are few and long, and a resumed one would outlive its certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    };
    let verifier = trust.verifier(false, files)?;
    let server = Server { proven: config(verifier.clone())?, open: config(trust.verifier(true, files)?)?, verifier };
    // Only a warning: while authorities are being changed, own certificate and trusted authorities may differ on purpose.
    if let Err(error) = server.judge(trust.time.0.now(), &pair.chain) {
        tracing::warn!(cert = %own.cert.display(), ca = %files.ca.display(), %error,
            "our own certificate does not pass our own CA; others that trust only this CA will refuse us");
    }
    Ok(server)
}

fn client(
    trust: &Trust,
    servers: Arc<WebPkiServerVerifier>,
    own: Option<(&Own, Pair)>,
    files: &Files,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_details(trust.provider.clone(), trust.time.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| setup(&files.ca, error))?
        .with_webpki_verifier(servers);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((own, Pair { chain, key })) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| mismatch(own, error))?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The lists of revoked certificates, each looked through once so that a wrong file is told at the start.
fn revoked(files: &Files, now: Timestamp) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let Some(path) = &files.crl else { return Ok(Vec::new()) };
    let bytes = read(REVOKED, path)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| content(REVOKED, path, format!("is not PEM ({error})")))?;
    if lists.is_empty() {
        let reason = "has no list in it; it should begin with -----BEGIN X509 CRL-----".to_owned();
        return Err(content(REVOKED, path, reason));
    }
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|error| content(REVOKED, path, format!("holds a list that cannot be read: {error}")))?;
        let next = parsed.next_update().map(|next| Timestamp::from_millis(next.timestamp().saturating_mul(1000)));
        if let Some(next) = next.filter(|next| now > *next) {
            // An old list is better than none, and refusing everybody would stop operations half way.
            tracing::warn!(crl = %path.display(), due = %next, issuer = %parsed.issuer(), "a list of revoked certificates is out of date: fetch a new one");
        }
    }
    Ok(lists)
}

const REVOKED: &str = "revocation list";

fn roots(files: &Files, now: Timestamp) -> Result<RootCertStore, Error> {
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

fn mismatch(own: &Own, error: rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => Error::Mismatch { cert: own.cert.clone(), key: own.key.clone() },
        other => setup(&own.key, other),
    }
}
