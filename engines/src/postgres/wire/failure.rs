//! What the server's errors mean to the caller.

use crate::{Error, Result, postgres::sql::transient};

/// An error of the server. Its detail and hint may hold row values and are not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerError {
    /// SQLSTATE.
    pub(crate) code: String,
    pub(crate) message: String,
    /// The session is over.
    pub(crate) fatal: bool,
}

impl ServerError {
    /// Reads the body of an ErrorResponse.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut error = Self::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else { continue };
            let text = || String::from_utf8_lossy(text).into_owned();
            match kind {
                b'C' => error.code = text(),
                b'M' => error.message = text(),
                b'V' => error.fatal = text() != "ERROR",
                _ => {}
            }
        }
        error
    }

    /// What it is to the caller.
    pub(crate) fn into_error(self, what: &str) -> Error {
        let Self { code, message, fatal } = self;
        if code == "53100" {
            return Error::DiskFull(format!("{what}: {message}"));
        }
        // The words of a data exception repeat the value: `invalid input syntax for type integer: "..."`.
        let message = match code.get(..2) {
            Some("22") => format!("data exception (SQLSTATE {code})"),
            _ => format!("{message} (SQLSTATE {code})"),
        };
        // A connection is refused because the database is fenced; it opens again when the attempt is given up.
        let closed = fatal && code == "55000";
        Error::Database { what: what.to_owned(), message, transient: closed || transient(&code) }
    }

    /// Passes an error after which the session goes on.
    pub(super) fn fatal(self, what: &str) -> Result<Self> {
        if self.fatal { Err(self.into_error(what)) } else { Ok(self) }
    }
}
