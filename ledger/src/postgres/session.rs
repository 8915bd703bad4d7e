//! One application connection to PostgreSQL: its transactions, chores and snapshots.

use std::{collections::HashMap, io, thread, time::Duration};

use postgres::{Client, IsolationLevel, Statement, Transaction as Tx, types::ToSql};

use super::error;
use crate::{
    driver::{Chore, Error, Session, Snapshot, Work},
    transaction::Chain,
};

const LEDGER: &str = "INSERT INTO ledger VALUES($1, $2, $3, $4, $5, $6)";
const MOVE_MONEY: &str = "UPDATE account SET balance = balance + $1 WHERE id = $2";
/// The row lock makes writers of the same list wait for each other, so that positions have no holes.
const LIST_END: &str = "UPDATE list_end SET position = position + 1 WHERE key = $1 RETURNING position";
const LIST_APPEND: &str = "INSERT INTO list VALUES($1, $2, $3, $4)";
const CHAIN: &str = "INSERT INTO chain VALUES($1, $2, $3)
    ON CONFLICT(writer) DO UPDATE SET seq = excluded.seq, digest = excluded.digest";
const SCRATCH: &str =
    "INSERT INTO scratch(body) SELECT decode(repeat(md5($1::text), 1 + $2::int / 16), 'hex') RETURNING id";
/// Leaves the large value alone, so that the log does not carry it.
const TOUCH: &str = "UPDATE scratch SET touched = touched + 1 WHERE id = $1";
/// Skips rows that another writer is at: they would wait for each other in a circle.
const SWEEP: &str = "DELETE FROM scratch WHERE id IN
    (SELECT id FROM scratch WHERE id % 3 = $1::bigint FOR UPDATE SKIP LOCKED)";
const TRAIL: &str = "INSERT INTO trail SELECT $1::bigint, 'step' FROM generate_series(1, 2)";
const TRAIL_ON: &str = "UPDATE trail SET word = word || '.' WHERE writer = $1";
const TRAIL_OFF: &str = "DELETE FROM trail WHERE writer = $1 AND length(word) > 6";
/// A value that is far too large for its page and hardly compresses.
const BIG: &str = "INSERT INTO scratch(touched, body)
    SELECT -1, decode(string_agg(md5(i::text || $1::text), ''), 'hex') FROM generate_series(1, 1500) i, generate_series(1, 16) r
    GROUP BY r";
const BIG_OFF: &str = "DELETE FROM scratch WHERE touched = -1";

pub(super) struct PostgresSession {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

impl PostgresSession {
    pub(super) fn new(client: Client) -> Self {
        Self { client, statements: HashMap::new() }
    }

    fn prepare(&mut self, sql: &[&'static str]) -> Result<(), postgres::Error> {
        for sql in sql {
            if !self.statements.contains_key(sql) {
                self.statements.insert(sql, self.client.prepare(sql)?);
            }
        }
        Ok(())
    }

    fn run(&mut self, work: &Work, attempted: &mut dyn FnMut(i64) -> io::Result<()>) -> Result<(), Error> {
        self.prepare(&[LEDGER, MOVE_MONEY, LIST_END, LIST_APPEND, CHAIN]).map_err(error("prepare"))?;
        let Self { client, statements } = self;
        let mut tx = client.transaction().map_err(error("begin"))?;
        let position = write(&mut tx, statements, work).map_err(error("write"))?;
        if work.rollback {
            return tx.rollback().map_err(error("roll back"));
        }
        attempted(position)?;
        tx.commit().map_err(error("commit"))
    }

    fn hold(&mut self, list: i64, hold: Duration) -> Result<Snapshot, postgres::Error> {
        let builder = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let mut tx = builder.start()?;
        const SUM: &str = "SELECT sum(balance)::bigint FROM account";
        let sum_first = tx.query_one(SUM, &[])?.try_get(0)?;
        thread::sleep(hold);
        let rows = tx.query("SELECT writer, seq FROM list WHERE key = $1 ORDER BY position", &[&list])?;
        let items =
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, postgres::Error>>()?;
        let sum_last = tx.query_one(SUM, &[])?.try_get(0)?;
        tx.commit()?;
        Ok(Snapshot { sum_first, sum_last, items })
    }
}

/// Everything between BEGIN and COMMIT; says at which position of its list the transaction stands. All writers lock in the
/// same order: list, the two accounts by number, what is theirs alone.
fn write(tx: &mut Tx<'_>, statements: &HashMap<&'static str, Statement>, work: &Work) -> Result<i64, postgres::Error> {
    let t = &work.transaction;
    let (writer, seq) = (i64::from(t.writer), t.seq as i64);
    let run = |tx: &mut Tx<'_>, sql: &'static str, params: &[&(dyn ToSql + Sync)]| match statements.get(sql) {
        Some(statement) => tx.execute(statement, params),
        None => tx.execute(sql, params),
    };
    run(tx, LEDGER, &[&writer, &seq, &t.src, &t.dst, &t.amount, &t.note])?;
    // It has its number now, early, and commits late: others that begin after it commit before it.
    if !work.linger.is_zero() {
        thread::sleep(work.linger);
    }
    if work.savepoints {
        let mut taken_back = tx.savepoint("taken_back")?;
        run(&mut taken_back, "INSERT INTO ledger VALUES($1, -1, 0, 0, 0, '')", &[&writer])?;
        run(&mut taken_back, "UPDATE ledger SET amount = 0 WHERE writer = $1 AND seq = $2", &[&writer, &seq])?;
        taken_back.rollback()?;
    }
    let position: i64 = match statements.get(LIST_END) {
        Some(statement) => tx.query_one(statement, &[&t.list])?,
        None => tx.query_one(LIST_END, &[&t.list])?,
    }
    .try_get(0)?;
    run(tx, LIST_APPEND, &[&t.list, &position, &writer, &seq])?;
    let mut transfers = [(t.src, -t.amount), (t.dst, t.amount)];
    transfers.sort_unstable();
    for (account, change) in transfers {
        run(tx, MOVE_MONEY, &[&change, &account])?;
    }
    if work.savepoints {
        let mut kept = tx.savepoint("kept")?;
        run(&mut kept, CHAIN, &[&writer, &seq, &work.chain.digest])?;
        kept.commit()?;
    } else {
        run(tx, CHAIN, &[&writer, &seq, &work.chain.digest])?;
    }
    clutter(tx, work, writer)?;
    Ok(position)
}

/// What the transaction does besides.
fn clutter(tx: &mut Tx<'_>, work: &Work, writer: i64) -> Result<(), postgres::Error> {
    let seq = work.transaction.seq as i64;
    if work.churn_bytes > 0 {
        let bytes = i32::try_from(work.churn_bytes).unwrap_or(i32::MAX);
        let id: i64 = tx.query_one(SCRATCH, &[&seq.to_string(), &bytes])?.try_get(0)?;
        tx.execute(TOUCH, &[&(id - 3)])?;
        tx.execute(TRAIL, &[&writer])?;
    }
    if let Some(class) = work.sweep {
        tx.execute(SWEEP, &[&i64::from(class)])?;
        tx.execute(TRAIL_ON, &[&writer])?;
        tx.execute(TRAIL_OFF, &[&writer])?;
    }
    if work.big || work.rollback {
        tx.execute(BIG, &[&format!("{writer}/{seq}")])?;
    }
    if work.big {
        tx.execute(BIG_OFF, &[])?;
    }
    Ok(())
}

impl Session for PostgresSession {
    fn chain(&mut self, writer: u32) -> Result<Chain, Error> {
        let sql = "SELECT seq, digest FROM chain WHERE writer = $1";
        let mut read = || match self.client.query_opt(sql, &[&i64::from(writer)])? {
            Some(row) => Ok(Chain { seq: row.try_get::<_, i64>(0)?.unsigned_abs(), digest: row.try_get(1)? }),
            None => Ok(Chain::default()),
        };
        read().map_err(error("read the chain"))
    }

    fn is_fenced(&self) -> Result<bool, Error> {
        Ok(self.client.is_closed())
    }

    fn transact(&mut self, work: &Work, attempted: &mut dyn FnMut(i64) -> io::Result<()>) -> Result<(), Error> {
        // A transaction that is dropped rolls itself back.
        self.run(work, attempted)
    }

    fn keep_house(&mut self, chore: Chore) -> Result<(), Error> {
        match chore {
            Chore::Truncate => self.client.batch_execute("TRUNCATE scratch").map_err(error("truncate")),
            Chore::Vacuum => self.client.batch_execute("VACUUM ANALYZE scratch").map_err(error("vacuum")),
        }
    }

    fn snapshot(&mut self, list: i64, hold: Duration) -> Result<Snapshot, Error> {
        self.hold(list, hold).map_err(error("hold a snapshot"))
    }
}
