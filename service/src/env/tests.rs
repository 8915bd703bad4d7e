//! Ids, time, blocking work and tasks of the environment.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Backoff, Env, ResolveError, Timestamp, host_is_loopback};

#[test]
fn ids_are_well_formed_and_differ() {
    let env = Env::real();
    let (a, b) = (env.uuid_v7(), env.uuid_v7());
    assert_ne!(a, b);
    let parsed = uuid::Uuid::parse_str(&a).unwrap();
    assert_eq!(parsed.get_version_num(), 7);
    let (seconds, _) = parsed.get_timestamp().unwrap().to_unix();
    assert!(env.now().since(Timestamp::from_millis(seconds as i64 * 1000)) < Duration::from_secs(60));
    let token = env.token();
    assert_eq!(token.len(), 32);
    assert!(token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(token, env.token());
}

#[test]
fn jitter_and_backoff_stay_within_bounds() {
    let env = Env::real();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut expected = Duration::from_millis(100);
    for _ in 0..40 {
        let delay = backoff.next_delay(&env);
        assert!(delay >= expected.mul_f64(0.79) && delay <= Duration::from_secs(1), "{delay:?} for {expected:?}");
        expected = (expected * 2).min(Duration::from_secs(1));
    }
    backoff.reset();
    assert!(backoff.next_delay(&env) <= Duration::from_millis(120));
}

#[tokio::test]
async fn time_follows_the_clock() {
    let env = Env::real();
    let start = env.monotonic();
    let limit = Duration::from_millis(20);
    assert!(env.timeout(limit, std::future::pending::<()>()).await.is_err());
    assert_eq!(env.timeout(limit, async { 7 }).await, Ok(7));
    let mut ticks = env.interval(limit);
    for _ in 0..4 {
        ticks.tick().await;
    }
    let passed = env.monotonic() - start;
    assert!(passed >= 4 * limit && passed < Duration::from_secs(10), "{passed:?}");
}

#[tokio::test]
async fn blocking_work_answers_and_its_panic_travels() {
    let env = Env::real();
    assert_eq!(env.blocking(|| 6 * 7).await, 42);
    let joined = env.spawn("doomed", {
        let env = env.clone();
        async move { env.blocking(|| -> u8 { panic!("on purpose") }).await }
    });
    assert!(joined.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn dial_and_listen_over_loopback() {
    let env = Env::real();
    let mut listener = env.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut client = env.dial(&address).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"over").await.unwrap();
    let mut four = [0; 4];
    server.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"over");
    let failure = env.dial("no-such-host.invalid:1").await.err().unwrap();
    assert!(failure.get_ref().unwrap().is::<ResolveError>(), "{failure}");
}

#[test]
fn loopback_is_recognised() {
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1"] {
        assert!(host_is_loopback(host), "{host}");
    }
    for host in ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "example"] {
        assert!(!host_is_loopback(host), "{host}");
    }
}

#[test]
fn timestamps_read_well() {
    let moment = Timestamp::from_millis(1_718_824_965_123);
    assert_eq!(moment.to_string(), "2024-06-19T19:22:45.123Z");
    assert_eq!(moment.after(Duration::from_secs(1)).since(moment), Duration::from_secs(1));
    assert_eq!(moment.since(moment.after(Duration::MAX)), Duration::ZERO);
}
