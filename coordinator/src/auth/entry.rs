//! The way of one request past the door: who it is from, whether there is room for it, and the line about it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use service::serve::Peer;

use super::{
    Auth, Caller,
    audit::{Audit, Line},
    caller::Trail,
    names::{Name, Principal, Proof},
    throttle::{Full, Place},
};

/// Longest name of a method that is written down; ours are below 20.
const METHOD_MAX: usize = 64;

/// What a request shows besides the certificate of its connection.
pub enum Shown<'a> {
    /// Nothing.
    Nothing,
    /// A token.
    Token(&'a str),
    /// Something that is not understood.
    Garbled,
}

/// For whom another coordinator passes a request on.
pub struct Passed {
    /// Who they proved to be by their certificate; nothing if they show a token, which comes along.
    pub name: Option<String>,
    /// Where they called from.
    pub from: String,
}

/// Why a request does not come in.
pub enum Refusal {
    /// Nobody knows who it is from.
    Unknown {
        /// A stable reason.
        reason: &'static str,
        /// What is wrong.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The audit log cannot be written.
    Unwritten,
    /// Its caller asks too often; after this there is room for one more.
    Rate(Duration),
    /// So many of its caller are under way.
    AtOnce(u32),
}

/// A request, from its arrival until its answer was sent or given up; then it is written down.
pub struct Entry {
    auth: Arc<Auth>,
    method: String,
    from: String,
    begun: Duration,
    caller: Option<Caller>,
    /// Held until the answer has been sent or given up.
    place: Option<Place>,
    passed: Option<Passed>,
    passed_on: bool,
    ended: bool,
}

impl Entry {
    /// One that has just arrived.
    pub fn new(auth: &Arc<Auth>, method: &str, peer: &Peer, passed: Option<Passed>) -> Self {
        let from = match &passed {
            Some(passed) => passed.from.clone(),
            None => peer.addr.map(|addr| addr.to_string()).unwrap_or_default(),
        };
        Self {
            auth: auth.clone(),
            method: method.chars().take(METHOD_MAX).collect(),
            from,
            begun: auth.env.monotonic(),
            caller: None,
            place: None,
            passed,
            passed_on: false,
            ended: false,
        }
    }

    /// The coordinator that leads decides and answers.
    pub fn passed_on(&mut self) {
        self.passed_on = true;
    }

    /// Who it is from, unless it may not come in.
    pub fn admit(&mut self, peer: &Peer, shown: Shown<'_>) -> Result<Caller, Refusal> {
        if self.auth.audit.as_ref().is_some_and(Audit::is_full) {
            self.ended = true;
            return Err(Refusal::Unwritten);
        }
        let who = match (self.passed.as_ref().and_then(|passed| passed.name.as_deref()), &shown) {
            (Some(name), Shown::Nothing) => on_behalf_of(name),
            _ => self.auth.recognise(peer, shown),
        };
        // Who cannot say who they are is counted by where they are: guessing is bounded, too.
        let counted = match &who {
            Ok(principal) => principal.name.to_string(),
            Err(_) => format!("address:{}", peer.addr.map_or(IpAddr::from([0, 0, 0, 0]), |addr| addr.ip())),
        };
        match self.auth.throttle.enter(counted, self.begun) {
            Ok(place) => self.place = Some(place),
            Err(full) => {
                // Lines of a flood would fill the disk: the next one that gets through tells how many there were.
                self.ended = true;
                return Err(match full {
                    Full::Rate(wait) => Refusal::Rate(wait),
                    Full::AtOnce(most) => Refusal::AtOnce(most),
                });
            }
        }
        let caller = Caller::new(who?, self.auth.clone(), peer.clone());
        self.caller = Some(caller.clone());
        Ok(caller)
    }

    /// Write it down, once, with the name of its status and the reason if it is an error.
    pub fn end(&mut self, outcome: &str, reason: &str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.caller.is_none() {
            tracing::info!(from = self.from, reason, "refuse a caller");
        }
        let Some(audit) = &self.auth.audit else { return };
        let trail = match &self.caller {
            Some(caller) => caller.trail.lock().expect("no holder of this lock panics").clone(),
            None => Trail::default(),
        };
        let denied = trail.checks.iter().any(|check| !check.verdict.allowed);
        let mut policies: Vec<String> =
            trail.checks.iter().flat_map(|check| check.verdict.policies.iter().cloned()).collect();
        policies.sort_unstable();
        policies.dedup();
        let name = self.caller.as_ref().map(|caller| caller.name().to_string());
        audit.write(&Line {
            time: self.auth.env.now().to_string(),
            method: &self.method,
            proof: self.caller.as_ref().map_or("none", |caller| caller.principal().proof.as_str()),
            from: std::mem::take(&mut self.from),
            decision: match (&name, denied) {
                (None, _) => "unauthenticated",
                (Some(_), _) if self.passed_on => "passed on",
                (Some(_), true) => "denied",
                (Some(_), false) => "allowed",
            },
            principal: name.unwrap_or_default(),
            policies,
            checks: trail.checks.into_iter().map(Into::into).collect(),
            operations: trail.operations,
            outcome,
            reason,
            hidden: trail.hidden,
            turned_away: self.place.as_ref().map_or(0, |place| place.turned_away),
            took_ms: u64::try_from((self.auth.env.monotonic().saturating_sub(self.begun)).as_millis())
                .unwrap_or(u64::MAX),
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The caller went away, or the connection broke.
        self.end("CANCELLED", "");
    }
}

/// Whom another coordinator has recognised by their certificate, or found on this machine where nobody has one.
fn on_behalf_of(name: &str) -> Result<Principal, Refusal> {
    match Name::parse(name) {
        Ok(Name::Anonymous) => Ok(Principal::new(Name::Anonymous, Proof::Loopback)),
        Ok(name) => Ok(Principal::new(name, Proof::Certificate)),
        Err(why) => {
            Err(Refusal::Unknown { reason: "CREDENTIALS_MISSING", why, remedy: "ask the coordinator that leads" })
        }
    }
}

impl Auth {
    /// Who calls, by their token if they show one, else by their certificate.
    fn recognise(&self, peer: &Peer, shown: Shown<'_>) -> Result<Principal, Refusal> {
        let unknown = |reason, why: &str, remedy| Err(Refusal::Unknown { reason, why: why.to_owned(), remedy });
        match (shown, &peer.identity) {
            (Shown::Token(token), _) => match self.by_token(token) {
                Ok(principal) => Ok(principal),
                Err(why) => unknown("TOKEN_REFUSED", &why, "get a new token"),
            },
            (Shown::Garbled, _) => unknown(
                "TOKEN_MALFORMED",
                "the header authorization is not understood",
                "send it once, as: Bearer TOKEN",
            ),
            (Shown::Nothing, Some(identity)) => match Name::of(identity) {
                Some(name) => Ok(Principal::new(name, Proof::Certificate)),
                None => unknown(
                    "CERTIFICATE_NAMELESS",
                    "the certificate names nobody",
                    "issue one with a URI as its subject alternative name",
                ),
            },
            (Shown::Nothing, None) if peer.unproven => unknown(
                "CREDENTIALS_MISSING",
                "neither a certificate nor a token is given",
                "give --cert and --key, or --token-file",
            ),
            (Shown::Nothing, None) => Ok(Principal::new(Name::Anonymous, Proof::Loopback)),
        }
    }

    fn by_token(&self, token: &str) -> Result<Principal, String> {
        let now = self.env.now();
        if let Some(known) = self.tokens.as_ref().and_then(|tokens| tokens.current().find(token)) {
            return match known.expires {
                Some(expires) if now > expires => Err(format!("the token expired at {expires}")),
                _ => Ok(known),
            };
        }
        // A JWT has two dots; a token of ours has none.
        match &self.jwt {
            Some(keys) if token.contains('.') => keys.current().judge(token, now).map_err(|refused| refused.0),
            _ if self.takes_tokens() => Err("the token is not known here".to_owned()),
            _ => Err("this coordinator takes no tokens".to_owned()),
        }
    }
}
