//! JSON Web Tokens of an identity provider, judged by its public keys from a file (JWKS). Nothing is fetched.

use std::collections::BTreeSet;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use service::Timestamp;

use super::config::JwtConfig;
use super::names::{self, Name, Principal, Proof};

/// Clocks of issuer and coordinator may differ by so much.
const LEEWAY_MS: i64 = 60_000;
/// Longest token that is looked at: larger ones carry what is of no use here, and headers are bounded anyway.
const TOKEN_BYTES_MAX: usize = 12 << 10;
/// Most groups of one token: each costs time with every question.
const GROUPS_MAX: usize = 200;

/// The issuer's keys, and what its tokens must say.
pub(super) struct Keys {
    keys: Vec<Key>,
    rules: JwtConfig,
}

struct Key {
    id: Option<String>,
    /// The one algorithm it is for, if it says so.
    algorithm: Option<String>,
    key: DecodingKey,
}

/// Why a token is not taken. The text goes to the log and the caller; it holds nothing of the token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

impl Keys {
    /// The text of the JWKS file.
    pub(super) fn read(texts: &[String], rules: &JwtConfig) -> Result<Self, String> {
        let set: Value = serde_json::from_str(texts.first().map_or("", String::as_str))
            .map_err(|error| format!("it is not JSON: {error}"))?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or("it is no JWKS: it has no array \"keys\"")?;
        let mut keys = Vec::new();
        for (at, listed) in listed.iter().enumerate() {
            // Issuers also publish keys for encryption, and kinds that are not known here.
            match usable(listed) {
                Ok(Some(key)) => keys.push(key),
                Ok(None) => {}
                Err(why) => tracing::warn!(at, why, "leave out a key of the JWKS"),
            }
        }
        if keys.is_empty() {
            return Err("it has no public key to check signatures with (RSA, EC P-256 or P-384, or Ed25519)".to_owned());
        }
        Ok(Self { keys, rules: rules.clone() })
    }

    /// Whose token it is.
    pub(super) fn judge(&self, token: &str, now: Timestamp) -> Result<Principal, Refused> {
        let refuse = |why: &str| Refused(why.to_owned());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refuse("the token is too long"));
        }
        let header = decode_header(token).map_err(|_| refuse("the token is no JWT of a kind that is taken here"))?;
        if !asymmetric(header.alg) {
            // Else a token could be "signed" with the public key as a password.
            return Err(Refused(format!("the token is signed by {:?}, which is no public-key signature", header.alg)));
        }
        let name = format!("{:?}", header.alg);
        let fits = |key: &&Key| {
            let id = match (&header.kid, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                (Some(_), None) | (None, _) => self.keys.len() == 1,
            };
            id && key.algorithm.as_ref().is_none_or(|algorithm| *algorithm == name)
        };
        let key = self.keys.iter().find(fits).ok_or_else(|| {
            refuse("the token is signed with a key that is not in the JWKS file; bring the file up to date")
        })?;
        // The signature alone is left to the library: what the claims must say is checked below, strictly by type.
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let claims = decode::<Map<String, Value>>(token, &key.key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => refuse("the token's signature is not that of the issuer"),
                _ => refuse("the token's claims cannot be read"),
            })?
            .claims;
        self.claims(&claims, now)
    }

    fn claims(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Principal, Refused> {
        let rules = &self.rules;
        if claims.get("iss").and_then(Value::as_str) != Some(&rules.issuer) {
            return Err(Refused(format!("the token is not issued by {}", rules.issuer)));
        }
        let ours = |value: &Value| value.as_str() == Some(&rules.audience);
        let meant = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        if !meant {
            return Err(Refused(format!("the token is not meant for {}", rules.audience)));
        }
        let expires = match claims.get("exp").map(seconds) {
            Some(Some(at)) => at,
            _ => return Err(Refused("the token does not say when it expires".to_owned())),
        };
        if now.as_millis() > expires.saturating_add(LEEWAY_MS) {
            return Err(Refused(format!("the token expired at {}", Timestamp::from_millis(expires))));
        }
        match claims.get("nbf").map(seconds) {
            None => {}
            Some(Some(from)) if now.as_millis() >= from.saturating_sub(LEEWAY_MS) => {}
            Some(_) => return Err(Refused("the token is not valid yet".to_owned())),
        }
        let user = claims.get(&rules.user_claim).and_then(Value::as_str).unwrap_or_default();
        let user = format!("{}{user}", if user.is_empty() { "" } else { rules.user_prefix.as_str() });
        names::check(&user).map_err(|why| Refused(format!("the token's {}: {why}", rules.user_claim)))?;
        Ok(Principal {
            name: Name::User(user),
            groups: self.groups(claims)?,
            proof: Proof::Jwt,
            expires: Some(Timestamp::from_millis(expires.saturating_add(LEEWAY_MS))),
        })
    }

    fn groups(&self, claims: &Map<String, Value>) -> Result<BTreeSet<String>, Refused> {
        let wrong = |why: String| Refused(format!("the token's {}: {why}", self.rules.groups_claim));
        let listed = match claims.get(&self.rules.groups_claim) {
            None => return Ok(BTreeSet::new()),
            Some(Value::String(one)) => std::slice::from_ref(one).to_vec(),
            Some(Value::Array(all)) => {
                let texts = all.iter().map(|group| group.as_str().map(str::to_owned));
                texts
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| wrong("it holds something else than names".to_owned()))?
            }
            Some(_) => return Err(wrong("it is no list of names".to_owned())),
        };
        if listed.len() > GROUPS_MAX {
            return Err(wrong(format!("it holds {} groups, at most {GROUPS_MAX} are taken", listed.len())));
        }
        for group in &listed {
            names::check(group).map_err(wrong)?;
        }
        Ok(listed.into_iter().map(|group| format!("{}{group}", self.rules.user_prefix)).collect())
    }
}

/// A key of the set, unless it is for something else than signatures.
fn usable(listed: &Value) -> Result<Option<Key>, String> {
    let jwk: Jwk = serde_json::from_value(listed.clone()).map_err(|error| error.to_string())?;
    if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return Err("it is a shared secret, not a public key".to_owned());
    }
    if jwk.common.public_key_use.as_ref().is_some_and(|use_| *use_ != PublicKeyUse::Signature) {
        return Ok(None);
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
    Ok(Some(Key { id: jwk.common.key_id, algorithm: jwk.common.key_algorithm.map(|name| name.to_string()), key }))
}

fn asymmetric(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

/// A NumericDate in milliseconds; nothing for anything that is not a number.
fn seconds(value: &Value) -> Option<i64> {
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && seconds.abs() < 1e15)?;
    Some((seconds * 1000.0) as i64)
}
