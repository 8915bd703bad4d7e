//! What went wrong with a TLS connection, in words a user can act on.

use rustls::{AlertDescription, CertificateError, Error};

use crate::env::Timestamp;

/// What happened and what to do about it. `peer` is the other side, as the user knows it.
///
/// Errors found here speak of the peer's certificate; alerts are the peer's complaint about ours.
pub fn explain(error: &Error, peer: &str) -> (String, String) {
    let (what, remedy) = match error {
        Error::InvalidCertificate(problem) => certificate(problem, peer),
        Error::AlertReceived(alert) => received(*alert, peer),
        Error::NoCertificatesPresented => (
            format!("{peer} presents no certificate"),
            "give it --ca, --cert and --key: every connection needs certificates on both sides".to_owned(),
        ),
        Error::PeerIncompatible(_) => {
            (format!("{peer} does not speak TLS 1.3 as needed ({error})"), "update its TLS library".to_owned())
        }
        Error::InvalidMessage(_) => (
            format!("{peer} does not speak TLS"),
            "check the port, and whether that process runs with --insecure".to_owned(),
        ),
        other => (format!("TLS with {peer} fails: {other}"), "check the certificates of both sides".to_owned()),
    };
    (what, remedy)
}

fn certificate(problem: &CertificateError, peer: &str) -> (String, String) {
    use CertificateError::*;
    let clock = "and check the clocks of both machines";
    match problem {
        UnknownIssuer | BadSignature => (
            format!("the certificate of {peer} is not signed by an authority in our --ca file (unknown CA)"),
            "give both sides the same CA, or add that authority to the --ca file".to_owned(),
        ),
        Expired => (format!("the certificate of {peer} has expired"), format!("renew it there {clock}")),
        ExpiredContext { not_after, .. } => (
            format!("the certificate of {peer} expired at {}", moment(not_after.as_secs())),
            format!("renew it there {clock}"),
        ),
        NotValidYet | NotValidYetContext { .. } => {
            (format!("the certificate of {peer} is not valid yet"), "check the clocks of both machines".to_owned())
        }
        NotValidForName => (
            format!("the certificate of {peer} does not name that host"),
            "dial it by a name in its certificate, or issue one with this name".to_owned(),
        ),
        NotValidForNameContext { expected, presented } => (
            format!(
                "the certificate of {peer} does not name {}, only {}",
                expected.to_str(),
                if presented.is_empty() { "nothing".to_owned() } else { presented.join(", ") }
            ),
            "dial it by a name in its certificate, or issue one with this name".to_owned(),
        ),
        Revoked => (
            format!("the certificate of {peer} has been revoked"),
            "issue a new one there, or take it off the --crl list if it was revoked by mistake".to_owned(),
        ),
        InvalidPurpose | InvalidPurposeContext { .. } => (
            format!("the certificate of {peer} may not be used for this"),
            "issue one with both serverAuth and clientAuth as extended key usage".to_owned(),
        ),
        other => (format!("the certificate of {peer} is refused: {other:?}"), "issue a new one".to_owned()),
    }
}

fn received(alert: AlertDescription, peer: &str) -> (String, String) {
    use AlertDescription::*;
    match alert {
        CertificateRequired => (
            format!("{peer} demands a client certificate"),
            "give --ca, --cert and --key: every connection needs certificates on both sides".to_owned(),
        ),
        // rustls answers DecryptError to a bad signature, which is how a namesake of its CA looks to it.
        UnknownCA | DecryptError => (
            format!("{peer} does not know the authority that signed our certificate (unknown CA)"),
            "give both sides the same CA, or add ours to its --ca file".to_owned(),
        ),
        CertificateExpired => (
            format!("{peer} says our certificate has expired"),
            "renew it and check the clocks of both machines".to_owned(),
        ),
        CertificateRevoked => {
            (format!("{peer} says our certificate has been revoked"), "ask its authority for a new one".to_owned())
        }
        BadCertificate | UnsupportedCertificate | CertificateUnknown | AccessDenied => {
            (format!("{peer} refuses our certificate ({alert:?})"), "issue a new one by the CA it trusts".to_owned())
        }
        other => (format!("{peer} refuses the TLS connection ({other:?})"), "see the log of that process".to_owned()),
    }
}

fn moment(seconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
}
