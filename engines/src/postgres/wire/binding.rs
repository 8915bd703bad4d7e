//! What SCRAM-SHA-256-PLUS binds a login to: the hash of the server's certificate.

use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// The hash that RFC 5929 names `tls-server-end-point`: the certificate under the hash of its own signature, and SHA-256 in
/// place of MD5 and SHA-1. `None` for signatures that name no hash (Ed25519); such a login is not bound.
pub(super) fn hash(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // MD5, SHA-1 and SHA-256, each with RSA; SHA-1 and SHA-256 with ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}
