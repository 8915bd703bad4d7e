//! Every way a connection can be refused is told clearly, and lost connections come back.

use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{DialOptions, Dialer, Error, Pool, split};
use crate::certs::{Spec, issue_dev, revoke_dev};
use crate::env::Env;
use crate::fixture::{CLIENT, SERVER, authority, days_from_now, env_off_by, start, start_with, tls};
use crate::serve::ServeOptions;
use crate::{Tls, TlsFiles, status};

fn fresh_authority() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    dir
}

/// Dial a server that has `server` as a client that has `client`, at this host, and say why it fails.
async fn refusal(server: Tls, client: Option<Tls>, host: &str) -> Error {
    let bound = if host == "localhost" { "127.0.0.1" } else { host };
    let running = start_with(Some(server), &format!("{bound}:0"), ServeOptions::default()).await;
    let address = running.address.replace(bound, host);
    let dialer = Dialer::new(Env::real(), client);
    let error = dialer.connect(&address).await.expect_err("the connection is refused");
    assert!(running.recorder.peers.lock().unwrap().is_empty(), "no call came through");
    // A lazy channel tells the same, through the status of its first call.
    let mut lazy = HealthClient::new(dialer.channel(&address).unwrap());
    let status = lazy.check(HealthCheckRequest::default()).await.unwrap_err();
    assert!(status::is_transport(&status));
    let described = status::describe(&status);
    let remedy = error.to_string().rsplit("; ").next().unwrap().to_owned();
    assert!(matches!(error, Error::Connect { .. }) || described.contains(&remedy), "{described} tells: {remedy}");
    error
}

fn assert_tells(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} says {part:?}");
    }
}

#[tokio::test]
async fn wrong_authorities_are_refused_by_either_side() {
    let (env, ours, theirs) = (Env::real(), fresh_authority(), fresh_authority());
    let error =
        refusal(tls(&env, theirs.path(), "server").await, Some(tls(&env, ours.path(), "client").await), "localhost")
            .await;
    assert_tells(&error, &["the certificate of localhost:", "unknown CA", "same CA"]);
    assert!(!error.retryable());

    // The client trusts the server's authority, but the server not the client's.
    std::fs::copy(theirs.path().join("ca.pem"), ours.path().join("ca.pem")).unwrap();
    let error =
        refusal(tls(&env, theirs.path(), "server").await, Some(tls(&env, ours.path(), "client").await), "localhost")
            .await;
    assert_tells(&error, &["does not know the authority that signed our certificate", "same CA"]);
    assert!(!error.retryable());
}

#[tokio::test]
async fn expired_certificates_are_refused_on_either_side() {
    let (env, then, dir) = (Env::real(), env_off_by(-5), fresh_authority());
    let old =
        |stem: &str, identity: &str| Spec::new(stem, identity, then.now()).valid(days_from_now(-9), days_from_now(-2));
    issue_dev(dir.path(), &[old("old-server", SERVER), old("old-client", CLIENT)], then.now()).unwrap();

    // Loaded five days ago, expired since.
    let error =
        refusal(tls(&then, dir.path(), "old-server").await, Some(tls(&env, dir.path(), "client").await), "127.0.0.1")
            .await;
    assert_tells(&error, &["the certificate of 127.0.0.1:", "expired at 2", "renew it there"]);
    let error =
        refusal(tls(&env, dir.path(), "server").await, Some(tls(&then, dir.path(), "old-client").await), "127.0.0.1")
            .await;
    assert_tells(&error, &["says our certificate has expired", "renew it"]);
    assert!(!error.retryable());
}

/// The certificate of `stem`, and the list of what was revoked by its authority.
async fn listed(env: &Env, dir: &std::path::Path, stem: &str) -> Result<Tls, crate::tls::Error> {
    Tls::load(env, TlsFiles { crl: Some(dir.join("crl.pem")), ..TlsFiles::in_dir(dir, stem) }).await
}

#[tokio::test]
async fn revoked_certificates_are_refused_on_either_side() {
    let (env, dir) = (Env::real(), fresh_authority());
    let extra = |stem: &str| Spec::new(stem, CLIENT, days_from_now(-1));
    issue_dev(dir.path(), &[extra("lost"), extra("stolen")], env.now()).unwrap();
    revoke_dev(dir.path(), &["lost".to_owned()], env.now()).unwrap();
    let server = listed(&env, dir.path(), "server").await.unwrap();
    let error = refusal(server.clone(), Some(tls(&env, dir.path(), "lost").await), "localhost").await;
    assert_tells(&error, &["says our certificate has been revoked", "a new one"]);
    assert!(!error.retryable());
    let client = listed(&env, dir.path(), "client").await.unwrap();
    let error = refusal(tls(&env, dir.path(), "lost").await, Some(client), "localhost").await;
    assert_tells(&error, &["the certificate of localhost:", "has been revoked"]);

    // Revoked while its connection is open: that ends, and others go on.
    let running = start(Some(server.clone())).await;
    let connect = async |stem: &str| {
        Dialer::new(env.clone(), Some(tls(&env, dir.path(), stem).await)).connect(&running.address).await
    };
    let (stolen, honest) = (connect("stolen").await.unwrap(), connect("client").await.unwrap());
    let watch = async |channel| {
        let mut watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(watch.next().await.unwrap().is_ok());
        watch
    };
    let (mut ends, mut goes_on) = (watch(stolen).await, watch(honest.clone()).await);
    revoke_dev(dir.path(), &["stolen".to_owned()], env.now()).unwrap();
    server.reload(&env).await.unwrap();
    let end = env.timeout(Duration::from_secs(20), ends.next()).await.expect("it ends").unwrap();
    assert!(status::is_transport(&end.unwrap_err()));
    for stem in ["stolen", "lost"] {
        assert_tells(&connect(stem).await.unwrap_err(), &["has been revoked"]);
    }
    assert!(env.timeout(Duration::from_millis(300), goes_on.next()).await.is_err(), "nothing ends it");
    HealthClient::new(honest).check(HealthCheckRequest::default()).await.unwrap();
}

/// A server whose certificate is revoked while connections to it are open loses them, and its honest neighbour does not.
#[tokio::test]
async fn connections_to_a_server_that_is_revoked_end() {
    let (env, dir) = (Env::real(), fresh_authority());
    issue_dev(dir.path(), &[Spec::new("lost", SERVER, days_from_now(-1))], env.now()).unwrap();
    revoke_dev(dir.path(), &[], env.now()).unwrap();
    let client = listed(&env, dir.path(), "client").await.unwrap();
    let dialer = Dialer::new(env.clone(), Some(client.clone()));
    let watch = async |address: &str| {
        let channel = dialer.connect(address).await.unwrap();
        let mut watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(watch.next().await.unwrap().is_ok());
        watch
    };
    let (lost, honest) = (
        start(Some(tls(&env, dir.path(), "lost").await)).await,
        start(Some(tls(&env, dir.path(), "server").await)).await,
    );
    let (mut ends, mut goes_on) = (watch(&lost.address).await, watch(&honest.address).await);
    revoke_dev(dir.path(), &["lost".to_owned()], env.now()).unwrap();
    client.reload(&env).await.unwrap();
    let end = env.timeout(Duration::from_secs(20), ends.next()).await.expect("it ends").unwrap();
    assert!(status::is_transport(&end.unwrap_err()));
    assert_tells(&dialer.connect(&lost.address).await.unwrap_err(), &["has been revoked"]);
    assert!(env.timeout(Duration::from_millis(300), goes_on.next()).await.is_err(), "nothing ends it");
}

#[tokio::test]
async fn lists_that_are_no_good_are_told_and_old_ones_are_heeded() {
    let (env, dir) = (Env::real(), fresh_authority());
    let list = dir.path().join("crl.pem");
    for (text, part) in [
        ("", "BEGIN X509 CRL"),
        ("-----BEGIN X509 CRL-----\nAAAA", "not PEM"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "cannot be read"),
    ] {
        std::fs::write(&list, text).unwrap();
        let text = listed(&env, dir.path(), "server").await.unwrap_err().to_string();
        assert!(text.contains(part) && text.contains("crl.pem"), "{text}");
    }
    std::fs::remove_file(&list).unwrap();
    assert!(listed(&env, dir.path(), "server").await.unwrap_err().to_string().contains("crl.pem"));
    // Made so long ago that its date is past; the authority is then of that time too.
    let then = env_off_by(-3651);
    let old = tempfile::tempdir().unwrap();
    issue_dev(old.path(), &[], env.now()).unwrap();
    let both = |stem| Spec::new(stem, CLIENT, days_from_now(-1));
    issue_dev(old.path(), &[both("server"), both("client")], env.now()).unwrap();
    revoke_dev(old.path(), &["client".to_owned()], then.now()).unwrap();
    let server = listed(&env, old.path(), "server").await.unwrap();
    let error = refusal(server, Some(tls(&env, old.path(), "client").await), "localhost").await;
    assert_tells(&error, &["has been revoked"]);
}

#[tokio::test]
async fn a_server_by_another_name_is_refused() {
    let (env, dir) = (Env::real(), fresh_authority());
    let error =
        refusal(tls(&env, dir.path(), "server").await, Some(tls(&env, dir.path(), "client").await), "127.0.0.9").await;
    assert_tells(&error, &["does not name 127.0.0.9, only", "localhost", "issue one with this name"]);
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let (env, dir) = (Env::real(), fresh_authority());
    let server = start(Some(tls(&env, dir.path(), "server").await)).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.path().join("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let io = env.dial(&server.address).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), io).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert_tells(
        &Error::handshake("east:7443", error),
        &["east:7443 demands a client certificate", "give --ca, --cert and --key"],
    );
}

#[tokio::test]
async fn plain_text_and_tls_do_not_mix() {
    let (env, dir) = (Env::real(), fresh_authority());
    let client = tls(&env, dir.path(), "client").await;
    let error = refusal(tls(&env, dir.path(), "server").await, None, "127.0.0.1").await;
    assert_tells(&error, &["instead of --insecure"]);

    let plain = start(None).await;
    let error = Dialer::new(env.clone(), Some(client)).connect(&plain.address).await.unwrap_err();
    assert_tells(&error, &["does not speak TLS", "--insecure"]);

    let dialer = Dialer::new(env, None);
    for address in ["192.0.2.1:7443", "db.example:7443", "[2001:db8::1]:7443"] {
        let error = dialer.channel(address).unwrap_err();
        assert_tells(&error, &["plain text", address]);
    }
}

#[tokio::test]
async fn unreachable_addresses_are_told_apart() {
    let env = Env::real();
    let dialer = Dialer::new(env.clone(), None);
    let free = env.listen("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = dialer.connect(&free).await.unwrap_err();
    assert_tells(&error, &[&free, "refused", "check that the process runs"]);
    assert!(error.retryable());

    let dir = fresh_authority();
    let secure = Dialer::new(env.clone(), Some(tls(&env, dir.path(), "client").await));
    let error = secure.connect("no-such-host.invalid:7443").await.unwrap_err();
    assert!(matches!(error, Error::Resolve { .. }) && error.retryable(), "{error}");

    // Accepts and then says nothing.
    let silent = env.listen("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let hasty = DialOptions { connect_timeout: Duration::from_millis(200), ..DialOptions::default() };
    for dialer in [&dialer, &secure] {
        let error = dialer.connect_with(&address, &hasty).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }) && error.retryable(), "{error}");
    }
    for nonsense in
        ["", "east", "east:", ":7443", "east:70000", "east:0", "::1:80", "[east]:80", "a b:80", "ea/st:80", "u@h:80"]
    {
        let error = secure.channel(nonsense).unwrap_err();
        assert!(matches!(error, Error::Address { .. }), "{nonsense}: {error}");
    }
}

#[tokio::test]
async fn a_channel_outlives_a_restart_of_the_server() {
    let (env, dir) = (Env::real(), fresh_authority());
    let server_tls = tls(&env, dir.path(), "server").await;
    let first = start(Some(server_tls.clone())).await;
    let pool = Pool::new(Dialer::new(env.clone(), Some(tls(&env, dir.path(), "client").await)));
    let ask =
        || async { HealthClient::new(pool.get(&first.address).unwrap()).check(HealthCheckRequest::default()).await };
    ask().await.unwrap();
    first.shutdown.trigger();
    first.task.await.unwrap().unwrap();
    let down = ask().await.unwrap_err();
    assert!(status::retryable(&down) && status::is_transport(&down), "{down:?}");
    let second = start_with(Some(server_tls), &first.address, ServeOptions::default()).await;
    ask().await.unwrap();
    assert_eq!(second.recorder.peers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn channels_have_connections_of_their_own_and_the_pool_shares() {
    let env = Env::real();
    let server = start(None).await;
    let dialer = Dialer::new(env, None);
    let pool = Pool::new(dialer.clone());
    let channels = [
        dialer.channel(&server.address).unwrap(),
        dialer.channel(&server.address).unwrap(),
        pool.get(&server.address).unwrap(),
        pool.get(&server.address).unwrap(),
    ];
    for channel in channels {
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    }
    let ports: Vec<u16> = server.recorder.peers.lock().unwrap().iter().map(|peer| peer.addr.unwrap().port()).collect();
    assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[2] == ports[3], "{ports:?}");
}

#[test]
fn addresses_split() {
    assert_eq!(split("db2.example:7443"), Some(("db2.example", 7443)));
    assert_eq!(split("[::1]:80"), Some(("::1", 80)));
    assert_eq!(split("10.0.0.1:65535"), Some(("10.0.0.1", 65535)));
}
