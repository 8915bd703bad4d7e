//! Identifiers, each a type of its own so that swapped arguments do not compile.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which identifier.
        what: &'static str,
    },
    /// The text is longer than the limit.
    #[error("{what} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Which identifier.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The text holds a character that is not allowed.
    #[error("{what} holds the character {found:?}; allowed are {allowed}")]
    Character {
        /// Which identifier.
        what: &'static str,
        /// The first offending character.
        found: char,
        /// What may stand there.
        allowed: &'static str,
    },
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a text.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if text.is_empty() {
                    return Err(IdError::Empty { what: $what });
                }
                if text.len() > $max {
                    return Err(IdError::TooLong { what: $what, len: text.len(), max: $max });
                }
                let ok: fn(char) -> bool = $ok;
                if let Some(found) = text.chars().find(|c| !ok(*c)) {
                    return Err(IdError::Character { what: $what, found, allowed: $allowed });
                }
                Ok(Self(text.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

text_id!(
    /// One copy or move of one database; a UUIDv7 in its usual text form.
    OperationId, "operation id", 64, "letters, digits and '-'", |c| c.is_ascii_alphanumeric() || c == '-'
);
text_id!(
    /// The name under which an instance is registered.
    InstanceName, "instance name", 63, "lower-case letters, digits, '-' and '_'",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
);
text_id!(
    /// The name of a user database, as the engine spells it.
    DatabaseName, "database name", 255, "anything but control characters and '/'", |c| !c.is_control() && c != '/'
);
text_id!(
    /// What tells one incarnation of a source database from a restored, re-created or failed-over one. Opaque outside
    /// the engine, compared only for equality.
    Incarnation, "incarnation", 255, "printable characters", |c| !c.is_control()
);

/// Whether the source is dropped at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The source is dropped once the destination is primary.
    Move,
    /// The source stays online and goes on serving.
    Copy,
}

impl Kind {
    /// `move` or `copy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Move => "move",
            Kind::Copy => "copy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after it.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// One try at completing, counted from 1. As a floor: the highest closed attempt, 0 for none.
    Attempt, u32
);
number!(
    /// The operation's version in the coordinator's store, carried by every command. It grows with every change of the
    /// operation and over all operations of one store, so an older command is recognised anywhere.
    CommandVersion, u64
);
number!(
    /// How often the lock of one half of an instance was taken over. Only the agent with the highest one writes.
    Epoch, u64
);

/// The secret that an operation's two agents share. Never logged: `Debug` and `Display` hide it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The fewest bytes a token may have; 16 random bytes as hexadecimal digits are 32.
    pub const LEN_MIN: usize = 32;

    /// Takes a text of at least [`Token::LEN_MIN`] printable ASCII characters.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() < Self::LEN_MIN {
            return Err(IdError::Empty { what: "operation token (or it is too short)" });
        }
        if text.len() > 256 {
            return Err(IdError::TooLong { what: "operation token", len: text.len(), max: 256 });
        }
        if let Some(found) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(IdError::Character { what: "operation token", found, allowed: "printable ASCII" });
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not depend on where two tokens differ.
    pub fn matches(&self, other: &str) -> bool {
        let (a, b) = (self.0.as_bytes(), other.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0u8, |sum, (x, y)| sum | (x ^ y)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_enter() {
        assert!(InstanceName::parse("west-1").is_ok());
        assert!(InstanceName::parse("West").is_err());
        assert!(DatabaseName::parse("shop.db").is_ok());
        assert!(DatabaseName::parse("../shop").is_err());
        assert!(OperationId::parse("").is_err());
        assert!(serde_json::from_str::<InstanceName>("\"a/b\"").is_err());
    }

    #[test]
    fn a_token_is_compared_whole_and_never_shown() {
        let token = Token::parse("0123456789abcdef0123456789abcdef").expect("32 characters");
        assert!(token.matches("0123456789abcdef0123456789abcdef"));
        assert!(!token.matches("0123456789abcdef0123456789abcdeg"));
        assert!(!token.matches(""));
        assert!(!format!("{token:?}").contains("0123"));
    }
}
