//! Runs entries of a dump, each together with the record that it is there.

use super::{super::payload::Entry, live::Live};
use crate::{
    Error, Result,
    postgres::{
        sql::{Sql, failed},
        states,
    },
};
use std::collections::HashSet;

/// Two statements may wait for each other; the one that the server ends is simply run again, so often.
const RETRIES_MAX: u32 = 10;

/// The entries that are there.
pub(super) async fn done(sql: &Sql) -> Result<HashSet<u32>> {
    let rows = sql.query_typed("SELECT id FROM causeway.entry", &[]).await;
    let rows = rows.map_err(|error| failed("read which entries of the schema are there", &error))?;
    rows.iter()
        .map(|row| u32::try_from(row.get::<_, i64>(0)))
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Error::Corrupt("the record of entries is damaged".to_owned()))
}

/// Runs several in one transaction; answers the session, or another one if that one was lost.
///
/// If one fails, all are run one by one, so that the error names it.
pub(super) async fn run_batch(live: &Live, sql: Sql, entries: &[&Entry]) -> Result<Sql> {
    match entries {
        [] => return Ok(sql),
        [entry] => {
            run(live, &sql, entry).await?;
            return Ok(sql);
        }
        _ => {}
    }
    let statements: Vec<&str> = entries.iter().map(|entry| entry.sql.as_str()).collect();
    let records: Vec<String> = entries.iter().map(|entry| format!("({})", entry.id)).collect();
    let batch = format!("{};\nINSERT INTO causeway.entry VALUES {}", statements.join(";\n"), records.join(", "));
    match live.transact_in(&sql, "make a part of the schema", &batch).await {
        Ok(()) => return Ok(sql),
        Err(Error::Database { .. }) if !sql.is_closed() => {}
        Err(error) => return Err(error),
    }
    roll_back(&sql).await?;
    for entry in entries {
        run(live, &sql, entry).await?;
    }
    Ok(sql)
}

/// Runs one.
pub(super) async fn run(live: &Live, sql: &Sql, entry: &Entry) -> Result<()> {
    let what = format!("create {} {:?}", entry.kind, entry.name);
    let statements = format!("{};\nINSERT INTO causeway.entry VALUES ({})", entry.sql, entry.id);
    let mut tries = 0;
    loop {
        let error = match live.transact_in(sql, &what, &statements).await {
            Ok(()) => return Ok(()),
            Err(error @ Error::Database { .. }) if !sql.is_closed() => error,
            Err(error) => return Err(error),
        };
        roll_back(sql).await?;
        // A session that was cut off may have made it after all.
        if done(sql).await?.contains(&entry.id) {
            return Ok(());
        }
        tries += 1;
        // A deadlock, or a lock that is not available.
        if !states::is_one_of(&error, &["40P01", "55P03"]) || tries > RETRIES_MAX {
            return Err(error);
        }
    }
}

async fn roll_back(sql: &Sql) -> Result<()> {
    sql.run("roll back", "ROLLBACK").await
}

/// Runs a statement that drops something; it is right too if that is not there.
pub(super) async fn drop_unless_gone(live: &Live, sql: &Sql, statement: &str) -> Result<()> {
    match live.transact_in(sql, "drop what the source has not", statement).await {
        Err(error) if states::is_one_of(&error, &["3F000", "42704", "42P01"]) => roll_back(sql).await,
        done => done,
    }
}
