//! Arguments of `certs` and `demo`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::instance_name;

/// Arguments of `certs`.
#[derive(Debug, Clone, Args)]
pub struct CertsArgs {
    /// Directory to write to; a CA that is there already goes on being used
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Instance whose two agents get certificates; may be given several times
    #[arg(long, value_name = "NAME", value_parser = instance_name)]
    pub instance: Vec<String>,
    /// User who gets a certificate; may be given several times
    #[arg(long, value_name = "NAME", default_value = "operator", value_parser = instance_name)]
    pub user: Vec<String>,
    /// Host name or IP address under which servers are reached, besides this machine; may be given several times
    #[arg(long, value_name = "HOST")]
    pub san: Vec<String>,
    /// How long the certificates are good for
    #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Revoke the certificate of this file name without ending, such as user-ann, and make nothing; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with_all = ["instance", "san", "days"])]
    pub revoke: Vec<String>,
}

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Database engine
    #[arg(long, value_enum, default_value_t)]
    pub engine: EngineWord,
    /// What to show
    #[arg(long, value_enum, default_value_t)]
    pub mode: DemoMode,
    /// Size of the database, in units of 1000000 bytes
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4000))]
    pub size_mb: u64,
    /// How long the application writes on while the operation is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Transactions a second of the application
    #[arg(long, value_name = "PER_SECOND", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub rate: u32,
    /// Directory to work in, new or empty [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave databases, certificates and logs behind
    #[arg(long)]
    pub keep: bool,
}

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum EngineWord {
    /// Embedded, nothing to install
    #[default]
    Sqlite,
    /// Servers of its own, from an installed PostgreSQL
    Postgres,
}

/// Copy or move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DemoMode {
    /// The source is dropped
    #[default]
    Move,
    /// The source goes on serving
    Copy,
}
