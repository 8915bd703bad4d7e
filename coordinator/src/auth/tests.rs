//! Tokens: what is taken, what is refused and why; and files that change.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use service::{Env, Timestamp};

use super::jwt::Keys;
use super::names::Name;
use super::tokens::Tokens;
use super::watched::Watched;
use super::*;

const NOW: i64 = 1_800_000_000_000;

fn rules(prefix: &str) -> JwtConfig {
    JwtConfig {
        keys: "unused".into(),
        issuer: "https://id.example".to_owned(),
        audience: "causeway".to_owned(),
        user_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        user_prefix: prefix.to_owned(),
    }
}

/// An issuer's key: the secret half to sign with, and the public half as in a JWKS.
fn key(id: &str) -> (EncodingKey, Value) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let point = pair.public_key_raw();
    let (x, y) = (base64(&point[1..33]), base64(&point[33..65]));
    let public = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "use": "sig", "alg": "ES256"});
    (EncodingKey::from_ec_der(&pair.serialize_der()), public)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(DIGITS[(group >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": ["other", "causeway"], "sub": "ann", "exp": NOW / 1000 + 600, "groups": ["dba"]})
}

fn sign(key: &EncodingKey, id: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES256) };
    encode(&header, claims, key).expect("sign")
}

#[test]
fn a_good_jwt_names_the_user_and_groups() {
    let (secret, public) = key("one");
    let set =
        json!({"keys": [public, {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}, {"kty": "unheard of"}]}).to_string();
    let now = Timestamp::from_millis(NOW);
    let judge = |prefix: &str| {
        let keys = Keys::read(std::slice::from_ref(&set), &rules(prefix)).expect("keys");
        keys.judge(&sign(&secret, Some("one"), &claims()), now).expect("a good token")
    };
    let who = judge("");
    assert_eq!(
        (who.name.clone(), who.groups.iter().map(String::as_str).collect::<Vec<_>>()),
        (Name::User("ann".into()), vec!["dba"])
    );
    let who = judge("idp:");
    assert_eq!((who.name.to_string().as_str(), who.groups.contains("idp:dba")), ("user:idp:ann", true));
}

#[test]
fn every_other_jwt_is_refused_with_the_reason() {
    let ((secret, public), (stranger, _)) = (key("one"), key("one"));
    let set = json!({"keys": [public]}).to_string();
    let keys = Keys::read(std::slice::from_ref(&set), &rules("")).expect("keys");
    let now = Timestamp::from_millis(NOW);
    let refused = |token: &str, part: &str| {
        let why = keys.judge(token, now).expect_err(part).0;
        assert!(why.contains(part), "{part} in {why}");
    };
    let with = |field: &str, value: Value| {
        let mut claims = claims();
        claims[field] = value;
        sign(&secret, Some("one"), &claims)
    };
    refused(&sign(&stranger, Some("one"), &claims()), "signature");
    refused(&sign(&secret, Some("two"), &claims()), "JWKS");
    refused(&with("iss", json!("https://evil.example")), "issued");
    refused(&with("aud", json!("other")), "meant");
    refused(&with("aud", Value::Null), "meant");
    refused(&with("exp", json!(NOW / 1000 - 61)), "expired");
    // A date that is no number must not pass for none.
    for no_date in [json!("2099-01-01"), Value::Null, json!([1])] {
        assert!(keys.judge(&with("exp", no_date.clone()), now).is_err(), "{no_date}");
    }
    assert!(keys.judge(&with("nbf", json!("yesterday")), now).is_err());
    refused(&with("nbf", json!(NOW / 1000 + 120)), "not valid yet");
    refused(&with("sub", json!("")), "empty");
    refused(&with("sub", json!("a\nb")), "control");
    refused(&with("groups", json!([1])), "groups");
    refused("a.b.c", "no JWT");
    refused(&"x".repeat(20_000), "too long");

    // Signed with the public key as if it were a password, which whoever trusts the header takes.
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    let forged = encode(&header, &claims(), &EncodingKey::from_secret(set.as_bytes())).expect("sign");
    refused(&forged, "public-key");
    let unsigned = format!("{}.{}.", base64(br#"{"alg":"none"}"#), base64(claims().to_string().as_bytes()));
    refused(&unsigned, "no JWT");
    // The same claims under a good signature are taken, so it is not the test that is wrong.
    assert!(keys.judge(&with("nbf", json!(NOW / 1000)), now).is_ok());
}

#[test]
fn sets_without_a_usable_key_are_told() {
    for (set, part) in [
        ("", "JSON"),
        ("{}", "keys"),
        (r#"{"keys": []}"#, "no public key"),
        (r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#, "no public key"),
    ] {
        let why = Keys::read(&[set.to_owned()], &rules("")).err().expect(part);
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[test]
fn tokens_are_found_by_their_hash_alone() {
    // printf %s secret | sha256sum
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let file =
        format!("[[token]]\nuser = \"ann\"\ngroups = [\"dba\"]\nsha256 = \"{hash}\"\nexpires = 2027-01-01T00:00:00Z\n");
    let tokens = Tokens::read(std::slice::from_ref(&file)).expect("a good file");
    let ann = tokens.find("secret").expect("ann's");
    assert_eq!(ann.name, Name::User("ann".to_owned()));
    assert_eq!(ann.expires.map(|at| at.to_string()).as_deref(), Some("2027-01-01T00:00:00Z"));
    assert!(tokens.find("Secret").is_none() && tokens.find(hash).is_none() && tokens.find("").is_none());
    for (file, part) in [
        (file.repeat(2), "twice"),
        (file.replace(hash, "abc"), "64 hexadecimal"),
        (file.replace("sha256", "token"), "token"),
        (file.replace("2027-01-01T00:00:00Z", "2027-01-01"), "expires"),
        (file.replace("ann", ""), "empty"),
    ] {
        let why = Tokens::read(&[file]).err().expect(part);
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[tokio::test]
async fn changed_files_are_taken_up_when_they_are_good_and_have_settled() {
    let (env, dir) = (Env::real(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("number");
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("write");
    write(&path, "1");
    let read = |texts: &[String]| texts[0].parse::<u32>().map_err(|error| error.to_string());
    let watched = Watched::open(&env, "number", vec![path.clone()], Box::new(read)).await.expect("a good file");
    write(&path, "2");
    watched.look(&env).await;
    assert_eq!(*watched.current(), 1, "it may still be written to");
    write(&path, "23");
    watched.look(&env).await;
    assert_eq!(*watched.current(), 1, "it was");
    watched.look(&env).await;
    assert_eq!((*watched.current(), watched.version()), (23, 1));
    for bad in [Some("no number"), None] {
        match bad {
            Some(text) => write(&path, text),
            None => std::fs::remove_file(&path).expect("remove"),
        }
        for _ in 0..3 {
            watched.look(&env).await;
        }
        assert_eq!((*watched.current(), watched.version()), (23, 1), "the one before stays in use");
    }
    write(&path, "4");
    for _ in 0..2 {
        watched.look(&env).await;
    }
    assert_eq!(*watched.current(), 4);
    let text = match Watched::open(&env, "number", vec![dir.path().join("none")], Box::new(read)).await {
        Ok(_) => panic!("there is no such file"),
        Err(error) => error.to_string(),
    };
    assert!(text.contains("none") && text.contains("number"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_written_down_does_not_happen() {
    let (env, dir) = (Env::real(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("audit/log");
    let config = AuthConfig { audit: Some(path.clone()), ..AuthConfig::default() };
    let text = Auth::open(&env, &config).await.err().expect("there is no such directory").to_string();
    assert!(text.contains("--audit"), "{text}");
    std::fs::create_dir(dir.path().join("audit")).expect("make it");
    let auth = Auth::open(&env, &config).await.expect("open");
    let audit = auth.audit.as_ref().expect("an audit log");
    std::fs::remove_dir_all(dir.path().join("audit")).expect("remove it");
    let line = || audit::Line::test("Probe");
    while !audit.is_full() {
        audit.write(&line());
    }
    assert!(!audit.flush().await, "there is nowhere to write");
    assert!(audit.is_full(), "nothing is lost meanwhile");
    std::fs::create_dir(dir.path().join("audit")).expect("make it again");
    assert!(audit.flush().await && !audit.is_full());
    let written = std::fs::read_to_string(&path).expect("read");
    assert!(written.lines().count() >= 10_000 && written.lines().all(|line| line.contains("\"Probe\"")));
}
