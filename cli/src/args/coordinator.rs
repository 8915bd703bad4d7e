//! Arguments of `coordinator`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What can be done with a coordinator.
#[derive(Debug, Clone, Subcommand)]
pub enum CoordinatorCommand {
    /// Take up the operations that the agents remember, with a coordinator whose store was lost
    Adopt(AdoptArgs),
}

/// Arguments of `coordinator adopt`.
#[derive(Debug, Clone, Args)]
pub struct AdoptArgs {
    /// TOML file with an [[instance]] section for each instance to be registered first, as in the coordinator's configuration
    #[arg(long, value_name = "FILE")]
    pub instances: Option<PathBuf>,
    /// Only tell what would be taken up; instances of the file are registered all the same
    #[arg(long)]
    pub validate_only: bool,
}

/// What can be done with a store.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Copy a store to another, such as from a file to etcd; no coordinator may use either meanwhile
    Copy {
        /// Where it is: redb:PATH or etcd://HOST:PORT,HOST:PORT/PREFIX
        from: String,
        /// Where it is to be; must be empty
        to: String,
    },
}
