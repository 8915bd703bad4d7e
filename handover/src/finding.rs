//! What a preflight finds.

use serde::{Deserialize, Serialize};

/// One thing that a preflight found, with what to do about it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it stands in the way.
    pub severity: Severity,
    /// Where it was found.
    pub side: Side,
    /// A stable code, such as `NAME_TAKEN`; upper case with underscores.
    pub code: String,
    /// What is the matter, one sentence.
    pub message: String,
    /// What the user can do about it, one sentence.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something to know or to redo afterwards.
    Warning,
    /// The operation cannot start.
    Error,
}

/// The part that found it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The coordinator's own rules.
    Coordinator,
    /// The source instance.
    Source,
    /// The destination instance.
    Dest,
}

impl Finding {
    /// A finding that stands in the way.
    pub fn error(side: Side, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Error, side, code, message, remedy)
    }

    /// A finding to know about.
    pub fn warning(side: Side, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Severity::Warning, side, code, message, remedy)
    }

    fn new(severity: Severity, side: Side, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity, side, code: code.to_owned(), message: message.into(), remedy: remedy.into() }
    }
}
