//! The command line as clap sees it. Doc comments on fields are its help text.

mod auth;
mod coordinator;
mod instance;
mod operation;
mod tools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use service::config::TlsArgs;

pub use auth::{AuthCommand, CheckArgs, TokenArgs};
pub use coordinator::{AdoptArgs, CoordinatorCommand, StoreCommand};
pub use instance::{DatabaseCommand, InstanceCommand, PurgeArgs, RegisterArgs};
pub use operation::{
    CancelArgs, CompleteArgs, Filter, KindCommand, ListArgs, OperationCommand, Override, Selection, SideWord,
    StartArgs, WatchArgs, WatchGoal,
};
pub use tools::{CertsArgs, DemoArgs, DemoMode, EngineWord};

use crate::exit;

/// Moves and copies live databases between database instances while applications keep writing to them.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "causeway",
    version,
    after_long_help = exit::HELP,
    after_help = "See a whole move on this machine:  causeway demo",
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub global: GlobalArgs,

    #[command(subcommand)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct GlobalArgs {
    /// Address of the coordinator; of several, all with commas: the first that answers is asked, whichever leads
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "CAUSEWAY_COORDINATOR",
        default_value = "127.0.0.1:7440"
    )]
    pub coordinator: String,

    /// PEM file of the authorities whose certificates are accepted of the coordinator
    #[arg(long, global = true, value_name = "FILE", env = "CAUSEWAY_CA")]
    pub ca: Option<PathBuf>,

    /// PEM file of your certificate
    #[arg(long, global = true, value_name = "FILE", env = "CAUSEWAY_CERT")]
    pub cert: Option<PathBuf>,

    /// PEM file of your certificate's private key
    #[arg(long, global = true, value_name = "FILE", env = "CAUSEWAY_KEY")]
    pub key: Option<PathBuf>,

    /// PEM file of certificate revocation lists; what they revoke is not taken for the coordinator
    #[arg(long, global = true, value_name = "FILE", env = "CAUSEWAY_CRL")]
    pub crl: Option<PathBuf>,

    /// File with a token that says who you are; instead of --cert and --key, or besides
    #[arg(long, global = true, value_name = "FILE", env = "CAUSEWAY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Plain text without certificates, to a coordinator on this machine only
    #[arg(long, global = true, env = "CAUSEWAY_INSECURE", value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// Form of what is printed
    #[arg(short, long, global = true, value_name = "FORM", env = "CAUSEWAY_OUTPUT", value_enum, default_value_t)]
    pub output: Format,

    /// TOML file with defaults for these options, such as: coordinator = "db1:7440"
    #[arg(long, global = true, value_name = "FILE", env = "CAUSEWAY_CONFIG")]
    pub config: Option<PathBuf>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// The API's messages; a watch prints one object a line
    Json,
    /// The API's messages; a watch prints one document each
    Yaml,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Move databases: the source is dropped once the destination serves
    Move {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: KindCommand,
    },
    /// Copy databases: the source goes on serving
    Copy {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: KindCommand,
    },
    /// Look at operations, and overrides for when one side is gone for ever
    Operation {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: OperationCommand,
    },
    /// Databases of an instance
    Database {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: DatabaseCommand,
    },
    /// Instances that databases can be moved between
    Instance {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: InstanceCommand,
    },
    /// The coordinator itself
    Coordinator {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: CoordinatorCommand,
    },
    /// The coordinator's store
    Store {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: StoreCommand,
    },
    /// Who you are to the coordinator, who may do what, and tokens for users
    Auth {
        #[command(subcommand)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        command: AuthCommand,
    },
    /// Make a development CA, certificates for coordinator, agents and users, and policies to begin with
    Certs(CertsArgs),
    /// Show a whole move or copy on this machine: real processes, a live writer, and the proof
    Demo(DemoArgs),
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the version of this program, and that of the protocol it speaks
    Version,
}

impl GlobalArgs {
    /// The flags about certificates.
    pub fn tls(&self) -> TlsArgs {
        TlsArgs {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            crl: self.crl.clone(),
            insecure: self.insecure,
        }
    }
}

fn instance_name(text: &str) -> Result<String, handover::IdError> {
    handover::InstanceName::parse(text).map(|name| name.as_str().to_owned())
}

fn database_name(text: &str) -> Result<String, handover::IdError> {
    handover::DatabaseName::parse(text).map(|name| name.as_str().to_owned())
}

fn operation_id(text: &str) -> Result<String, handover::IdError> {
    handover::OperationId::parse(text).map(|id| id.as_str().to_owned())
}

#[cfg(test)]
mod tests;
