//! Development certificates: a CA of one's own and certificates by it. For production bring your own authority.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::env::Timestamp;

/// How long a development certificate is good for, unless told otherwise.
pub const VALIDITY: Duration = Duration::from_secs(825 * 24 * 3600);
/// How long a development CA is good for.
pub const CA_VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Validity starts this much before the moment of issue, because clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// One certificate to issue.
#[derive(Debug, Clone)]
pub struct Spec {
    /// File name without ending: `<stem>.pem` and `<stem>-key.pem`.
    pub stem: String,
    /// Identity URI, such as `spiffe://causeway/coordinator`.
    pub identity: String,
    /// Host names and IP addresses it is reached by; `localhost`, `127.0.0.1` and `::1` are always added.
    pub hosts: Vec<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Why no certificate can be issued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{action} {path:?}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Only half of a CA is there.
    #[error(
        "{present:?} exists but {missing:?} does not; restore it, or remove both to make a new CA (all old certificates become useless)"
    )]
    HalfCa {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The CA in the directory is not usable.
    #[error("the CA in {path:?} is not usable: {reason}; remove it and its key to make a new one")]
    Ca {
        /// The CA's certificate.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate cannot be revoked, or the list of those that were is not usable.
    #[error("{path:?}: {reason}")]
    Revoke {
        /// The certificate, or the list.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A specification is not possible.
    #[error("certificate {stem:?}: {reason}")]
    Spec {
        /// Its file stem.
        stem: String,
        /// What is wrong.
        reason: String,
    },
}

impl Spec {
    /// A certificate valid from an hour before `now` for [`VALIDITY`].
    pub fn new(stem: impl Into<String>, identity: impl Into<String>, now: Timestamp) -> Self {
        let hour_before = Timestamp::from_millis(now.as_millis() - CLOCK_SKEW.as_millis() as i64);
        Self {
            stem: stem.into(),
            identity: identity.into(),
            hosts: Vec::new(),
            not_before: hour_before,
            not_after: now.after(VALIDITY),
        }
    }

    /// Also good for this host name or IP address.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Valid in this span only, which may lie in the past.
    pub fn valid(mut self, not_before: Timestamp, not_after: Timestamp) -> Self {
        (self.not_before, self.not_after) = (not_before, not_after);
        self
    }
}

/// Issue every certificate of `specs` into `dir`, by the CA in there, which is made if there is none.
///
/// Writes `ca.pem`, `ca-key.pem`, `<stem>.pem` and `<stem>-key.pem`; keys are readable by the owner only. Certificates
/// that exist are replaced. Blocks on disk.
pub fn issue_dev(dir: &Path, specs: &[Spec], now: Timestamp) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(file("create directory", dir))?;
    let issuer = authority(dir, now)?;
    for spec in specs {
        issue(dir, &issuer, spec)?;
    }
    Ok(())
}

/// Revoke the certificates `<stem>.pem` in `dir`, which the CA in there issued: writes `crl.pem`, the list of all that were
/// revoked by now. Give it to every process as `--crl`. Blocks on disk.
pub fn revoke_dev(dir: &Path, stems: &[String], now: Timestamp) -> Result<(), Error> {
    let list = dir.join("crl.pem");
    let wrong = |path: &Path, reason: String| Error::Revoke { path: path.to_owned(), reason };
    let issuer = authority(dir, now)?;
    let mut revoked = BTreeMap::new();
    if list.exists() {
        let der = CertificateRevocationListDer::from_pem_slice(read(&list)?.as_bytes());
        let der = der.map_err(|error| wrong(&list, error.to_string()))?;
        let (_, parsed) = CertificateRevocationList::from_der(&der).map_err(|error| wrong(&list, error.to_string()))?;
        for entry in parsed.iter_revoked_certificates() {
            revoked.insert(entry.raw_serial().to_vec(), entry.revocation_date.timestamp());
        }
    }
    for stem in stems {
        let path = dir.join(format!("{stem}.pem"));
        let der = CertificateDer::from_pem_slice(read(&path)?.as_bytes());
        let der = der.map_err(|error| wrong(&path, error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| wrong(&path, error.to_string()))?;
        revoked.insert(parsed.raw_serial().to_vec(), now.as_millis().div_euclid(1000));
    }
    let moment = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let revoked_certs = revoked.into_iter().map(|(serial, at)| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date(moment(at)),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date(now),
        next_update: date(now.after(CA_VALIDITY)),
        // Grows with time, as it has to.
        crl_number: SerialNumber::from(u64::try_from(now.as_millis()).unwrap_or(0)),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = params.signed_by(&issuer).map_err(|error| wrong(&list, error.to_string()))?;
    write(&list, &signed.pem().map_err(|error| wrong(&list, error.to_string()))?, 0o644)
}

fn authority(dir: &Path, now: Timestamp) -> Result<Issuer<'static, KeyPair>, Error> {
    let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    match (cert_path.exists(), key_path.exists()) {
        (true, true) => {
            let unusable = |reason: String| Error::Ca { path: cert_path.clone(), reason };
            check_authority(&read(&cert_path)?, now).map_err(unusable)?;
            let key = KeyPair::from_pem(&read(&key_path)?).map_err(|error| unusable(error.to_string()))?;
            // Only name and key go into what it issues, and the name is always ours.
            return Ok(Issuer::new(authority_params(now), key));
        }
        (true, false) => return Err(Error::HalfCa { present: cert_path, missing: key_path }),
        (false, true) => return Err(Error::HalfCa { present: key_path, missing: cert_path }),
        (false, false) => {}
    }
    let failed = |error: rcgen::Error| Error::Ca { path: cert_path.clone(), reason: error.to_string() };
    let key = KeyPair::generate().map_err(failed)?;
    let params = authority_params(now);
    let certificate = params.self_signed(&key).map_err(failed)?;
    // The key first: a certificate without its key would be the half that cannot be made again.
    write(&key_path, &key.serialize_pem(), 0o600)?;
    write(&cert_path, &certificate.pem(), 0o644)?;
    Ok(Issuer::new(params, key))
}

const CA_NAME: &str = "Causeway development CA";

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = date(Timestamp::from_millis(now.as_millis() - CLOCK_SKEW.as_millis() as i64));
    params.not_after = date(now.after(CA_VALIDITY));
    params
}

fn check_authority(pem: &str, now: Timestamp) -> Result<(), String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if name != Some(CA_NAME) {
        return Err(format!("it is not {CA_NAME:?}"));
    }
    if parsed.validity().not_after.timestamp().saturating_mul(1000) < now.as_millis() {
        return Err("it has expired".to_owned());
    }
    Ok(())
}

fn issue(dir: &Path, issuer: &Issuer<'_, KeyPair>, spec: &Spec) -> Result<(), Error> {
    let refuse = |reason: String| Error::Spec { stem: spec.stem.clone(), reason };
    if spec.stem.is_empty() || spec.stem == "ca" || spec.stem.contains(['/', '\0']) || spec.stem.starts_with('.') {
        return Err(refuse("the file stem must be a plain file name other than \"ca\"".to_owned()));
    }
    if spec.not_after <= spec.not_before {
        return Err(refuse(format!("its validity ends at {}, before it starts", spec.not_after)));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, spec.stem.as_str());
    let identity = spec.identity.as_str().try_into().map_err(|error: rcgen::Error| refuse(error.to_string()))?;
    params.subject_alt_names = vec![SanType::URI(identity)];
    let always = ["localhost", "127.0.0.1", "::1"];
    let mut hosts: Vec<&str> = always.into_iter().chain(spec.hosts.iter().map(String::as_str)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.try_into().map_err(|_| refuse(format!("{host:?} is no host name")))?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Every process is a server to some and a client to others.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(spec.not_before);
    params.not_after = date(spec.not_after);

    let key = KeyPair::generate().map_err(|error| refuse(error.to_string()))?;
    let certificate = params.signed_by(&key, issuer).map_err(|error| refuse(error.to_string()))?;
    write(&dir.join(format!("{}-key.pem", spec.stem)), &key.serialize_pem(), 0o600)?;
    write(&dir.join(format!("{}.pem", spec.stem)), &certificate.pem(), 0o644)
}

fn date(moment: Timestamp) -> OffsetDateTime {
    // X.509 has no time outside the years 1950 to 9999; what lies beyond is held at the edge.
    let seconds = moment.as_millis().div_euclid(1000).clamp(-631_152_000, 253_402_300_799);
    OffsetDateTime::from_unix_timestamp(seconds).expect("the clamped range is within the years time knows")
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(file("read", path))
}

/// Written beside its place and renamed, so that nobody sees half of it and an old file's wider mode does not survive.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let beside = path.with_extension("pem.new");
    let _ = fs::remove_file(&beside);
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .map_err(file("create", &beside))?;
    out.write_all(text.as_bytes()).map_err(file("write", &beside))?;
    fs::rename(&beside, path).map_err(file("replace", path))
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}
