//! How the application behaves, as options of the `write` command and as a value.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;

use crate::{driver::Driver, postgres, sqlite};

/// How the application behaves. The field docs are the help text of the command.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct WriteOptions {
    /// The database: a SQLite file, or a PostgreSQL connection string ("postgres://..." or "host=...")
    #[arg(long, visible_alias = "postgres", value_name = "FILE|DSN")]
    pub db: PathBuf,
    /// The history to append to
    #[arg(long)]
    pub history: PathBuf,
    /// Where the database may have moved to when it accepts no writes any more; may be given several times
    #[arg(long, value_name = "FILE|DSN")]
    pub follow: Vec<PathBuf>,
    /// How many writers
    #[arg(long, default_value_t = 1)]
    pub writers: u32,
    /// The number of the first writer
    #[arg(long, default_value_t = 0)]
    pub first_writer: u32,
    /// Run each writer in a process of its own, not in a thread
    #[arg(long)]
    pub processes: bool,
    /// How many readers that hold snapshots
    #[arg(long, default_value_t = 0)]
    pub readers: u32,
    /// How long a reader holds a snapshot, in milliseconds
    #[arg(long, default_value_t = 500)]
    pub reader_hold_ms: u64,
    /// How long it rests between two; without a rest a TRUNCATE checkpoint hardly ever finds its moment
    #[arg(long, default_value_t = 100)]
    pub reader_pause_ms: u64,
    /// Transactions a second over all writers; 0: as fast as it goes
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Seconds until it ends by itself; 0: only by SIGTERM or SIGINT
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// End each writer after so many commits; 0: no limit
    #[arg(long, default_value_t = 0)]
    pub transactions: u64,
    /// Bytes of a ledger row's note
    #[arg(long, default_value_t = 200)]
    pub payload: usize,
    /// Also insert scratch rows of up to so many bytes, and delete them now and then; 0: none
    #[arg(long, default_value_t = 0)]
    pub churn: u32,
    /// SQLite: PRAGMA synchronous of every connection
    #[arg(long, default_value = "NORMAL")]
    pub synchronous: String,
    /// SQLite: journal mode set at the start; empty: leave it as it is
    #[arg(long, default_value = "WAL")]
    pub journal_mode: String,
    /// SQLite: page size, if the database is new; 0: SQLite's own
    #[arg(long, default_value_t = 0)]
    pub page_size: u32,
    /// NONE, FULL or INCREMENTAL, if the database is new; empty: SQLite's own
    #[arg(long, default_value = "")]
    pub auto_vacuum: String,
    /// A further NAME=VALUE set on every connection: a PRAGMA of SQLite, for instance locking_mode=EXCLUSIVE, or a parameter of
    /// PostgreSQL; may be given several times
    #[arg(long)]
    pub pragma: Vec<String>,
    /// Checkpoint with TRUNCATE (PostgreSQL: TRUNCATE a table) after every so many transactions of a writer; 0: never
    #[arg(long, default_value_t = 0)]
    pub truncate_every: u64,
    /// Close and open the connection after every so many
    #[arg(long, default_value_t = 0)]
    pub reopen_every: u64,
    /// VACUUM after every so many
    #[arg(long, default_value_t = 0)]
    pub vacuum_every: u64,
    /// Make every so manyth transaction so big that the page cache spills
    #[arg(long, default_value_t = 0)]
    pub big_every: u64,
    /// Roll every so manyth transaction back after it spilled
    #[arg(long, default_value_t = 0)]
    pub rollback_every: u64,
    /// Do part of every so manyth transaction in savepoints, one kept and one taken back
    #[arg(long, default_value_t = 0)]
    pub savepoint_every: u64,
    /// Let every so manyth transaction wait after its first row, so that others overtake it
    #[arg(long, default_value_t = 0)]
    pub linger_every: u64,
    /// How long it waits then, in milliseconds
    #[arg(long, default_value_t = 30)]
    pub linger_ms: u64,
    /// How long a statement waits for a lock, in milliseconds
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
    /// Go on trying when the database is read-only (implied by --follow)
    #[arg(long)]
    pub keep_trying: bool,
    /// End a writer when it is refused as read-only, even with --follow
    #[arg(long)]
    pub exit_when_fenced: bool,
    /// Transactions that take longer count as stalls, in milliseconds
    #[arg(long, default_value_t = 50)]
    pub stall_ms: u64,
    /// Same seed, same sizes of scratch rows
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The database has its tables already; do not create anything
    #[arg(long)]
    pub no_setup: bool,
    /// End at once when the process that started this one ends
    #[arg(long, hide = true)]
    pub die_with_parent: bool,
}

impl WriteOptions {
    /// One writer as fast as it goes for ten seconds; change the fields for anything else.
    pub fn new(db: impl Into<PathBuf>, history: impl Into<PathBuf>) -> Self {
        Self {
            db: db.into(),
            history: history.into(),
            follow: Vec::new(),
            writers: 1,
            first_writer: 0,
            processes: false,
            readers: 0,
            reader_hold_ms: 500,
            reader_pause_ms: 100,
            rate: 0.0,
            duration: 10.0,
            transactions: 0,
            payload: 200,
            churn: 0,
            synchronous: "NORMAL".into(),
            journal_mode: "WAL".into(),
            page_size: 0,
            auto_vacuum: String::new(),
            pragma: Vec::new(),
            truncate_every: 0,
            reopen_every: 0,
            vacuum_every: 0,
            big_every: 0,
            rollback_every: 0,
            savepoint_every: 0,
            linger_every: 0,
            linger_ms: 30,
            timeout_ms: 5000,
            keep_trying: false,
            exit_when_fenced: false,
            stall_ms: 50,
            seed: 1,
            no_setup: false,
            die_with_parent: false,
        }
    }

    /// The arguments of the `write` command that mean these options.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut value = |name: &str, value: OsString| {
            let mut arg = OsString::from(format!("--{name}="));
            arg.push(value);
            args.push(arg);
        };
        value("db", self.db.clone().into());
        value("history", self.history.clone().into());
        self.follow.iter().for_each(|path| value("follow", path.clone().into()));
        self.pragma.iter().for_each(|pragma| value("pragma", pragma.into()));
        for (name, number) in [
            ("writers", self.writers.into()),
            ("first-writer", self.first_writer.into()),
            ("readers", self.readers.into()),
            ("reader-hold-ms", self.reader_hold_ms),
            ("reader-pause-ms", self.reader_pause_ms),
            ("transactions", self.transactions),
            ("payload", self.payload as u64),
            ("churn", self.churn.into()),
            ("page-size", self.page_size.into()),
            ("truncate-every", self.truncate_every),
            ("reopen-every", self.reopen_every),
            ("vacuum-every", self.vacuum_every),
            ("big-every", self.big_every),
            ("rollback-every", self.rollback_every),
            ("savepoint-every", self.savepoint_every),
            ("linger-every", self.linger_every),
            ("linger-ms", self.linger_ms),
            ("timeout-ms", self.timeout_ms),
            ("stall-ms", self.stall_ms),
            ("seed", self.seed),
        ] {
            value(name, number.to_string().into());
        }
        value("rate", self.rate.to_string().into());
        value("duration", self.duration.to_string().into());
        value("synchronous", self.synchronous.clone().into());
        value("journal-mode", self.journal_mode.clone().into());
        value("auto-vacuum", self.auto_vacuum.clone().into());
        for (name, on) in [
            ("--processes", self.processes),
            ("--keep-trying", self.keep_trying),
            ("--exit-when-fenced", self.exit_when_fenced),
            ("--no-setup", self.no_setup),
            ("--die-with-parent", self.die_with_parent),
        ] {
            if on {
                args.push(name.into());
            }
        }
        args
    }

    /// Where the application looks for its database.
    pub(crate) fn places(&self) -> Box<dyn Driver> {
        if postgres::is_place(&self.db) {
            let dsns = std::iter::once(&self.db).chain(&self.follow).map(|dsn| dsn.to_string_lossy().into_owned());
            return Box::new(postgres::Places {
                dsns: dsns.collect(),
                lock_timeout: Duration::from_millis(self.timeout_ms),
                settings: self.own_settings(),
            });
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut creation_pragmas = Vec::new();
        if self.page_size > 0 {
            creation_pragmas.push(pair("page_size", &self.page_size.to_string()));
        }
        if !self.auto_vacuum.is_empty() {
            creation_pragmas.push(pair("auto_vacuum", &self.auto_vacuum));
        }
        if !self.journal_mode.is_empty() {
            creation_pragmas.push(pair("journal_mode", &self.journal_mode));
        }
        let mut pragmas = vec![pair("synchronous", &self.synchronous)];
        pragmas.extend(self.own_settings());
        let paths = std::iter::once(&self.db).chain(&self.follow).cloned().collect();
        let busy_timeout = Duration::from_millis(self.timeout_ms);
        Box::new(sqlite::Places { paths, busy_timeout, pragmas, creation_pragmas })
    }

    fn own_settings(&self) -> Vec<(String, String)> {
        let pairs = self.pragma.iter().filter_map(|p| p.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: WriteOptions,
    }

    fn parse(args: Vec<OsString>) -> WriteOptions {
        Cli::parse_from(std::iter::once("write".into()).chain(args)).options
    }

    #[test]
    fn the_defaults_of_the_command_and_of_the_value_agree() {
        assert_eq!(parse(vec!["--db=a".into(), "--history=h".into()]), WriteOptions::new("a", "h"));
    }

    #[test]
    fn every_option_survives_the_way_through_arguments() {
        let options = WriteOptions {
            follow: vec!["b".into(), "c d".into()],
            writers: 2,
            first_writer: 3,
            processes: true,
            readers: 4,
            reader_hold_ms: 5,
            reader_pause_ms: 19,
            rate: 6.5,
            duration: 7.25,
            transactions: 8,
            payload: 9,
            churn: 10,
            synchronous: "FULL".into(),
            journal_mode: String::new(),
            page_size: 512,
            auto_vacuum: "FULL".into(),
            pragma: vec!["locking_mode=EXCLUSIVE".into()],
            truncate_every: 11,
            reopen_every: 12,
            vacuum_every: 13,
            big_every: 14,
            rollback_every: 15,
            savepoint_every: 20,
            linger_every: 21,
            linger_ms: 22,
            timeout_ms: 16,
            keep_trying: true,
            exit_when_fenced: true,
            stall_ms: 17,
            seed: 18,
            no_setup: true,
            die_with_parent: true,
            ..WriteOptions::new("a", "h")
        };
        assert_eq!(parse(options.to_args()), options);
    }
}
