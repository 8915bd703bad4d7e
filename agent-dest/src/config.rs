//! What can be set for the agent, by flag, environment or file.

use crate::hook::Hook;
use engines::{
    dest::DestEngine,
    host::Host,
    postgres::{PostgresConfig, PostgresDest, Setup},
    sqlite::{SqliteConfig, dest::SqliteDest},
};
use handover::InstanceName;
use service::{
    Env,
    config::{CommonArgs, PostgresArgs},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Who gives commands unless the configuration says otherwise.
pub const COORDINATOR_IDENTITY: &str = "spiffe://causeway/coordinator";

/// Ten minutes: the first backup of a small database is through by then; a longer one belongs into the background.
const HOOK_TIMEOUT_SECONDS: u64 = 600;

/// The agent beside a destination instance of Causeway.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "causeway-agent-dest", version, about)]
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

    /// PostgreSQL: connections that apply the log side by side; 0 for one per core of this machine, at most 4
    #[arg(long, value_name = "N", env = "CAUSEWAY_APPLY_CONNECTIONS", default_value_t = 0, help_heading = "PostgreSQL", value_parser = clap::value_parser!(u16).range(..=32))]
    pub apply_connections: u16,

    /// PostgreSQL: create roles that the server lacks, without passwords
    #[arg(long, env = "CAUSEWAY_CREATE_MISSING_ROLES", help_heading = "PostgreSQL", value_parser = clap::builder::BoolishValueParser::new())]
    pub create_missing_roles: bool,

    /// Certificate identity that may give commands; may be repeated
    #[arg(long, value_name = "IDENTITY", env = "CAUSEWAY_COORDINATOR_IDENTITY", default_value = COORDINATOR_IDENTITY)]
    pub coordinator_identity: Vec<String>,

    /// Command that `sh` runs once a database came online, such as a first backup; it finds CAUSEWAY_OPERATION,
    /// CAUSEWAY_DATABASE and CAUSEWAY_INSTANCE in its environment
    #[arg(long, value_name = "COMMAND", env = "CAUSEWAY_ON_ONLINE")]
    pub on_online: Option<String>,

    /// Seconds after which that command is ended
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_HOOK_TIMEOUT", default_value_t = HOOK_TIMEOUT_SECONDS)]
    pub hook_timeout: u64,

    /// Seconds without a sign of life after which the lock of a living agent is taken over
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_TAKEOVER_AFTER", default_value_t = 10)]
    pub takeover_after: u64,
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

/// What a running agent needs to know besides its engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The instance's name.
    pub instance: InstanceName,
    /// Identities that may give commands.
    pub coordinator_identities: Vec<String>,
    /// The command line run when a database came online, if any.
    pub on_online: Option<String>,
    /// How long it may take.
    pub hook_timeout: Duration,
}

impl Args {
    /// The settings among the arguments.
    pub fn settings(&self) -> Settings {
        Settings {
            instance: self.instance.clone(),
            coordinator_identities: self.coordinator_identity.clone(),
            on_online: self.on_online.clone(),
            hook_timeout: Duration::from_secs(self.hook_timeout),
        }
    }

    /// The engine the arguments ask for.
    pub fn engine(&self, env: &Env) -> engines::Result<Arc<dyn DestEngine>> {
        match self.engine {
            EngineArg::Sqlite => {
                let dir =
                    self.dir.as_ref().ok_or_else(|| missing("--dir DIR, the directory of the SQLite databases"))?;
                let config =
                    SqliteConfig { takeover_after: Duration::from_secs(self.takeover_after), ..SqliteConfig::new(dir) };
                Ok(Arc::new(SqliteDest::new(config, Arc::new(EngineHost(env.clone())))))
            }
            EngineArg::Postgres => {
                let config = PostgresConfig::new(self.postgres_setup()?)?;
                Ok(Arc::new(PostgresDest::new(config, Arc::new(EngineHost(env.clone())))))
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
            apply_connections: self.apply_connections.into(),
            create_missing_roles: self.create_missing_roles,
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

impl Settings {
    /// Settings with the defaults of the flags.
    pub fn new(instance: InstanceName) -> Self {
        Self {
            instance,
            coordinator_identities: vec![COORDINATOR_IDENTITY.to_owned()],
            on_online: None,
            hook_timeout: Duration::from_secs(HOOK_TIMEOUT_SECONDS),
        }
    }

    /// The configured hook.
    pub(crate) fn hook(&self) -> Option<Hook> {
        self.on_online.as_ref().filter(|line| !line.trim().is_empty()).map(|line| Hook {
            line: line.clone(),
            timeout: self.hook_timeout,
            instance: self.instance.clone(),
        })
    }
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
