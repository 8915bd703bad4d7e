//! Certificates that are no good are named at the start, with the remedy; good ones are read and renewed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::{Error, Identity, Tls, TlsFiles};
use crate::Shutdown;
use crate::certs::{self, Spec, issue_dev};
use crate::env::Env;
use crate::fixture::{CLIENT, Hasty, SERVER, authority, days_from_now, env_off_by, tls};

fn fresh_authority() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    dir
}

async fn error_of(env: &Env, files: TlsFiles) -> (Error, String) {
    let error = Tls::load(env, files).await.expect_err("these files are no good");
    let text = error.to_string();
    (error, text)
}

#[tokio::test]
async fn bad_files_are_named_with_the_remedy() {
    let (env, dir) = (Env::real(), fresh_authority());
    let good = || TlsFiles::in_dir(dir.path(), "server");
    let at = |name: &str| dir.path().join(name);

    let (error, text) = error_of(&env, TlsFiles { ca: at("none.pem"), ..good() }).await;
    assert!(matches!(error, Error::Read { what: "CA", .. }), "{text}");
    assert!(text.contains("none.pem") && text.contains("causeway certs"), "{text}");

    fs::write(at("noise.pem"), b"\x00\xffnot PEM at all").unwrap();
    fs::write(at("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    fs::write(at("short.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    fs::write(at("locked.pem"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
        .unwrap();
    for (files, part) in [
        (TlsFiles { ca: at("noise.pem"), ..good() }, "CA file"),
        (TlsFiles { cert: at("noise.pem"), ..good() }, "BEGIN CERTIFICATE"),
        (TlsFiles { cert: at("broken.pem"), ..good() }, "not PEM"),
        (TlsFiles { cert: at("short.pem"), ..good() }, "cannot be read"),
        (TlsFiles { ca: at("short.pem"), ..good() }, "cannot be read"),
        (TlsFiles { key: at("noise.pem"), ..good() }, "BEGIN PRIVATE KEY"),
        (TlsFiles { key: at("locked.pem"), ..good() }, "is encrypted"),
        (TlsFiles { key: at("server.pem"), ..good() }, "no private key"),
        (TlsFiles { cert: at("server-key.pem"), ..good() }, "no certificate"),
    ] {
        let (error, text) = error_of(&env, files).await;
        assert!(matches!(error, Error::Content { .. }) && text.contains(part), "{text}");
    }

    let (error, text) = error_of(&env, TlsFiles { key: at("client-key.pem"), ..good() }).await;
    assert!(matches!(error, Error::Mismatch { .. }), "{text}");
    assert!(text.contains("client-key.pem") && text.contains("server.pem"), "{text}");
}

#[tokio::test]
async fn certificates_out_of_time_do_not_start() {
    let (env, dir) = (Env::real(), fresh_authority());
    let span = |from, to| Spec::new("late", SERVER, env.now()).valid(days_from_now(from), days_from_now(to));
    issue_dev(dir.path(), &[span(-9, -1)], env.now()).unwrap();
    let (error, text) = error_of(&env, TlsFiles::in_dir(dir.path(), "late")).await;
    assert!(matches!(error, Error::Expired { .. }), "{text}");
    assert!(text.contains("late.pem") && text.contains("causeway certs"), "{text}");

    issue_dev(dir.path(), &[span(1, 9)], env.now()).unwrap();
    let (error, text) = error_of(&env, TlsFiles::in_dir(dir.path(), "late")).await;
    assert!(matches!(error, Error::NotYetValid { .. }) && text.contains("clock"), "{text}");

    // Far enough ahead the authority is out of time too, and the server's certificate is checked first.
    let (error, text) = error_of(&env_off_by(200), TlsFiles::in_dir(dir.path(), "server")).await;
    assert!(matches!(error, Error::Expired { what: "certificate", .. }), "{text}");
}

#[tokio::test]
async fn renewed_files_are_taken_up_and_broken_ones_are_not() {
    let (env, dir) = (Env::real(), fresh_authority());
    let tls = tls(&env, dir.path(), "server").await;
    assert!(tls.identity().matches(SERVER));
    let before = tls.not_after();
    issue_dev(dir.path(), &[Spec::new("server", SERVER, env.now())], env.now()).unwrap();
    tls.reload(&env).await.unwrap();
    assert!(tls.not_after() > before);

    fs::write(dir.path().join("server.pem"), "gone").unwrap();
    let kept = tls.not_after();
    assert!(tls.reload(&env).await.is_err());
    assert_eq!(tls.not_after(), kept);
}

#[tokio::test]
async fn renewals_are_noticed() {
    let (real, dir) = (Env::real(), fresh_authority());
    let env = real.with_clock(Arc::new(Hasty));
    let tls = tls(&env, dir.path(), "server").await;
    let (before, shutdown) = (tls.not_after(), Shutdown::new());
    let following = env.spawn("renewals", tls.clone().follow_renewals(env.clone(), shutdown.clone()));
    issue_dev(dir.path(), &[Spec::new("server", SERVER, env.now())], env.now()).unwrap();
    let noticed = async {
        while tls.not_after() == before {
            tokio::task::yield_now().await;
        }
    };
    real.timeout(Duration::from_secs(10), noticed).await.unwrap();
    shutdown.trigger();
    following.await.unwrap();
}

#[test]
fn development_certificates_reuse_their_authority_and_guard_their_keys() {
    let dir = fresh_authority();
    let now = Env::real().now();
    let ca = fs::read(dir.path().join("ca.pem")).unwrap();
    fs::set_permissions(dir.path().join("client-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    issue_dev(dir.path(), &[Spec::new("client", CLIENT, now).host("db1.example").host("10.0.0.1")], now).unwrap();
    assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), ca);
    for name in ["ca-key.pem", "server-key.pem", "client-key.pem"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    for stem in ["ca", "", "../up", ".hidden"] {
        assert!(matches!(issue_dev(dir.path(), &[Spec::new(stem, CLIENT, now)], now), Err(certs::Error::Spec { .. })));
    }
    let text = issue_dev(dir.path(), &[Spec::new("x", "spiffe://é", now)], now).unwrap_err().to_string();
    assert!(text.contains("\"x\""), "{text}");

    fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
    let text = issue_dev(dir.path(), &[], now).unwrap_err().to_string();
    assert!(text.contains("ca-key.pem") && text.contains("remove both"), "{text}");
}

#[test]
fn identities_match_exactly() {
    let identity = Identity {
        uris: vec![CLIENT.to_owned()],
        dns: vec!["localhost".to_owned()],
        common_name: Some("spiffe://causeway/coordinator".to_owned()),
    };
    assert!(identity.matches(CLIENT) && identity.matches("localhost"));
    // A common name that looks like a URI gives no rights.
    assert!(!identity.matches("spiffe://causeway/coordinator"));
    assert!(!identity.matches("spiffe://causeway/agent-source/wes") && !identity.matches(""));
    assert_eq!(identity.primary(), Some(CLIENT));
    let plain = Identity { common_name: Some("alice".to_owned()), ..Identity::default() };
    assert!(plain.matches("alice"));
    assert!(Identity::from_der(b"\x30\x03abc").is_err());
}
