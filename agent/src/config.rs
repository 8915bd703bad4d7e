//! Flags of both agents: the instance they are beside, and how it is reached.

mod postgres;

pub use postgres::{PostgresArgs, Secret};

use engines::{postgres::Setup, sqlite::SqliteConfig};
use handover::InstanceName;
use service::config::CommonArgs;
use std::{path::PathBuf, time::Duration};

/// Who gives commands unless the configuration says otherwise.
pub const COORDINATOR_IDENTITY: &str = "spiffe://causeway/coordinator";

/// What the flags about the instance stand under in the help.
const INSTANCE: &str = "Instance";

/// Flags of every agent. Flatten it into an agent's own arguments with `#[command(flatten)]`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub common: CommonArgs,

    /// Name under which the instance is registered with the coordinator
    #[arg(long, value_name = "NAME", env = "CAUSEWAY_INSTANCE", value_parser = InstanceName::parse, help_heading = INSTANCE)]
    pub instance: InstanceName,

    /// Engine of the instance
    #[arg(long, value_name = "ENGINE", env = "CAUSEWAY_ENGINE", value_enum, default_value_t, help_heading = INSTANCE)]
    pub engine: EngineArg,

    /// Seconds without a sign of life after which the lock of a living agent is taken over
    // A sign of life comes every second, and one may be late.
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_TAKEOVER_AFTER", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600), help_heading = INSTANCE)]
    pub takeover_after: u64,

    /// Certificate identity that may give commands; may be repeated
    #[arg(long, value_name = "IDENTITY", env = "CAUSEWAY_COORDINATOR_IDENTITY", default_value = COORDINATOR_IDENTITY, value_parser = clap::builder::NonEmptyStringValueParser::new(), help_heading = INSTANCE)]
    pub coordinator_identity: Vec<String>,

    /// Directory of the database files; required
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_DIR", help_heading = "SQLite")]
    pub dir: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub postgres: PostgresArgs,
}

/// The engines an agent knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineArg {
    /// A directory of SQLite databases.
    #[default]
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
}

impl AgentArgs {
    /// The SQLite engine's settings, but for those that one half alone has.
    pub fn sqlite(&self) -> engines::Result<SqliteConfig> {
        let dir = self.dir.as_ref().ok_or_else(|| match self.postgres.postgres {
            Some(_) => unusable("the engine is sqlite, and a PostgreSQL server is given", "add --engine postgres"),
            None => unusable(
                "the engine needs the directory of the SQLite databases",
                "give --dir DIR, or --engine postgres and --postgres for a PostgreSQL server",
            ),
        })?;
        Ok(SqliteConfig { takeover_after: self.takeover_after(), ..SqliteConfig::new(dir) })
    }

    /// The PostgreSQL engine's settings, but for those that one half alone has.
    pub fn postgres(&self) -> engines::Result<Setup> {
        let dsn = self.postgres.postgres.as_ref().ok_or_else(|| {
            let remedy = "give --postgres 'host=... user=...', or the same in CAUSEWAY_POSTGRES";
            unusable("the engine needs the connection string of the PostgreSQL server", remedy)
        })?;
        Ok(Setup {
            password: self.postgres.password()?,
            ca: self.postgres.postgres_ca.clone(),
            takeover_after: self.takeover_after(),
            ..Setup::new(dsn.reveal())
        })
    }

    fn takeover_after(&self) -> Duration {
        Duration::from_secs(self.takeover_after)
    }
}

/// Settings that do not fit.
fn unusable(message: impl Into<String>, remedy: &str) -> engines::Error {
    engines::Error::Unsupported { code: "CONFIGURATION", message: message.into(), remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests;
