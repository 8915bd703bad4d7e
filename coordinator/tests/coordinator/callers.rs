//! Who gets in at all, how much they may ask, and what happens when their rights change.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proto::v1::{self, Kind};
use tonic::Code;

use crate::cluster::{PATIENCE, assert_refused, client};
use crate::rights::{Guarded, ISSUER, bearer, entry, secret};

fn list() -> v1::ListOperationsRequest {
    v1::ListOperationsRequest::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_no_good_are_refused() {
    let guarded = Guarded::start().await;
    let address = &guarded.cluster.address;
    for (header, reason) in [
        ("Bearer guess", "TOKEN_REFUSED"),
        ("Bearer a.b.c", "TOKEN_REFUSED"),
        ("Bearer ", "TOKEN_MALFORMED"),
        ("Basic cm9vdDpyb290", "TOKEN_MALFORMED"),
        (secret("root").as_str(), "TOKEN_MALFORMED"),
    ] {
        let refused = client(address, header).list_operations(list()).await;
        let refused = assert_refused(refused, Code::Unauthenticated, reason);
        assert!(service::status::remedy_of(&refused).is_some(), "{refused:?}");
    }
    // A user whose token has run out, and one whose token is taken away.
    let tokens = guarded.file("tokens.toml");
    let kept = std::fs::read_to_string(&tokens).unwrap();
    let text = kept.replace(&entry("ann", ""), &entry("ann", "expires = 2020-01-01T00:00:00Z"));
    std::fs::write(&tokens, text.replace(&entry("reader", ""), "")).unwrap();
    let begun = Instant::now();
    for (user, part) in [("reader", "not known"), ("ann", "expired at 2020-01-01")] {
        loop {
            match guarded.as_user(user).list_operations(list()).await {
                Err(refused) => {
                    assert_eq!(refused.code(), Code::Unauthenticated);
                    assert!(refused.message().contains(part), "{refused:?}");
                    break;
                }
                Ok(_) => assert!(begun.elapsed() < PATIENCE, "{user} still gets in"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    guarded.as_user("root").list_operations(list()).await.unwrap();
}

/// Signs with the key of RFC 8037, A.1.
fn jwt(claims: &serde_json::Value) -> String {
    let mut der: Vec<u8> = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    der.extend((0..seed.len()).step_by(2).map(|at| u8::from_str_radix(&seed[at..at + 2], 16).unwrap()));
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, claims, &EncodingKey::from_ed_der(&der)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_identity_provider_is_as_good_as_one_of_the_file() {
    let guarded = Guarded::start().await;
    let cluster = &guarded.cluster;
    let soon = service::Env::real().now().as_millis() / 1000 + 600;
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": "causeway", "email": "ann@example", "exp": soon, "groups": ["team-shop", "everybody"],
    });
    let as_who = |claims: &serde_json::Value| client(&cluster.address, &format!("Bearer {}", jwt(claims)));
    let mut ann = as_who(&claims);
    let me = ann.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.principal.as_str(), me.proof.as_str()), ("user:idp:ann@example", "jwt"));
    assert_eq!(me.groups, ["idp:everybody", "idp:team-shop", "shop"]);
    ann.start_operation(cluster.request(Kind::Move, &["a"])).await.unwrap();
    // The provider cannot name our own users: this one is not our ann, nor root.
    for name in ["ann", "root"] {
        let mut claims = claims.clone();
        (claims["email"], claims["groups"]) = (name.into(), serde_json::json!([]));
        let request = cluster.request(Kind::Move, &["b"]);
        assert_refused(as_who(&claims).start_operation(request).await, Code::PermissionDenied, "RIGHT_MISSING");
    }
    let mut late = claims.clone();
    late["exp"] = (soon - 700).into();
    let refused = assert_refused(as_who(&late).list_operations(list()).await, Code::Unauthenticated, "TOKEN_REFUSED");
    assert!(refused.message().contains("expired"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_ends_a_watch() {
    let guarded = Guarded::start().await;
    let cluster = &guarded.cluster;
    cluster.world.lock().hold_seed = true;
    let id = cluster.start_move("a").await;
    let watch = v1::WatchOperationsRequest { ids: vec![id.clone()], ..Default::default() };
    let mut updates = guarded.as_user("reader").watch_operations(watch).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some());
    let policy = guarded.file("policy.cedar");
    let kept = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, kept.replace("Database::\"east/a\"", "Database::\"east/other\"")).unwrap();
    let ended = async {
        loop {
            match updates.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the watch ends without a word"),
                Err(status) => return status,
            }
        }
    };
    // News keep coming while the seed is held: the agents' progress is told again and again.
    let nudge = async {
        loop {
            cluster.world.lock().lag_bytes += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let status = tokio::select! {
        status = tokio::time::timeout(PATIENCE, ended) => status.expect("it ends"),
        () = nudge => unreachable!("it never ends"),
    };
    assert_refused::<()>(Err(status), Code::NotFound, "OPERATION_NOT_FOUND");
    // A policy that cannot be read changes nothing.
    std::fs::write(&policy, "permit (").unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    guarded.as_user("root").get_operation(v1::GetOperationRequest { id }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_floods_harms_nobody_else() {
    let guarded = Guarded::with(|auth| (auth.requests_per_second, auth.requests_at_once) = (50, 8)).await;
    let cluster = &guarded.cluster;
    let id = cluster.start_move("a").await;
    cluster.ready(&id).await;
    // Watches that are opened and never read.
    let watch = v1::WatchOperationsRequest { ids: vec![id.clone()], ..Default::default() };
    let mut stalled = Vec::new();
    let refused = loop {
        match guarded.as_user("reader").watch_operations(watch.clone()).await {
            Ok(updates) => stalled.push(updates),
            Err(status) => break status,
        }
        assert!(stalled.len() <= 8, "more at once than are allowed");
    };
    assert_eq!(stalled.len(), 8);
    assert_refused::<()>(Err(refused), Code::ResourceExhausted, "TOO_MANY_AT_ONCE");
    // A flood over many connections.
    let flood: Vec<_> = (0..8)
        .map(|_| {
            let mut mallory = guarded.as_user("nobody");
            tokio::spawn(async move {
                let (mut through, mut limited) = (0, 0);
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(2) {
                    match mallory.list_operations(list()).await {
                        Ok(_) => through += 1,
                        Err(status) if status.code() == Code::ResourceExhausted => {
                            assert!(service::status::retry_after_of(&status).is_some(), "{status:?}");
                            limited += 1;
                        }
                        Err(status) => panic!("{status:?}"),
                    }
                }
                (through, limited)
            })
        })
        .collect();
    // Meanwhile others are served.
    let mut ann = guarded.as_user("ann");
    for _ in 0..10 {
        tokio::time::timeout(PATIENCE, ann.list_operations(list())).await.expect("in time").unwrap();
    }
    cluster.complete(&id).await;
    cluster.succeeded(&id).await;
    let (mut through, mut limited) = (0, 0);
    for task in flood {
        let (some, more) = task.await.unwrap();
        (through, limited) = (through + some, limited + more);
    }
    // A burst of two seconds, and two seconds or, on a machine that is slow to end them, some more.
    assert!((100..2_000).contains(&through) && limited > 100, "{through} through, {limited} limited");
    // Those turned away are one figure in the log, not a line each.
    drop(stalled);
    tokio::time::sleep(Duration::from_millis(200)).await;
    guarded.as_user("nobody").list_operations(list()).await.unwrap();
    let lines =
        guarded.audit(|line| line["principal"] == "user:nobody" && line["turned_away"].as_u64() > Some(0)).await;
    let of_nobody: Vec<_> = lines.iter().filter(|line| line["principal"] == "user:nobody").collect();
    assert!(of_nobody.len() <= through + 1, "{} lines for {through} requests", of_nobody.len());
    let turned_away: u64 = of_nobody.iter().filter_map(|line| line["turned_away"].as_u64()).sum();
    assert_eq!(turned_away, limited, "every one is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_is_bounded_too() {
    let guarded = Guarded::with(|auth| auth.requests_per_second = 20).await;
    let mut mallory = client(&guarded.cluster.address, "Bearer guess");
    let begun = Instant::now();
    let mut limited = false;
    while !limited {
        let refused = mallory.list_operations(list()).await.unwrap_err();
        limited = refused.code() == Code::ResourceExhausted;
        assert!(limited || refused.code() == Code::Unauthenticated, "{refused:?}");
        assert!(begun.elapsed() < PATIENCE, "guesses without end");
    }
    // Whoever has a token comes in from the same address.
    client(&guarded.cluster.address, &bearer("ann")).list_operations(list()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_a_size() {
    let guarded = Guarded::start().await;
    let mut request = guarded.cluster.request(Kind::Move, &["a"]);
    request.request_id = "x".repeat(300 << 10);
    let refused = guarded.as_user("ann").start_operation(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    // Headers, too: the token is one.
    let long = format!("Bearer {}", "x".repeat(40 << 10));
    let refused = client(&guarded.cluster.address, &long).list_operations(list()).await.unwrap_err();
    assert!(refused.code() != Code::Ok && refused.code() != Code::Unauthenticated, "{refused:?}");
    guarded.as_user("ann").list_operations(list()).await.unwrap();
}
