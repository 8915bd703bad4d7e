//! What can be set for the agent, by flag, environment or file.

use crate::hook::Hook;
use agent::{
    EngineHost,
    config::{AgentArgs, COORDINATOR_IDENTITY, EngineArg},
};
use engines::{
    dest::DestEngine,
    postgres::{PostgresConfig, PostgresDest, Setup},
    sqlite::dest::SqliteDest,
};
use handover::InstanceName;
use service::Env;
use std::{sync::Arc, time::Duration};

/// Ten minutes: the first backup of a small database is through by then; a longer one belongs into the background.
const HOOK_TIMEOUT_SECONDS: u64 = 600;

/// What the flags about operations stand under in the help.
const OPERATIONS: &str = "Operations";

/// The agent beside a destination instance of Causeway.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "causeway-agent-dest", version, about)]
pub struct Args {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub agent: AgentArgs,

    /// Connections that apply the log side by side; 0 for one per core of this machine, at most 4
    #[arg(long, value_name = "N", env = "CAUSEWAY_APPLY_CONNECTIONS", default_value_t = 0, help_heading = "PostgreSQL", value_parser = clap::value_parser!(u16).range(..=32))]
    pub apply_connections: u16,

    /// Create roles that the server lacks, without passwords
    #[arg(long, env = "CAUSEWAY_CREATE_MISSING_ROLES", help_heading = "PostgreSQL", value_parser = clap::builder::BoolishValueParser::new())]
    pub create_missing_roles: bool,

    /// Command that `sh` runs once a database came online, such as a first backup; it finds CAUSEWAY_OPERATION,
    /// CAUSEWAY_DATABASE and CAUSEWAY_INSTANCE in its environment
    #[arg(long, value_name = "COMMAND", env = "CAUSEWAY_ON_ONLINE", help_heading = OPERATIONS)]
    pub on_online: Option<String>,

    /// Seconds after which that command is ended
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_HOOK_TIMEOUT", default_value_t = HOOK_TIMEOUT_SECONDS, value_parser = clap::value_parser!(u64).range(1..=604_800), help_heading = OPERATIONS)]
    pub hook_timeout: u64,
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
            instance: self.agent.instance.clone(),
            coordinator_identities: self.agent.coordinator_identity.clone(),
            on_online: self.on_online.clone(),
            hook_timeout: Duration::from_secs(self.hook_timeout),
        }
    }

    /// The engine the arguments ask for.
    pub fn engine(&self, env: &Env) -> engines::Result<Arc<dyn DestEngine>> {
        let host = Arc::new(EngineHost(env.clone()));
        match self.agent.engine {
            EngineArg::Sqlite => Ok(Arc::new(SqliteDest::new(self.agent.sqlite()?, host))),
            EngineArg::Postgres => {
                let setup = Setup {
                    apply_connections: self.apply_connections.into(),
                    create_missing_roles: self.create_missing_roles,
                    ..self.agent.postgres()?
                };
                Ok(Arc::new(PostgresDest::new(PostgresConfig::new(setup)?, host)))
            }
        }
    }
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
