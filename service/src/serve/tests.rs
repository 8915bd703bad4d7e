//! Real servers on loopback sockets: who calls is known, nobody stalls others, and the end comes in time.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::accept::HANDSHAKES_MAX;
use super::{Error, Peer, ServeOptions, bind, serve, with_standard_services};
use crate::dial::{DialOptions, Dialer};
use crate::env::Env;
use crate::fixture::{CLIENT, SERVER, authority, start, start_with, tls};
use crate::shutdown::Shutdown;
use crate::status;

async fn check(channel: &Channel, service: &str) -> Result<i32, tonic::Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel.clone()).check(request).await.map(|answer| answer.into_inner().status)
}

#[tokio::test]
async fn handlers_see_who_calls() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let env = Env::real();
    let server = start(Some(tls(&env, dir.path(), "server").await)).await;
    let dialer = Dialer::new(env.clone(), Some(tls(&env, dir.path(), "client").await));

    let options = DialOptions::transfer().expecting(SERVER);
    let channel = dialer.connect_with(&server.address, &options).await.unwrap();
    assert_eq!(check(&channel, "").await.unwrap(), 1);
    let peer = server.recorder.peers.lock().unwrap().last().cloned().unwrap();
    assert!(peer.is(CLIENT) && !peer.is(SERVER), "{peer}");
    assert!(peer.addr.unwrap().ip().is_loopback());
    assert!(peer.require(&["spiffe://causeway/coordinator", CLIENT]).is_ok());
    let refused = peer.require(&["spiffe://causeway/coordinator"]).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(status::reason_of(&refused).as_deref(), Some("IDENTITY_NOT_ALLOWED"));

    let wrong = DialOptions::default().expecting("spiffe://causeway/agent-dest/north");
    let error = dialer.connect_with(&server.address, &wrong).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(SERVER) && text.contains("agent-dest/north is expected"), "{text}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn without_tls_there_is_no_identity_and_only_loopback() {
    let env = Env::real();
    let server = start(None).await;
    let channel = Dialer::new(env.clone(), None).connect(&server.address).await.unwrap();
    assert_eq!(check(&channel, "").await.unwrap(), 1);
    let peer = server.recorder.peers.lock().unwrap().last().cloned().unwrap();
    assert!(peer.identity.is_none() && peer.require(&["spiffe://causeway/coordinator"]).is_ok());

    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7443"] {
        let text = bind(&env, address, false).await.err().unwrap().to_string();
        assert!(text.contains("plain text") && text.contains("--cert"), "{text}");
    }
    // A listener that did not come from `bind` is held to the same rule.
    let open = env.listen("0.0.0.0:0").await.unwrap();
    let options = ServeOptions::default();
    let served = serve(&env, open, None, Routes::default(), &options, Shutdown::new());
    let served = env.timeout(Duration::from_secs(3), served).await.unwrap();
    assert!(matches!(served, Err(Error::PlainText { .. })), "{served:?}");
}

#[tokio::test]
async fn addresses_that_cannot_be_bound_say_what_to_do() {
    let env = Env::real();
    let taken = bind(&env, "127.0.0.1:0", false).await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = bind(&env, &address, false).await.err().unwrap().to_string();
    assert!(text.contains(&address) && text.contains("another process uses this port"), "{text}");
    let text = bind(&env, "192.0.2.1:7443", true).await.err().unwrap().to_string();
    assert!(text.contains("no such address"), "{text}");
    for nonsense in ["", "7443", "localhost", "::1:7443", "host:port", ":0"] {
        assert!(matches!(bind(&env, nonsense, true).await, Err(Error::Address { .. })), "{nonsense}");
    }
}

#[tokio::test]
async fn stalled_handshakes_block_nobody() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let env = Env::real();
    let server = start(Some(tls(&env, dir.path(), "server").await)).await;
    let mut stalled = Vec::new();
    for _ in 0..HANDSHAKES_MAX + 40 {
        stalled.push(env.dial(&server.address).await.unwrap());
    }
    let dialer = Dialer::new(env.clone(), Some(tls(&env, dir.path(), "client").await));
    // Well below the time limit of a handshake: nothing waits for the stalled ones.
    for _ in 0..3 {
        env.timeout(Duration::from_secs(3), dialer.connect(&server.address)).await.unwrap().unwrap();
    }
}

/// Waits until the other side has ended a connection; whatever it says before is read.
async fn until_ended(env: &Env, mut io: Box<dyn crate::env::Io>) {
    let read = async { while io.read_u8().await.is_ok() {} };
    env.timeout(Duration::from_secs(20), read).await.expect("it is ended");
}

#[tokio::test]
async fn connections_on_which_nothing_happens_are_ended() {
    let env = Env::real();
    let short = Duration::from_millis(300);
    let options = ServeOptions { first_words: short, idle: Duration::from_secs(3600), ..ServeOptions::default() };
    let server = start_with(None, "127.0.0.1:0", options).await;
    until_ended(&env, env.dial(&server.address).await.unwrap()).await;

    let options = ServeOptions { idle: short, ..ServeOptions::default() };
    let server = start_with(None, "127.0.0.1:0", options).await;
    // Says what HTTP/2 begins with, and then nothing.
    let mut mute = env.dial(&server.address).await.unwrap();
    mute.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    until_ended(&env, mute).await;
    // A call that goes on, and be it without a word, keeps its connection.
    let channel = Dialer::new(env.clone(), None).connect(&server.address).await.unwrap();
    let mut watch = HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.next().await.unwrap().is_ok());
    env.sleep(short * 4).await;
    check(&channel, "").await.unwrap();
    let ports =
        || server.recorder.peers.lock().unwrap().iter().map(|peer| peer.addr.unwrap().port()).collect::<Vec<_>>();
    assert_eq!(ports().iter().collect::<std::collections::BTreeSet<_>>().len(), 1, "one connection all the time");
    // And whoever comes back after a pause just dials again.
    drop(watch);
    env.sleep(short * 4).await;
    check(&channel, "").await.unwrap();
    let ports = ports();
    assert_ne!(ports.first(), ports.last(), "{ports:?}");
}

#[tokio::test]
async fn one_caller_takes_no_more_than_its_share_of_connections() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let env = Env::real();
    let options = ServeOptions { connections_per_peer: 3, ..ServeOptions::default() };
    let server = start_with(Some(tls(&env, dir.path(), "server").await), "127.0.0.1:0", options).await;
    let greedy = Dialer::new(env.clone(), Some(tls(&env, dir.path(), "client").await));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(greedy.connect(&server.address).await.unwrap());
    }
    greedy.connect(&server.address).await.expect_err("a fourth");
    // Somebody else, from the same machine.
    let other = Dialer::new(env.clone(), Some(tls(&env, dir.path(), "server").await));
    other.connect(&server.address).await.unwrap();
    // And what is given back can be had again.
    held.pop();
    let again = async {
        while greedy.connect(&server.address).await.is_err() {
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(Duration::from_secs(20), again).await.unwrap();
}

#[tokio::test]
async fn clients_without_a_certificate_are_let_in_only_where_it_is_open_and_prove_nothing() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let env = Env::real();
    let server_tls = tls(&env, dir.path(), "server").await;
    let ca = dir.path().join("ca.pem");
    let unproven = Dialer::new(env.clone(), Some(crate::Tls::load_unproven(&env, ca, None).await.unwrap()));
    let closed = start(Some(server_tls.clone())).await;
    let text = unproven.connect(&closed.address).await.unwrap_err().to_string();
    assert!(text.contains("demands a client certificate"), "{text}");

    let options = ServeOptions { open: true, ..ServeOptions::default() };
    let open = start_with(Some(server_tls), "127.0.0.1:0", options).await;
    unproven.connect(&open.address).await.unwrap();
    let peer = open.recorder.peers.lock().unwrap().last().cloned().unwrap();
    assert!(peer.unproven && peer.identity.is_none(), "{peer:?}");
    assert!(peer.to_string().contains("without a certificate"), "{peer}");
    // It must not pass for a plain-text peer on loopback.
    assert_eq!(peer.require(&[CLIENT]).unwrap_err().code(), Code::Unauthenticated);
    let proven = Dialer::new(env.clone(), Some(tls(&env, dir.path(), "client").await));
    proven.connect(&open.address).await.unwrap();
    let peer = open.recorder.peers.lock().unwrap().last().cloned().unwrap();
    assert!(!peer.unproven && peer.require(&[CLIENT]).is_ok());
}

#[tokio::test]
async fn shutdown_lets_calls_end() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let env = Env::real();
    let server = start(Some(tls(&env, dir.path(), "server").await)).await;
    let dialer = Dialer::new(env.clone(), Some(tls(&env, dir.path(), "client").await));
    let channel = dialer.connect(&server.address).await.unwrap();
    let slow = tokio::spawn(async move { check(&channel, "slow").await });
    server.recorder.slow_begun.notified().await;

    server.shutdown.trigger();
    // The port closes at once, while the call is still under way.
    let refused = async {
        while env.dial(&server.address).await.is_ok() {
            env.sleep(Duration::from_millis(5)).await;
        }
    };
    env.timeout(Duration::from_secs(5), refused).await.unwrap();
    assert!(!server.task.is_finished());
    server.recorder.release.notify_one();
    assert_eq!(slow.await.unwrap().unwrap(), 1);
    env.timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_cuts_off_what_does_not_end() {
    let env = Env::real();
    let options = ServeOptions { drain: Duration::from_millis(200), ..ServeOptions::default() };
    let server = start_with(None, "127.0.0.1:0", options).await;
    let channel = Dialer::new(env.clone(), None).connect(&server.address).await.unwrap();
    let request = HealthCheckRequest::default();
    let mut watch = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    assert!(watch.next().await.unwrap().is_ok());

    let begun = Instant::now();
    server.shutdown.trigger();
    env.timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    let end = env.timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap().unwrap_err();
    assert!(status::is_transport(&end) && status::retryable(&end), "{end:?}");
}

#[tokio::test]
async fn a_dropped_server_drops_its_connections() {
    let env = Env::real();
    let server = start(None).await;
    let channel = Dialer::new(env.clone(), None).connect(&server.address).await.unwrap();
    let mut watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.next().await.unwrap().is_ok());
    server.task.abort();
    let end = env.timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap().unwrap_err();
    assert!(status::is_transport(&end), "{end:?}");
}

#[tokio::test]
async fn health_and_both_reflections_answer() {
    let env = Env::real();
    let listener = bind(&env, "127.0.0.1:0", false).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let descriptors = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let (routes, health) = with_standard_services(Routes::default(), descriptors, &["causeway.v1.Test"]).await.unwrap();
    let shutdown = Shutdown::new();
    let serving = tokio::spawn({
        let (env, shutdown) = (env.clone(), shutdown.clone());
        async move { serve(&env, listener, None, routes, &ServeOptions::default(), shutdown).await }
    });
    let channel = Dialer::new(env.clone(), None).connect(&address).await.unwrap();
    assert_eq!(check(&channel, "").await.unwrap(), 1);
    assert_eq!(check(&channel, "causeway.v1.Test").await.unwrap(), 1);
    health.set_serving(false).await;
    assert_eq!(check(&channel, "causeway.v1.Test").await.unwrap(), 2);
    assert_eq!(check(&channel, "causeway.v1.Other").await.unwrap_err().code(), Code::NotFound);

    let wanted = ["causeway.v1.Test", "grpc.health.v1.Health"];
    {
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(channel.clone());
        let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        assert!(wanted.iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    }
    {
        use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1alpha::{ServerReflectionRequest, server_reflection_response::MessageResponse};
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(channel.clone());
        let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
        assert!(list.service.iter().any(|service| service.name == wanted[0]));
    }
    shutdown.trigger();
    drop(channel);
    env.timeout(Duration::from_secs(5), serving).await.unwrap().unwrap().unwrap();

    let broken = with_standard_services(Routes::default(), b"\xff\xff", &[]).await;
    assert!(matches!(broken, Err(Error::Reflection(_))), "{:?}", broken.err());
}

#[test]
fn a_call_within_the_process_has_no_peer() {
    let peer = super::peer_of(&Request::new(()));
    assert!(peer.addr.is_none() && peer.identity.is_none());
    assert_eq!(Peer::default().to_string(), "this process");
}
