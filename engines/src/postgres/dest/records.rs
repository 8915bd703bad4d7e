//! What is remembered in the replica itself, so that it is one transaction with the data it speaks of.

use super::{
    super::{
        apply::helpers,
        payload::{self, PlanHeader},
        position::Point,
        sql::{Sql, failed, literal},
    },
    sessions::Sessions,
};
use crate::{Error, Result, source::Plan};
use bytes::Bytes;
use handover::{Epoch, Position};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Made in an empty database, before it gets its name, with [`helpers::EMPTIED`].
const TABLES: &str = "
    CREATE SCHEMA causeway;
    CREATE TABLE causeway.epoch (epoch bigint NOT NULL);
    CREATE TABLE causeway.replica (generation bigint NOT NULL, plan text NOT NULL, seeded boolean NOT NULL DEFAULT false,
        extras text, armed boolean NOT NULL DEFAULT false, synced bigint NOT NULL DEFAULT 0);
    CREATE TABLE causeway.part (part bigint PRIMARY KEY, durable bigint NOT NULL, done boolean NOT NULL);
    CREATE TABLE causeway.piece (start bigint PRIMARY KEY, payload bytea NOT NULL);
    CREATE TABLE causeway.entry (id bigint PRIMARY KEY);
    CREATE TABLE causeway.catalog (marker text NOT NULL, line text NOT NULL);
    CREATE TABLE causeway.large_object (marker text NOT NULL, oid oid NOT NULL);
    CREATE TABLE causeway.disarmed (enable text NOT NULL)";

/// Tables of ours without a key. A publication of the user's for all tables is one for ours too, and would refuse changes.
const KEYLESS: [&str; 5] = ["epoch", "replica", "catalog", "large_object", "disarmed"];

/// What has to be known of a plan after a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) generation: u64,
    /// The parts' numbers, in the order of the header's kinds.
    pub(super) parts: Vec<u32>,
    pub(super) log_start: String,
    pub(super) header: PlanHeader,
}

impl Planned {
    pub(super) fn of(plan: &Plan, header: PlanHeader) -> Result<Self> {
        if header.parts.len() != plan.parts.len() {
            return Err(Error::Corrupt("the plan and its header differ in their parts".to_owned()));
        }
        // Read here, so that a bad one is refused before anything is made.
        Point::read(&plan.log_start)?;
        Ok(Self {
            generation: plan.generation,
            parts: plan.parts.iter().map(|part| part.part).collect(),
            log_start: plan.log_start.as_str().to_owned(),
            header,
        })
    }

    /// Where the log begins that has to be applied over the seed.
    pub(super) fn start(&self) -> Result<Point> {
        read_point(&self.log_start)
    }
}

/// How far a part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartRecord {
    pub(super) offset: u64,
    pub(super) done: bool,
}

/// All that is remembered.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) planned: Planned,
    pub(super) seeded: bool,
    /// Where the extras of a marker ended that were applied last.
    pub(super) extras: Option<Point>,
    /// Whether what is restored last is there and fires.
    pub(super) armed: bool,
    pub(super) parts: BTreeMap<u32, PartRecord>,
}

/// Statements that make what is remembered, for an empty database.
pub(super) fn make(planned: &Planned, epoch: Epoch) -> Result<String> {
    let plan = payload::encode(planned)?;
    let plan = std::str::from_utf8(&plan).map_err(|_| Error::Internal("JSON that is no text".to_owned()))?;
    let identities: String =
        KEYLESS.iter().map(|table| format!("ALTER TABLE causeway.{table} REPLICA IDENTITY FULL; ")).collect();
    Ok(format!(
        "BEGIN; {TABLES}; {}; {identities} INSERT INTO causeway.epoch VALUES ({}); INSERT INTO causeway.replica VALUES ({}, {}); COMMIT",
        helpers::EMPTIED,
        epoch.0,
        planned.generation,
        literal(plan)
    ))
}

/// A statement that fails unless the epoch is ours, and keeps it so until the transaction ends. See [`superseded`].
pub(super) fn check(epoch: Epoch) -> String {
    format!(
        "SELECT CASE WHEN epoch = {} THEN '' ELSE current_setting('{MARK}' || epoch) END FROM causeway.epoch FOR SHARE",
        epoch.0
    )
}

/// There is no such setting, and the server says so by its name; so the newer epoch comes along. Whatever fails for a value
/// may have its words suppressed.
const MARK: &str = "causeway.superseded_by_";

/// Recognises the failure of [`check`].
pub(super) fn superseded(ours: Epoch, error: Error) -> Error {
    let Error::Database { message, .. } = &error else { return error };
    let newer =
        message.split_once(MARK).map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    match newer.and_then(|digits| digits.parse().ok()) {
        Some(newer) => Error::Superseded { ours: ours.0, newer },
        None => error,
    }
}

/// Raises the epoch in the replica, so that an agent which had an older one writes nothing in it any more.
pub(super) async fn raise(sql: &Sql, epoch: Epoch) -> Result<()> {
    let what = "raise the epoch of the replica";
    let ours = i64::try_from(epoch.0).map_err(|_| Error::Internal("an epoch beyond all bounds".to_owned()))?;
    let raised = sql.execute("UPDATE causeway.epoch SET epoch = $1 WHERE epoch <= $1", &[&ours]).await;
    if raised.map_err(|error| failed(what, &error))? == 1 {
        return Ok(());
    }
    let row = sql.query_opt("SELECT epoch FROM causeway.epoch", &[]).await.map_err(|error| failed(what, &error))?;
    match row {
        Some(row) => Err(Error::Superseded { ours: epoch.0, newer: row.get::<_, i64>(0).cast_unsigned() }),
        None => Err(Error::Corrupt("the replica's epoch is gone".to_owned())),
    }
}

/// Reads all that is remembered.
pub(super) async fn read(sql: &Sql) -> Result<Remembered> {
    let what = "read what the replica remembers";
    let row = sql.query_opt("SELECT plan, seeded, extras, armed FROM causeway.replica", &[]).await;
    let row = row.map_err(|error| failed(what, &error))?;
    let row = row.ok_or_else(|| Error::Corrupt("the replica's record is gone".to_owned()))?;
    let rows = sql.query("SELECT part, durable, done FROM causeway.part", &[]).await;
    let rows = rows.map_err(|error| failed(what, &error))?;
    let mut parts = BTreeMap::new();
    for row in rows {
        let part = u32::try_from(row.get::<_, i64>(0));
        let part = part.map_err(|_| Error::Corrupt("the replica's record of its parts is damaged".to_owned()))?;
        parts.insert(part, PartRecord { offset: row.get::<_, i64>(1).cast_unsigned(), done: row.get(2) });
    }
    let extras: Option<&str> = row.get(2);
    Ok(Remembered {
        planned: payload::decode(row.get::<_, &str>(0).as_bytes())?,
        seeded: row.get(1),
        extras: extras.map(read_point).transpose()?,
        armed: row.get(3),
        parts,
    })
}

fn read_point(text: &str) -> Result<Point> {
    let position =
        Position::parse(text).ok_or_else(|| Error::Corrupt("a position that was noted is damaged".to_owned()))?;
    Point::read(&position)
}

/// Adds a piece of the schema durably.
pub(super) async fn put_piece(
    sessions: &Sessions,
    epoch: Epoch,
    part: u32,
    start: u64,
    payload: Bytes,
    next: u64,
) -> Result<()> {
    let what = "keep a piece of the schema";
    let mut sql = sessions.take().await?;
    let (start, next) = (start.cast_signed(), next.cast_signed());
    let work = async {
        let tx = sql.transaction().await?;
        tx.query(&check(epoch), &[]).await?;
        let put =
            "INSERT INTO causeway.piece VALUES ($1, $2) ON CONFLICT (start) DO UPDATE SET payload = excluded.payload";
        tx.execute(put, &[&start, &payload.as_ref()]).await?;
        let put = "INSERT INTO causeway.part VALUES ($1, $2, false) ON CONFLICT (part) DO UPDATE SET durable = excluded.durable";
        tx.execute(put, &[&i64::from(part), &next]).await?;
        tx.commit().await
    };
    work.await.map_err(|error| superseded(epoch, failed(what, &error)))?;
    sessions.give_back(sql);
    Ok(())
}

/// All pieces of the schema together.
pub(super) async fn pieces(sessions: &Sessions) -> Result<Vec<u8>> {
    let sql = sessions.take().await?;
    let rows = sql.query("SELECT payload FROM causeway.piece ORDER BY start", &[]).await;
    let rows = rows.map_err(|error| failed("read the schema that was kept", &error))?;
    sessions.give_back(sql);
    Ok(rows.iter().flat_map(|row| row.get::<_, &[u8]>(0).to_vec()).collect())
}

/// A statement that records a part, over what was recorded of it before.
pub(super) fn put_part(part: u32, offset: u64, done: bool) -> String {
    format!(
        "INSERT INTO causeway.part VALUES ({part}, {offset}, {done})
         ON CONFLICT (part) DO UPDATE SET durable = excluded.durable, done = excluded.done"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_epoch_is_recognised_in_the_servers_words() {
        let error =
            |message: &str| Error::Database { what: "x".to_owned(), message: message.to_owned(), transient: false };
        let refused = error("unrecognized configuration parameter \"causeway.superseded_by_17\" (SQLSTATE 42704)");
        assert!(matches!(superseded(Epoch(3), refused), Error::Superseded { ours: 3, newer: 17 }));
        assert!(matches!(superseded(Epoch(3), error("another")), Error::Database { .. }));
    }
}
