//! Arguments of `instance` and `database`.

use clap::{Args, Subcommand};

use super::{database_name, instance_name};

/// What can be done with instances.
#[derive(Debug, Clone, Subcommand)]
pub enum InstanceCommand {
    /// Make an instance known, or change what is known of it
    Register(Box<RegisterArgs>),
    /// All instances
    List,
    /// Forget an instance; its databases are not touched
    Remove {
        /// Which
        #[arg(value_parser = instance_name)]
        name: String,
    },
}

/// Arguments of `instance register`.
#[derive(Debug, Clone, Args)]
pub struct RegisterArgs {
    /// Its name: lower-case letters, digits, '-', '_'
    #[arg(value_parser = instance_name)]
    pub name: String,
    /// Its database engine: sqlite or postgres
    #[arg(long, value_name = "ENGINE", default_value = "sqlite")]
    pub engine: String,
    /// Address of its source agent; without, nothing can be moved away from it
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "",
        hide_default_value = true,
        required_unless_present = "dest_agent"
    )]
    pub source_agent: String,
    /// Address of its destination agent; without, nothing can be moved to it
    #[arg(long, value_name = "HOST:PORT", default_value = "", hide_default_value = true)]
    pub dest_agent: String,
    /// Address of its destination agent as source agents reach it, if that is another one
    #[arg(long, value_name = "HOST:PORT", default_value = "", hide_default_value = true)]
    pub transfer_address: String,
    /// Source and destination must have the same subscription
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub subscription: String,
    /// Group that permissions are given on
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub resource_group: String,
    /// Source and destination must have the same region
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub region: String,
    /// The failover group it belongs to; nothing can be moved from or to it then
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub failover_group: String,
    /// Name in the certificate of its source agent [default: spiffe://causeway/agent-source/NAME]
    #[arg(long, value_name = "SAN", default_value = "", hide_default_value = true)]
    pub source_identity: String,
    /// Name in the certificate of its destination agent [default: spiffe://causeway/agent-dest/NAME]
    #[arg(long, value_name = "SAN", default_value = "", hide_default_value = true)]
    pub dest_identity: String,
}

/// What can be done with databases.
#[derive(Debug, Clone, Subcommand)]
pub enum DatabaseCommand {
    /// The user databases of an instance, and what stands in the way of moving them
    List {
        /// Which instance
        #[arg(value_parser = instance_name)]
        instance: String,
    },
    /// Remove the tombstone that a move left under a name
    Purge(PurgeArgs),
}

/// Arguments of `database purge`.
#[derive(Debug, Clone, Args)]
pub struct PurgeArgs {
    /// Which instance
    #[arg(value_parser = instance_name)]
    pub instance: String,
    /// The name of the database that moved away
    #[arg(value_parser = database_name)]
    pub database: String,
}
