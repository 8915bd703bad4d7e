//! The tokens file: users who show a secret instead of a certificate. Only hashes of the secrets lie in it.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use service::Timestamp;
use sha2::{Digest as _, Sha256};

use super::names::{self, Name, Principal, Proof};

/// What a token's SHA-256 looks like.
type Hash = [u8; 32];

/// The tokens that are good.
pub(super) struct Tokens {
    by_hash: HashMap<Hash, Entry>,
}

struct Entry {
    user: String,
    groups: BTreeSet<String>,
    expires: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user: String,
    /// Plain SHA-256 and no slow hash: `causeway auth token` makes secrets of 256 random bits, which nobody guesses.
    sha256: String,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    expires: Option<toml::value::Datetime>,
}

impl Tokens {
    /// The text of the file.
    pub(super) fn read(texts: &[String]) -> Result<Self, String> {
        let file: File = toml::from_str(texts.first().map_or("", String::as_str)).map_err(|error| error.to_string())?;
        let mut by_hash = HashMap::new();
        for Line { user, sha256, groups, expires } in file.token {
            names::check(&user)?;
            groups.iter().try_for_each(|group| names::check(group))?;
            let wrong = |what: &str| format!("the token of {user}: {what}");
            let hash = hash_of(&sha256)
                .ok_or_else(|| wrong("sha256 must be 64 hexadecimal digits, as `causeway auth token` prints them"))?;
            let expires = expires.map(|at| moment(&at)).transpose().map_err(|what| wrong(&what))?;
            let entry = Entry { user: user.clone(), groups, expires };
            if by_hash.insert(hash, entry).is_some() {
                return Err(wrong("the same token stands there twice: make each user one of their own"));
            }
        }
        Ok(Self { by_hash })
    }

    /// Whose token it is; nothing if nobody's. Compares hashes, so the time it takes tells nothing about any secret.
    pub(super) fn find(&self, secret: &str) -> Option<Principal> {
        let hash: Hash = Sha256::digest(secret.as_bytes()).into();
        let entry = self.by_hash.get(&hash)?;
        Some(Principal {
            name: Name::User(entry.user.clone()),
            groups: entry.groups.clone(),
            proof: Proof::Token,
            expires: entry.expires,
        })
    }
}

fn hash_of(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

fn moment(at: &toml::value::Datetime) -> Result<Timestamp, String> {
    let text = at.to_string();
    Timestamp::parse(&text).ok_or_else(|| format!("expires is {text}: write it as 2027-01-31T00:00:00Z"))
}
