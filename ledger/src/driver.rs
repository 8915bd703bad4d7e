//! What the writer and the checker ask of a database engine, so that one workload runs against every engine.

use std::{error, io, time::Duration};

use crate::transaction::{Chain, Transaction};

type Cause = Box<dyn error::Error + Send + Sync>;

/// Why a database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database accepts no write; it is fenced, or a tombstone stands in its place.
    #[error("{stage}: refused as read-only")]
    Fenced {
        /// What was being done.
        stage: &'static str,
        /// What the engine said.
        #[source]
        cause: Cause,
    },
    /// Anything else; the transaction has no effect, except that a failed commit leaves its outcome unknown.
    #[error("{stage}")]
    Failed {
        /// What was being done.
        stage: &'static str,
        /// What the engine said.
        #[source]
        cause: Cause,
    },
    /// The history could not be written; nothing may be written to a database without it.
    #[error("append to the history")]
    History(#[from] io::Error),
}

impl Error {
    /// Whether the database refuses writes, as opposed to having failed at one.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }

    /// Whether connecting anew and trying again may help. Only a history that cannot be written is final.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::History(_))
    }

    /// The whole chain of causes in one line, for the history.
    pub fn in_one_line(&self) -> String {
        let mut text = self.to_string();
        let mut cause = error::Error::source(self);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text.replace(['\n', '\r'], " ")
    }
}

/// One transaction and what goes on around it.
#[derive(Debug, Clone)]
pub struct Work {
    /// What is written to the ledger.
    pub transaction: Transaction,
    /// The writer's chain with it.
    pub chain: Chain,
    /// Also insert a scratch row of so many bytes; 0 for none.
    pub churn_bytes: u32,
    /// Also delete the scratch rows of this class (0, 1 or 2).
    pub sweep: Option<u8>,
    /// Also insert and delete several megabytes, which spills the page cache into the log.
    pub big: bool,
    /// Do all of it, spill as well, and roll back.
    pub rollback: bool,
    /// Do part of it in a savepoint that is kept, and something else in one that is taken back.
    pub savepoints: bool,
    /// How long to wait after the first row was written.
    pub linger: Duration,
}

/// What applications do besides transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chore {
    /// SQLite: empty the log (`wal_checkpoint(TRUNCATE)`). PostgreSQL, which does that by itself: `TRUNCATE` a table.
    Truncate,
    /// SQLite: rewrite the database without its free space. PostgreSQL: `VACUUM ANALYZE`.
    Vacuum,
}

/// What a reader sees in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Sum of all balances when the snapshot was taken.
    pub sum_first: i64,
    /// Sum of all balances at its end.
    pub sum_last: i64,
    /// (writer, seq) of the list's items, in the order of their positions.
    pub items: Vec<(i64, i64)>,
}

/// Where an application finds its database: the places it may be at, first the one it starts with.
pub trait Driver: Sync {
    /// Creates the ledger's tables at the first place, keeping those that exist. Idempotent.
    fn set_up(&self) -> Result<(), Error>;

    /// How many places there are, at least one.
    fn places(&self) -> usize;

    /// The name of a place, as the history shows it.
    fn name(&self, place: usize) -> String;

    /// The pause between two attempts to connect, of all writers together: an attempt may cost the server a process.
    fn retry_pause(&self) -> Duration {
        Duration::ZERO
    }

    /// Connects to a database that exists, as an application does; never creates one.
    fn connect(&self, place: usize) -> Result<Box<dyn Session>, Error>;
}

/// One application connection.
pub trait Session {
    /// The writer's chain row: which of its transactions the database holds.
    fn chain(&mut self, writer: u32) -> Result<Chain, Error>;

    /// Whether the database is known to refuse writes; meaningful after something was read.
    fn is_fenced(&self) -> Result<bool, Error>;

    /// Runs one transaction. `attempted` gets the position in the list, inside the transaction right before COMMIT;
    /// if it fails nothing is committed. An error before `attempted` means no effect, after it an unknown outcome.
    fn transact(&mut self, work: &Work, attempted: &mut dyn FnMut(i64) -> io::Result<()>) -> Result<(), Error>;

    /// Does a chore outside any transaction.
    fn keep_house(&mut self, chore: Chore) -> Result<(), Error>;

    /// Holds a snapshot for `hold` and says what it showed of the balances and of one list.
    fn snapshot(&mut self, list: i64, hold: Duration) -> Result<Snapshot, Error>;
}

/// A row of the ledger as a database holds it, not yet believed.
#[derive(Debug, Clone)]
pub struct LedgerRow {
    /// Who wrote it.
    pub writer: i64,
    /// Its number.
    pub seq: i64,
    /// (payer, payee, amount).
    pub transfer: (i64, i64, i64),
    /// Its bytes.
    pub note: Vec<u8>,
}

/// An item of a list as a database holds it, not yet believed.
#[derive(Debug, Clone, Copy)]
pub struct ListItem {
    /// Which list.
    pub list: i64,
    /// Its place in the list, from 1.
    pub position: i64,
    /// Who appended it.
    pub writer: i64,
    /// The transaction that appended it.
    pub seq: i64,
}

/// The content of one table, for comparing databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableHash {
    /// The table, or a word in angle brackets for what belongs to none (the schema).
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// Hash over all rows in order.
    pub hash: u128,
}

/// One consistent, read-only view of a database, for the checker. Opening and closing it changes nothing on disk.
pub trait View {
    /// Every ledger row, ordered by writer and seq.
    fn ledger(&self, each: &mut dyn FnMut(LedgerRow)) -> Result<(), Error>;

    /// Every chain row: (writer, seq, digest).
    fn chains(&self) -> Result<Vec<(i64, i64, Vec<u8>)>, Error>;

    /// Every account: (id, balance), ordered by id.
    fn balances(&self) -> Result<Vec<(i64, i64)>, Error>;

    /// Every list item, ordered by list and position.
    fn items(&self, each: &mut dyn FnMut(ListItem)) -> Result<(), Error>;

    /// "ok", or what the engine's own check of the file found.
    fn integrity(&self) -> Result<String, Error>;

    /// The content of every table and the schema.
    fn content(&self) -> Result<Vec<TableHash>, Error>;
}
