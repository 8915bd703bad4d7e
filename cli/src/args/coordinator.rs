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
