//! The server's errors as they come.

use crate::{Error, Result, postgres::states};

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
        states::error(what.to_owned(), &self.code, &self.message, self.fatal)
    }

    /// Passes an error after which the session goes on.
    pub(super) fn fatal(self, what: &str) -> Result<Self> {
        if self.fatal { Err(self.into_error(what)) } else { Ok(self) }
    }
}
