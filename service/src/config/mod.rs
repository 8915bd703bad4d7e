//! Layered configuration: flags over environment over a TOML file over defaults, all through one clap definition.

mod args;
mod file;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use args::{CommonArgs, LogArgs, TlsArgs};

/// Why a configuration is no good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read the configuration file {file:?}: {source}; check --config, CAUSEWAY_CONFIG and its permissions")]
    Read {
        /// Where.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {file:?} is not TOML: {reason}")]
    Syntax {
        /// Where.
        file: PathBuf,
        /// Where in it, and what is wrong.
        reason: String,
    },
    /// There is no such key.
    #[error("unknown key {key:?} in {file:?}; {hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where.
        file: PathBuf,
        /// What was probably meant.
        hint: String,
    },
    /// The value does not fit the key.
    #[error("key {key:?} in {file:?}: {reason}")]
    Value {
        /// The key.
        key: String,
        /// Where.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Flags or environment variables are wrong, or help was asked for; clap's own text. Print it with
    /// [`clap::Error::exit`] to get its exit status too.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// What TLS needs is not given.
    #[error("{0}")]
    Security(&'static str),
    /// The certificates are no good.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
}

/// A parsed configuration.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The program's arguments, from all layers.
    pub args: T,
    /// The file that was read.
    pub file: Option<PathBuf>,
    sections: toml::Table,
}

impl<T> Loaded<T> {
    /// A section of the file that was named when parsing, such as an array of `[[instance]]`; nothing if absent.
    pub fn section<S: DeserializeOwned>(&self, name: &str) -> Result<Option<S>, Error> {
        let Some(value) = self.sections.get(name) else {
            return Ok(None);
        };
        value.clone().try_into().map(Some).map_err(|error: toml::de::Error| Error::Value {
            key: name.to_owned(),
            file: self.file.clone().unwrap_or_default(),
            reason: error.message().to_owned(),
        })
    }
}

/// Parse this process's arguments, environment and configuration file.
///
/// The file is the one given by `--config` or `CAUSEWAY_CONFIG`. Each top-level key is the long name of an option of
/// `T`, with `_` or `-`; keys named in `sections` are kept for [`Loaded::section`]; all others are errors. A `T` without
/// an option `--config` reads no file.
pub fn parse<T: clap::Parser>(sections: &[&str]) -> Result<Loaded<T>, Error> {
    parse_from(std::env::args_os(), sections)
}

/// [`parse`], of the given arguments; the first is the program's name.
pub fn parse_from<T, I>(args: I, sections: &[&str]) -> Result<Loaded<T>, Error>
where
    T: clap::Parser,
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut command = T::command();
    let wanted = || file_of(&args).or_else(|| std::env::var_os("CAUSEWAY_CONFIG").filter(|path| !path.is_empty()));
    let takes_file = command.get_arguments().any(|arg| arg.get_long() == Some("config"));
    let file = takes_file.then(wanted).flatten().map(PathBuf::from);
    let mut kept = toml::Table::new();
    if let Some(path) = &file {
        let table = read(path)?;
        (command, kept) = file::apply(command, path, table, sections)?;
    }
    let mut matches = command.try_get_matches_from_mut(args)?;
    let args = T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
    Ok(Loaded { args, file, sections: kept })
}

/// The value of `--config`. The file must be known before clap parses, because it changes clap's defaults.
fn file_of(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().cloned();
        }
        // Bytes, because a path need not be UTF-8.
        if let Some(value) = arg.as_bytes().strip_prefix(b"--config=") {
            return Some(OsStr::from_bytes(value).to_owned());
        }
    }
    None
}

fn read(path: &Path) -> Result<toml::Table, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { file: path.to_owned(), source })?;
    // The whole message: it points at the line and column.
    text.parse::<toml::Table>().map_err(|error| Error::Syntax { file: path.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests;
