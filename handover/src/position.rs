//! A point in a source's log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A point in the source's log, opaque to everything but the engine that made it: compared for equality only.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(String);

impl Position {
    /// The most bytes a position may have on the wire.
    pub const LEN_MAX: usize = 256;

    /// Takes an engine's text, or nothing when it is longer than [`Position::LEN_MAX`] or not printable ASCII.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= Self::LEN_MAX && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The engine's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
