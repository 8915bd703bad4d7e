//! The names of callers and of rights, as people write them and as policies do.

use std::collections::BTreeSet;
use std::fmt;

use service::{Identity, Timestamp};

/// Longest name of a caller or group, in bytes.
pub(super) const NAME_MAX: usize = 255;
/// What Causeway's own certificates call a user.
const USER_URI: &str = "spiffe://causeway/user/";

/// Who somebody is. Written as `user:ann`, `service:spiffe://example/ci` or `anonymous`; in policies as `User::"ann"`,
/// `Service::"spiffe://example/ci"` and `Anonymous::"loopback"`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Name {
    /// A person or account: `spiffe://causeway/user/NAME` in a certificate, or the name that goes with a token.
    User(String),
    /// Any other certificate: its first URI, else `dns:` with its first host name, else `cn:` with its common name.
    Service(String),
    /// Whoever calls in plain text over loopback; there are none where TLS is on.
    Anonymous,
}

/// By what somebody proved to be who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A certificate.
    Certificate,
    /// A token of the tokens file.
    Token,
    /// A JSON Web Token.
    Jwt,
    /// Being on this machine, at a coordinator that runs with `--insecure`.
    Loopback,
    /// Nothing: it is only asked about them.
    None,
}

/// Somebody with all that policies may go by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// Who.
    pub name: Name,
    /// Groups that came with the token; those of the groups file are added by the policies.
    pub groups: BTreeSet<String>,
    /// How it is known.
    pub proof: Proof,
    /// When the token ends.
    pub expires: Option<Timestamp>,
}

/// A right.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// See it; of a resource group also: take databases out of it.
    Read,
    /// Start, complete and cancel operations on it.
    Write,
    /// Register instances, override operations, ask about the rights of others.
    Admin,
}

impl Name {
    /// Who a verified certificate names.
    pub fn of(identity: &Identity) -> Option<Self> {
        match (identity.uris.first(), identity.dns.first(), &identity.common_name) {
            (Some(uri), ..) => match uri.strip_prefix(USER_URI).filter(|name| !name.is_empty()) {
                Some(name) => Some(Self::User(name.to_owned())),
                None => Some(Self::Service(uri.clone())),
            },
            (None, Some(host), _) => Some(Self::Service(format!("dns:{host}"))),
            (None, None, Some(name)) => Some(Self::Service(format!("cn:{name}"))),
            (None, None, None) => None,
        }
    }

    /// As people write it; a name without a prefix is that of a user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = match text.split_once(':') {
            _ if text == "anonymous" => return Ok(Self::Anonymous),
            Some(("user", name)) => Self::User(name.to_owned()),
            Some(("service", name)) => Self::Service(name.to_owned()),
            Some((other, _)) => {
                return Err(format!("{other:?} is no kind of caller: write user:NAME, service:NAME or anonymous"));
            }
            None => Self::User(text.to_owned()),
        };
        let (Self::User(bare) | Self::Service(bare)) = &name else { return Ok(name) };
        check(bare)?;
        Ok(name)
    }
}

/// Whether a name may be taken from a file or a token.
pub(super) fn check(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a name is empty".to_owned()),
        name if name.len() > NAME_MAX => {
            Err(format!("a name has {} bytes, at most {NAME_MAX} are allowed", name.len()))
        }
        name if name.chars().any(char::is_control) => Err(format!("the name {name:?} holds control characters")),
        _ => Ok(()),
    }
}

impl Principal {
    /// Somebody without groups of their own.
    pub fn new(name: Name, proof: Proof) -> Self {
        Self { name, groups: BTreeSet::new(), proof, expires: None }
    }

    /// Nobody: what stands where the guard has not looked. No policy can name it, because no name is empty.
    pub fn nobody() -> Self {
        Self::new(Name::Service(String::new()), Proof::None)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

impl Proof {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Loopback => "loopback",
            Self::None => "none",
        }
    }
}

impl Action {
    /// The word of policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// From its word.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no right: give read, write or admin"))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
