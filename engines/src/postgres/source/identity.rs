//! Tables whose changes could not be published: they are given REPLICA IDENTITY FULL, and at the end what they had.

use super::{
    super::{
        rows::rows,
        sql::{Sql, ident, qualified},
        states,
        types::CARRIED,
    },
    memo::{Identity, Memo},
};
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// Waiting for the lock holds up everybody who comes after us, so each try is short, and clients get on between two.
const LOCK_TRY: &str = "200ms";
const LOCK_PAUSE: Duration = Duration::from_millis(300);
/// A table that is locked for longer is a finding for a person.
const LOCK_TIME_MAX: Duration = Duration::from_secs(20);

/// Tables that need another identity: no primary key that is checked at once, and no index named instead.
/// Generated columns are not in the log, so a key with one is as good as none.
pub(super) async fn needed(sql: &Sql) -> Result<Vec<Identity>> {
    let query = format!(
        "SELECT n.nspname, c.relname, c.relreplident,
                    (SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                     WHERE i.indrelid = c.oid AND i.indisreplident)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {CARRIED} AND c.relpersistence = 'p' AND c.relreplident <> 'f' AND NOT EXISTS (
                 SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
                   AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
                   AND NOT EXISTS (SELECT FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attnum = ANY (i.indkey)
                       AND g.attgenerated <> ''))
             ORDER BY 1, 2"
    );
    let found = rows(sql, "look for tables without a usable key", &query);
    let identity = |row: &crate::postgres::rows::Row| Identity {
        schema: row.owned(0),
        name: row.owned(1),
        was: row.owned(2),
        index: row.maybe(3).map(str::to_owned),
    };
    Ok(found.await?.iter().map(identity).collect())
}

/// Gives a table the identity FULL.
pub(super) async fn make_full(sql: &Sql, table: &Identity) -> Result<()> {
    alter(sql, table, "FULL".to_owned()).await
}

/// Gives all tables back what they had. One that is gone, or was given something else meanwhile, is left alone.
pub(super) async fn restore(sql: &Sql, memo: &Memo) -> Result<()> {
    if memo.identities.is_empty() {
        return Ok(());
    }
    let full = rows(
        sql,
        "look for tables with full identity",
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relreplident = 'f'",
    );
    let full: std::collections::HashSet<(String, String)> =
        full.await?.iter().map(|row| (row.owned(0), row.owned(1))).collect();
    for table in &memo.identities {
        if !full.contains(&(table.schema.clone(), table.name.clone())) {
            continue;
        }
        let identity = match (table.was.as_str(), &table.index) {
            ("n", _) => "NOTHING".to_owned(),
            ("i", Some(index)) => format!("USING INDEX {}", ident(index)),
            _ => "DEFAULT".to_owned(),
        };
        match alter(sql, table, identity).await {
            // The index that it once had may be gone; then there is nothing to give back.
            Err(error) if table.was == "i" && states::is_one_of(&error, &["42704"]) => {
                alter(sql, table, "DEFAULT".to_owned()).await?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Changes an identity as soon as the table is free for a moment.
async fn alter(sql: &Sql, table: &Identity, identity: String) -> Result<()> {
    let name = qualified(&table.schema, &table.name);
    let what = format!("change the replica identity of {name}");
    let statements = format!(
        "BEGIN; SET LOCAL lock_timeout = '{LOCK_TRY}'; ALTER TABLE ONLY {name} REPLICA IDENTITY {identity}; COMMIT"
    );
    let until = Instant::now() + LOCK_TIME_MAX;
    loop {
        let Err(error) = sql.run(&what, &statements).await else { return Ok(()) };
        sql.run(&what, "ROLLBACK").await?;
        // Dropped meanwhile.
        if states::is_one_of(&error, &["42P01"]) {
            return Ok(());
        }
        // Lock not available, or a deadlock with somebody.
        if !states::is_one_of(&error, &["55P03", "40P01"]) {
            return Err(error);
        }
        if Instant::now() >= until {
            return Err(Error::Busy(format!(
                "the table {name} is kept locked by clients, so its replica identity cannot be changed"
            )));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
