//! What can be set for the agent, by flag, environment or file.

use agent::{
    EngineHost,
    config::{AgentArgs, EngineArg},
};
use engines::{
    postgres::{OnDdl, PostgresConfig, PostgresSource, Setup},
    source::SourceEngine,
    sqlite::{SqliteConfig, source::SqliteSource},
};
use handover::InstanceName;
use service::Env;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// What the flags about operations stand under in the help.
const OPERATIONS: &str = "Operations";

/// The agent beside a source instance of Causeway.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "causeway-agent-source", version, about)]
pub struct Args {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub agent: AgentArgs,

    /// The pg_dump that reads schemas; not older than the server
    #[arg(
        long,
        value_name = "PROGRAM",
        env = "CAUSEWAY_PG_DUMP",
        default_value = "pg_dump",
        help_heading = "PostgreSQL"
    )]
    pub pg_dump: PathBuf,

    /// What happens to DDL while an operation runs
    #[arg(
        long,
        value_name = "WHAT",
        env = "CAUSEWAY_ON_DDL",
        value_enum,
        default_value_t,
        help_heading = "PostgreSQL"
    )]
    pub on_ddl: OnDdlArg,

    /// Load large tables over several connections at once: quicker where the destination has processors to spare, but the
    /// rows then lie there in another order than here
    #[arg(long, env = "CAUSEWAY_SPLIT_TABLES", help_heading = "PostgreSQL", value_parser = clap::builder::BoolishValueParser::new())]
    pub split_tables: bool,

    /// Bytes of log that may be retained for one operation, unless the operation says otherwise; 20 % of the free disk is
    /// a cap beside it
    #[arg(long, value_name = "BYTES", env = "CAUSEWAY_LOG_BUDGET_BYTES", default_value_t = 10 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..), help_heading = OPERATIONS)]
    pub log_budget_bytes: u64,

    /// Seconds without a word from the coordinator after which a fenced source asks the destination to abort
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_FENCE_TIMEOUT", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = OPERATIONS)]
    pub fence_timeout: u64,

    /// Connections that carry the seed side by side
    #[arg(long, value_name = "N", env = "CAUSEWAY_SEED_LANES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16), help_heading = OPERATIONS)]
    pub seed_lanes: u32,

    /// Compress what is sent; worth it across a slow link only
    #[arg(long, env = "CAUSEWAY_COMPRESS", value_parser = clap::builder::BoolishValueParser::new(), help_heading = OPERATIONS)]
    pub compress: bool,

    /// Bytes of seed a second at the most, over all connections; 0 for no limit
    #[arg(long, value_name = "BYTES", env = "CAUSEWAY_SEED_BYTES_PER_SECOND", default_value_t = 0, help_heading = OPERATIONS)]
    pub seed_bytes_per_second: u64,
}

/// What happens to DDL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDdlArg {
    /// It is refused with SQLSTATE 55006, naming the operation.
    #[default]
    Block,
    /// It passes, and the operation ends.
    Cancel,
}

/// What a running agent needs to know besides its engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The instance's name.
    pub instance: InstanceName,
    /// Identities that may give commands.
    pub coordinator_identities: Vec<String>,
    /// Silence of the coordinator after which a fenced source asks the destination itself.
    pub fence_timeout: Duration,
    /// Connections that carry the seed.
    pub seed_lanes: u32,
    /// Whether payloads are compressed.
    pub compress: bool,
    /// Limit for the seed in bytes a second; 0 for none.
    pub seed_bytes_per_second: u64,
}

impl Args {
    /// The settings among the arguments.
    pub fn settings(&self) -> Settings {
        Settings {
            instance: self.agent.instance.clone(),
            coordinator_identities: self.agent.coordinator_identity.clone(),
            fence_timeout: Duration::from_secs(self.fence_timeout),
            seed_lanes: self.seed_lanes,
            compress: self.compress,
            seed_bytes_per_second: self.seed_bytes_per_second,
        }
    }

    /// The engine the arguments ask for.
    pub fn engine(&self, env: &Env) -> engines::Result<Arc<dyn SourceEngine>> {
        let host = Arc::new(EngineHost(env.clone()));
        match self.agent.engine {
            EngineArg::Sqlite => {
                let config = SqliteConfig { log_budget_bytes: self.log_budget_bytes, ..self.agent.sqlite()? };
                Ok(Arc::new(SqliteSource::new(config, host)))
            }
            EngineArg::Postgres => {
                let setup = Setup {
                    log_budget_bytes: self.log_budget_bytes,
                    pg_dump: self.pg_dump.clone(),
                    on_ddl: match self.on_ddl {
                        OnDdlArg::Block => OnDdl::Block,
                        OnDdlArg::Cancel => OnDdl::Cancel,
                    },
                    split_tables: self.split_tables,
                    ..self.agent.postgres()?
                };
                Ok(Arc::new(PostgresSource::new(PostgresConfig::new(setup)?, host)))
            }
        }
    }
}
