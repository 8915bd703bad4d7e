//! Arguments of `auth`.

use clap::{Args, Subcommand};

/// What to ask or make.
#[derive(Debug, Clone, Subcommand)]
pub enum AuthCommand {
    /// Who you are to the coordinator
    Whoami,
    /// Whether the policies allow something, and which of them decides; ends with 6 if it is denied
    Check(CheckArgs),
    /// Make a token for a user: prints the secret once, and the entry for the coordinator's --tokens file
    Token(TokenArgs),
}

/// Arguments of `auth check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Who: NAME or user:NAME, service:NAME, anonymous. Others than yourself need admin on the coordinator
    #[arg(value_name = "PRINCIPAL")]
    pub principal: String,
    /// What: read, write or admin
    #[arg(value_name = "ACTION", value_parser = ["read", "write", "admin"])]
    pub action: String,
    /// On what: database:INSTANCE/NAME, instance:NAME, resource-group:[SUBSCRIPTION/]NAME or coordinator
    #[arg(value_name = "RESOURCE")]
    pub resource: String,
}

/// Arguments of `auth token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// Whose token
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// Group of the user, for the policies; may be given several times
    #[arg(long, value_name = "NAME")]
    pub group: Vec<String>,
    /// How long it is good for; 0 for ever
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=3650))]
    pub days: u32,
}
