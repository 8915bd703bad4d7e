//! Flags of both agents: the instance they are beside, and how it is reached.

mod postgres;

pub use postgres::{PostgresArgs, Secret};

use engines::{postgres::Setup, sqlite::SqliteConfig};
use handover::InstanceName;
use service::config::CommonArgs;
use std::{path::PathBuf, time::Duration};

/// Who gives commands unless the configuration says otherwise.
pub const COORDINATOR_IDENTITY: &str = "spiffe://causeway/coordinator";

/// Flags of every agent. Flatten it into an agent's own arguments with `#[command(flatten)]`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub common: CommonArgs,

    /// Name under which the instance is registered with the coordinator
    #[arg(long, value_name = "NAME", env = "CAUSEWAY_INSTANCE", value_parser = InstanceName::parse)]
    pub instance: InstanceName,

    /// Engine of the instance
    #[arg(long, value_name = "ENGINE", env = "CAUSEWAY_ENGINE", value_enum, default_value_t)]
    pub engine: EngineArg,

    /// SQLite: directory of the database files; required
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_DIR")]
    pub dir: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub postgres: PostgresArgs,

    /// Certificate identity that may give commands; may be repeated
    #[arg(long, value_name = "IDENTITY", env = "CAUSEWAY_COORDINATOR_IDENTITY", default_value = COORDINATOR_IDENTITY)]
    pub coordinator_identity: Vec<String>,

    /// Seconds without a sign of life after which the lock of a living agent is taken over
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_TAKEOVER_AFTER", default_value_t = 10)]
    pub takeover_after: u64,
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
        let dir = self.dir.as_ref().ok_or_else(|| missing("--dir DIR, the directory of the SQLite databases"))?;
        Ok(SqliteConfig { takeover_after: self.takeover_after(), ..SqliteConfig::new(dir) })
    }

    /// The PostgreSQL engine's settings, but for those that one half alone has.
    pub fn postgres(&self) -> engines::Result<Setup> {
        let args = &self.postgres;
        let dsn = args.postgres.as_ref();
        let dsn = dsn.ok_or_else(|| missing("--postgres 'host=... user=...', or the same in CAUSEWAY_POSTGRES"))?;
        Ok(Setup {
            password: args.password().map_err(|error| unusable(error.to_string()))?,
            ca: args.postgres_ca.clone(),
            takeover_after: self.takeover_after(),
            ..Setup::new(dsn.reveal())
        })
    }

    fn takeover_after(&self) -> Duration {
        Duration::from_secs(self.takeover_after)
    }
}

fn missing(what: &str) -> engines::Error {
    unusable(format!("the engine needs {what}"))
}

fn unusable(message: String) -> engines::Error {
    engines::Error::Unsupported { code: "CONFIGURATION", message, remedy: "see --help".to_owned() }
}
