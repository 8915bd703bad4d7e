//! One application connection to SQLite: its transactions, chores and snapshots.

use std::{io, thread, time::Duration};

use rusqlite::{Connection, MAIN_DB, OptionalExtension, params};

use super::error;
use crate::{
    driver::{Chore, Error, Session, Snapshot, Work},
    transaction::Chain,
};

const LEDGER: &str = "INSERT INTO ledger VALUES(?,?,?,?,?,?)";
const MOVE_MONEY: &str = "UPDATE account SET balance = balance + ? WHERE id = ?";
const LIST_END: &str = "SELECT coalesce(max(position), 0) + 1 FROM list WHERE key = ?";
const LIST_APPEND: &str = "INSERT INTO list VALUES(?,?,?,?)";
const CHAIN: &str = "INSERT INTO chain VALUES(?,?,?)
    ON CONFLICT(writer) DO UPDATE SET seq = excluded.seq, digest = excluded.digest";

/// Bytes of each row that makes a transaction spill: 64 of them are more than the default page cache of 2 MB.
const BIG_ROW: u32 = 100_000;
const BIG_ROWS: u32 = 64;

pub(super) struct SqliteSession {
    conn: Connection,
}

impl SqliteSession {
    pub(super) fn new(conn: Connection) -> Self {
        Self { conn }
    }

    /// Everything between BEGIN and COMMIT; says at which position of its list the transaction stands.
    fn write(&self, work: &Work) -> rusqlite::Result<i64> {
        let t = &work.transaction;
        let (writer, seq) = (i64::from(t.writer), t.seq as i64);
        let run = |sql, params: &[&dyn rusqlite::ToSql]| self.conn.prepare_cached(sql)?.execute(params);
        run(LEDGER, params![writer, seq, t.src, t.dst, t.amount, t.note])?;
        if !work.linger.is_zero() {
            thread::sleep(work.linger);
        }
        if work.savepoints {
            self.conn.execute_batch("SAVEPOINT taken_back")?;
            run("UPDATE ledger SET amount = 0 WHERE writer = ? AND seq = ?", params![writer, seq])?;
            self.conn.execute_batch("ROLLBACK TO taken_back; RELEASE taken_back; SAVEPOINT kept")?;
        }
        run(MOVE_MONEY, params![-t.amount, t.src])?;
        run(MOVE_MONEY, params![t.amount, t.dst])?;
        let position = self.conn.prepare_cached(LIST_END)?.query_row([t.list], |r| r.get(0))?;
        run(LIST_APPEND, params![t.list, position, writer, seq])?;
        run(CHAIN, params![writer, seq, work.chain.digest])?;
        if work.savepoints {
            self.conn.execute_batch("RELEASE kept")?;
        }
        if work.churn_bytes > 0 {
            run("INSERT INTO scratch(body) VALUES(zeroblob(?))", params![work.churn_bytes])?;
        }
        if let Some(class) = work.sweep {
            run("DELETE FROM scratch WHERE id % 3 = ?", params![class])?;
        }
        if work.big || work.rollback {
            for _ in 0..BIG_ROWS {
                run("INSERT INTO scratch(body) VALUES(randomblob(?))", params![BIG_ROW])?;
            }
        }
        if work.big {
            run("DELETE FROM scratch WHERE length(body) = ?", params![BIG_ROW])?;
        }
        Ok(position)
    }

    fn run(&self, work: &Work, attempted: &mut dyn FnMut(i64) -> io::Result<()>) -> Result<(), Error> {
        self.conn.execute_batch("BEGIN IMMEDIATE").map_err(error("begin"))?;
        let position = self.write(work).map_err(error("write"))?;
        if work.rollback {
            return self.conn.execute_batch("ROLLBACK").map_err(error("roll back"));
        }
        attempted(position)?;
        self.conn.execute_batch("COMMIT").map_err(error("commit"))
    }

    fn hold(&self, list: i64, hold: Duration) -> rusqlite::Result<Snapshot> {
        let sum = || self.conn.query_row("SELECT sum(balance) FROM account", [], |r| r.get(0));
        self.conn.execute_batch("BEGIN")?;
        let sum_first = sum()?;
        thread::sleep(hold);
        let mut select = self.conn.prepare_cached("SELECT writer, seq FROM list WHERE key = ? ORDER BY position")?;
        let items = select.query_map([list], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let sum_last = sum()?;
        self.conn.execute_batch("COMMIT")?;
        Ok(Snapshot { sum_first, sum_last, items })
    }

    /// Leaves no transaction open, whatever failed; a failing ROLLBACK adds nothing to the first error.
    fn abandon(&self) {
        if !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }
}

impl Session for SqliteSession {
    fn chain(&mut self, writer: u32) -> Result<Chain, Error> {
        let row = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)?, r.get(1)?));
        let sql = "SELECT seq, digest FROM chain WHERE writer = ?";
        let found = self.conn.query_row(sql, [writer], row).optional().map_err(error("read the chain"))?;
        Ok(found.map_or_else(Chain::default, |(seq, digest)| Chain { seq: seq.unsigned_abs(), digest }))
    }

    fn is_fenced(&self) -> Result<bool, Error> {
        self.conn.is_readonly(MAIN_DB).map_err(error("ask whether it is read-only"))
    }

    fn transact(&mut self, work: &Work, attempted: &mut dyn FnMut(i64) -> io::Result<()>) -> Result<(), Error> {
        self.run(work, attempted).inspect_err(|_| self.abandon())
    }

    fn keep_house(&mut self, chore: Chore) -> Result<(), Error> {
        match chore {
            Chore::Truncate => {
                self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(error("empty the log"))
            }
            Chore::Vacuum => self.conn.execute_batch("VACUUM").map_err(error("vacuum")),
        }
    }

    fn snapshot(&mut self, list: i64, hold: Duration) -> Result<Snapshot, Error> {
        self.hold(list, hold).map_err(error("hold a snapshot")).inspect_err(|_| self.abandon())
    }
}
