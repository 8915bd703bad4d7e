//! Arguments of `move`, `copy` and `operation`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{database_name, instance_name, operation_id};
use crate::units::{parse_bytes, parse_duration};

/// What can be done with moves, and with copies.
#[derive(Debug, Clone, Subcommand)]
pub enum KindCommand {
    /// Start: the databases are streamed to the destination and kept up to date there
    Start(StartArgs),
    /// Complete: the destination becomes the primary
    Complete(CompleteArgs),
    /// Cancel: the destination is discarded, the source stays as it is
    Cancel(CancelArgs),
    /// List them, newest first
    List(ListArgs),
}

/// Arguments of `start`.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// Instance the databases are at
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name)]
    pub source: String,
    /// Instance they shall be at
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name)]
    pub dest: String,
    /// A database; may be given several times
    #[arg(long, value_name = "NAME", required = true, value_parser = database_name)]
    pub database: Vec<String>,
    /// Only report what a preflight finds, all of it at once
    #[arg(long, conflicts_with = "watch")]
    pub validate_only: bool,
    /// Follow the operations until they are ready for completion
    #[arg(long)]
    pub watch: bool,
    /// How long it stays ready before it is cancelled by itself [default: the coordinator's, 24h]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub window: Option<Duration>,
    /// Most log the source may retain for it, such as 10GiB [default: the source agent's]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub log_budget: Option<u64>,
    /// The same id again answers the same operations, for scripts that retry [default: a new one]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// Which operations: by id, or by databases between two instances.
#[derive(Debug, Clone, Args)]
pub struct Selection {
    /// Operations by id
    #[arg(value_name = "ID", value_parser = operation_id, conflicts_with_all = ["source", "dest", "database"])]
    pub id: Vec<String>,
    /// Or: instance the databases are at
    #[arg(long, value_name = "INSTANCE", required_unless_present = "id", value_parser = instance_name)]
    pub source: Option<String>,
    /// Instance they go to
    #[arg(long, value_name = "INSTANCE", required_unless_present = "id", value_parser = instance_name)]
    pub dest: Option<String>,
    /// A database; may be given several times
    #[arg(long, value_name = "NAME", required_unless_present = "id", value_parser = database_name)]
    pub database: Vec<String>,
}

/// Arguments of `complete`.
#[derive(Debug, Clone, Args)]
pub struct CompleteArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub selection: Selection,
    /// Go back to ready rather than keep clients waiting longer [default: the coordinator's, 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub max_freeze: Option<Duration>,
    /// How long transactions running at the source may go on before they are ended [default: the coordinator's, 300ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub grace: Option<Duration>,
    /// Follow the operations to their end
    #[arg(long)]
    pub watch: bool,
}

/// Arguments of `cancel`.
#[derive(Debug, Clone, Args)]
pub struct CancelArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub selection: Selection,
    /// Follow the operations until both sides are clean
    #[arg(long)]
    pub watch: bool,
}

/// Which operations a list shows.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only from this instance
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name)]
    pub source: Option<String>,
    /// Only to this instance
    #[arg(long, value_name = "INSTANCE", value_parser = instance_name)]
    pub dest: Option<String>,
    /// Only of this database; may be given several times
    #[arg(long, value_name = "NAME", value_parser = database_name)]
    pub database: Vec<String>,
    /// Only those started by one request
    #[arg(long, value_name = "ID", value_parser = operation_id)]
    pub batch: Option<String>,
    /// Of the operations of a database between the same instances only the newest
    #[arg(long)]
    pub only_latest_per_database: bool,
    /// Only those that have not ended
    #[arg(long)]
    pub active: bool,
}

/// Arguments of `list`.
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub filter: Filter,
    /// At most so many; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: usize,
}

/// What can be done with any operation.
#[derive(Debug, Clone, Subcommand)]
pub enum OperationCommand {
    /// Everything that is known of operations
    Show {
        /// Which
        #[arg(value_name = "ID", required = true, value_parser = operation_id)]
        id: Vec<String>,
    },
    /// What is going on in words: since when, for whom it waits, who may write, and what you can do
    Explain {
        /// Which
        #[arg(value_name = "ID", value_parser = operation_id)]
        id: String,
    },
    /// Follow operations
    Watch(WatchArgs),
    /// Moves and copies, newest first
    List(ListArgs),
    /// Override: go on as if a side were cleaned up, because it is gone for ever
    Forget {
        /// Which side is gone
        #[arg(long, value_enum)]
        side: SideWord,
        #[command(flatten)]
        #[allow(missing_docs, reason = "a doc comment here would become help text")]
        target: Override,
    },
    /// Override: reopen the source without the destination's answer, because the destination is gone for ever
    ForceUnfence(Override),
    /// Override: open the destination without the source's last log, because the source is gone for ever
    ForcePromote(Override),
}

/// Arguments of `operation watch`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Which
    #[arg(value_name = "ID", required_unless_present = "batch", conflicts_with = "batch", value_parser = operation_id)]
    pub id: Vec<String>,
    /// All that were started by one request
    #[arg(long, value_name = "ID", value_parser = operation_id)]
    pub batch: Option<String>,
    /// Until when
    #[arg(long, value_enum, default_value_t)]
    pub until: WatchGoal,
}

/// When a watch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum WatchGoal {
    /// All are ready for completion, or ended
    Ready,
    /// All have ended
    #[default]
    Ended,
}

/// The target of an override, which is asked for twice.
#[derive(Debug, Clone, Args)]
pub struct Override {
    /// Which operation
    #[arg(value_name = "ID", value_parser = operation_id)]
    pub id: String,
    /// The id again, where nobody can be asked for it
    #[arg(long, value_name = "ID")]
    pub yes_i_know: Option<String>,
}

/// A side of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SideWord {
    /// The source instance
    Source,
    /// The destination instance
    Dest,
}
