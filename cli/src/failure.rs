//! Why a command did not do what was asked: what failed, the reason code, the details and the remedy.

use std::{fmt, ops};

use serde::Serialize;

use crate::{exit::Exit, view::DatabaseFindings};

/// A failed command, ready to be shown. Boxed, because every result of this crate would grow to its size.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Failure(Box<Content>);

/// What a [`Failure`] tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Content {
    /// How the process ends.
    #[serde(skip)]
    pub exit: Exit,
    /// What was being done, such as "start the move of shop"; may be empty.
    pub doing: String,
    /// What went wrong, one sentence.
    pub message: String,
    /// Stable, upper case with underscores; empty if there is none.
    pub reason: String,
    /// Fields or preconditions at fault.
    pub details: Vec<Detail>,
    /// What to do about it; may be empty.
    pub remedy: String,
    /// What a preflight found, if that is why.
    pub findings: Vec<DatabaseFindings>,
}

/// One field or precondition at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// The field or thing, such as `databases[1]`.
    pub subject: String,
    /// What is the matter with it.
    pub problem: String,
}

impl Failure {
    /// A failure without reason code.
    pub fn new(exit: Exit, doing: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Content {
            exit,
            doing: doing.into(),
            message: message.into(),
            reason: String::new(),
            details: Vec::new(),
            remedy: String::new(),
            findings: Vec::new(),
        }))
    }

    /// A malformed command line that clap could not know of.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "", message)
    }

    /// Something on this machine, a file for instance.
    pub fn local(doing: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Exit::Failed, doing, service::status::chain(error))
    }

    /// The same with a reason code.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// The same with a remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl ops::Deref for Failure {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.0
    }
}

impl ops::DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Content {
        &mut self.0
    }
}

impl fmt::Display for Failure {
    /// For people, without colour and without findings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.doing.is_empty() {
            write!(f, "{}: ", self.doing)?;
        }
        f.write_str(&self.message)?;
        for Detail { subject, problem } in &self.details {
            write!(f, "\n  {subject}: {problem}")?;
        }
        if !self.reason.is_empty() {
            write!(f, "\n  reason: {}", self.reason)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n  remedy: {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
