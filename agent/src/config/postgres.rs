//! How an agent reaches a PostgreSQL server: flags of both agents.

use super::unusable;
use std::{env::VarError, fmt, path::PathBuf, str::FromStr};

/// Flags about the PostgreSQL server of an instance.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct PostgresArgs {
    /// Connection string of the server, as libpq has it: 'host=... port=... user=... sslmode=...' or postgres://...; its
    /// database is where Causeway keeps its records. A password in it can be seen by ps: give it by the file, by PGPASSWORD, or
    /// give the whole string by the environment
    #[arg(long, value_name = "DSN", env = "CAUSEWAY_POSTGRES", hide_env_values = true, hide_default_value = true)]
    pub postgres: Option<Secret>,

    /// File whose first line is the password, instead of PGPASSWORD
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_POSTGRES_PASSWORD_FILE")]
    pub postgres_password_file: Option<PathBuf>,

    /// PEM file of the authorities whose certificates are accepted of the server, whose name is checked then, too; without it
    /// sslmode=require encrypts and checks nothing
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_POSTGRES_CA")]
    pub postgres_ca: Option<PathBuf>,
}

impl PostgresArgs {
    /// The password that is given beside the connection string, if any.
    pub(super) fn password(&self) -> engines::Result<Option<String>> {
        let Some(file) = &self.postgres_password_file else {
            return match std::env::var("PGPASSWORD") {
                Ok(password) => Ok(Some(password).filter(|password| !password.is_empty())),
                Err(VarError::NotPresent) => Ok(None),
                Err(VarError::NotUnicode(_)) => Err(unusable("PGPASSWORD is not UTF-8", "give it in UTF-8")),
            };
        };
        let unusable = |why: &dyn fmt::Display| {
            let remedy = "give a file that this process may read, with the password in its first line";
            unusable(format!("--postgres-password-file {}: {why}", file.display()), remedy)
        };
        let text = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
        match text.lines().next() {
            Some(password) if !password.is_empty() => Ok(Some(password.to_owned())),
            _ => Err(unusable(&"its first line is empty")),
        }
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}
