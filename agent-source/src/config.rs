//! What can be set for the agent, by flag, environment or file.

use engines::{
    host::Host,
    postgres::{OnDdl, PostgresConfig, PostgresSource, Setup},
    source::SourceEngine,
    sqlite::{SqliteConfig, source::SqliteSource},
};
use handover::InstanceName;
use service::{
    Env,
    config::{CommonArgs, PostgresArgs},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// The agent beside a source instance of Causeway.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "causeway-agent-source", version, about)]
pub struct Args {
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

    /// PostgreSQL: the pg_dump that reads schemas; not older than the server
    #[arg(
        long,
        value_name = "PROGRAM",
        env = "CAUSEWAY_PG_DUMP",
        default_value = "pg_dump",
        help_heading = "PostgreSQL"
    )]
    pub pg_dump: PathBuf,

    /// PostgreSQL: what happens to DDL while an operation runs
    #[arg(
        long,
        value_name = "WHAT",
        env = "CAUSEWAY_ON_DDL",
        value_enum,
        default_value_t,
        help_heading = "PostgreSQL"
    )]
    pub on_ddl: OnDdlArg,

    /// Certificate identity that may give commands; may be repeated
    #[arg(
        long,
        value_name = "IDENTITY",
        env = "CAUSEWAY_COORDINATOR_IDENTITY",
        default_value = "spiffe://causeway/coordinator"
    )]
    pub coordinator_identity: Vec<String>,

    /// Bytes of log that may be retained for one operation, unless the operation says otherwise; 20 % of the free disk is
    /// a cap beside it
    #[arg(long, value_name = "BYTES", env = "CAUSEWAY_LOG_BUDGET_BYTES", default_value_t = 10 << 30)]
    pub log_budget_bytes: u64,

    /// Seconds without a sign of life after which the lock of a living agent is taken over
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_TAKEOVER_AFTER", default_value_t = 10)]
    pub takeover_after: u64,

    /// Seconds without a word from the coordinator after which a fenced source asks the destination to abort
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_FENCE_TIMEOUT", default_value_t = 60)]
    pub fence_timeout: u64,

    /// Connections that carry the seed side by side
    #[arg(long, value_name = "N", env = "CAUSEWAY_SEED_LANES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub seed_lanes: u32,

    /// Compress what is sent; worth it across a slow link only
    #[arg(long, env = "CAUSEWAY_COMPRESS", value_parser = clap::builder::BoolishValueParser::new())]
    pub compress: bool,

    /// Bytes of seed a second at the most, over all connections; 0 for no limit
    #[arg(long, value_name = "BYTES", env = "CAUSEWAY_SEED_BYTES_PER_SECOND", default_value_t = 0)]
    pub seed_bytes_per_second: u64,
}

/// The engines this agent knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineArg {
    /// A directory of SQLite databases.
    #[default]
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
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
            instance: self.instance.clone(),
            coordinator_identities: self.coordinator_identity.clone(),
            fence_timeout: Duration::from_secs(self.fence_timeout),
            seed_lanes: self.seed_lanes,
            compress: self.compress,
            seed_bytes_per_second: self.seed_bytes_per_second,
        }
    }

    /// The engine the arguments ask for.
    pub fn engine(&self, env: &Env) -> engines::Result<Arc<dyn SourceEngine>> {
        match self.engine {
            EngineArg::Sqlite => {
                let dir =
                    self.dir.as_ref().ok_or_else(|| missing("--dir DIR, the directory of the SQLite databases"))?;
                let config = SqliteConfig {
                    takeover_after: Duration::from_secs(self.takeover_after),
                    log_budget_bytes: self.log_budget_bytes,
                    ..SqliteConfig::new(dir)
                };
                Ok(Arc::new(SqliteSource::new(config, Arc::new(EngineHost(env.clone())))))
            }
            EngineArg::Postgres => {
                let config = PostgresConfig::new(self.postgres_setup()?)?;
                Ok(Arc::new(PostgresSource::new(config, Arc::new(EngineHost(env.clone())))))
            }
        }
    }

    fn postgres_setup(&self) -> engines::Result<Setup> {
        let args = &self.postgres;
        let dsn = args.postgres.as_ref();
        let dsn = dsn.ok_or_else(|| missing("--postgres 'host=... user=...', or the same in CAUSEWAY_POSTGRES"))?;
        Ok(Setup {
            password: args.password().map_err(|error| unusable(error.to_string()))?,
            ca: args.postgres_ca.clone(),
            takeover_after: Duration::from_secs(self.takeover_after),
            log_budget_bytes: self.log_budget_bytes,
            pg_dump: self.pg_dump.clone(),
            on_ddl: match self.on_ddl {
                OnDdlArg::Block => OnDdl::Block,
                OnDdlArg::Cancel => OnDdl::Cancel,
            },
            ..Setup::new(dsn.reveal())
        })
    }
}

fn missing(what: &str) -> engines::Error {
    unusable(format!("the engine needs {what}"))
}

fn unusable(message: String) -> engines::Error {
    engines::Error::Unsupported { code: "CONFIGURATION", message, remedy: "see --help".to_owned() }
}

/// The process's environment as an engine sees it.
#[derive(Debug)]
pub struct EngineHost(pub Env);

impl Host for EngineHost {
    fn now_ms(&self) -> i64 {
        self.0.now().as_millis()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.run_blocking(job);
    }
}
