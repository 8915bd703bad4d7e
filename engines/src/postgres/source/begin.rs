//! The first steps of an operation, in the order that hurts no client and leaves no trace once it is cleaned up.

use super::{
    Inner, ddl, holder, identity, instance,
    memo::{Memo, Slot},
    names::Names,
};
use crate::{
    Error, Result,
    postgres::{
        rows::{Row, one, rows},
        sql::{Sql, ident, literal},
        wire::Wire,
    },
};
use handover::source_role::SourceRole;
use std::time::Duration;

/// Records the operation and begins to retain its log.
pub(super) async fn begin(inner: &Inner, role: &SourceRole) -> Result<()> {
    inner.store.put_role(&role.operation, role).await?;
    complete(inner, role).await.map(drop)
}

/// What a beginning makes, or what is left to make of it: an agent that dies in the middle of it is followed by one that finds the
/// record, and nobody tells that one to begin.
pub(super) async fn complete(inner: &Inner, role: &SourceRole) -> Result<Memo> {
    let sql = inner.sql(role.database.as_str(), "source begin").await?;
    instance::check(&sql, role).await?;
    let mut memo: Memo = inner.store.memo(&role.operation).await?.unwrap_or_default();
    inner.store.set_memo(&role.operation, &memo).await?;
    prepare_database(inner, role, &sql, &mut memo).await?;
    let names = Names::of(&role.operation);
    if memo.slot.is_none() || !slot_is_there(&sql, &names).await? {
        new_generation(inner, role, &mut memo).await?;
    }
    // The slot waited for every transaction that ran before, so by now all tables are seen; those made from here on are the
    // trigger's.
    identities(inner, role, &sql, &mut memo).await?;
    Ok(memo)
}

/// Triggers, identities and publication: a publication before the identities would make clients' updates fail.
async fn prepare_database(inner: &Inner, role: &SourceRole, sql: &Sql, memo: &mut Memo) -> Result<()> {
    let names = Names::of(&role.operation);
    inner.store.check().await?;
    let guards = ddl::create(&role.operation, inner.config.setup().on_ddl);
    sql.run("create the event triggers of the operation", &format!("BEGIN; {guards}; COMMIT")).await?;
    identities(inner, role, sql, memo).await?;
    let there = format!("SELECT FROM pg_publication WHERE pubname = {}", literal(&names.slot));
    if rows(sql, "look for the publication of the operation", &there).await?.is_empty() {
        inner.store.check().await?;
        let create = format!("CREATE PUBLICATION {} FOR ALL TABLES", ident(&names.slot));
        sql.run("create the publication of the operation", &create).await?;
        // A table that came between the first look and the publication would refuse its clients' updates.
        identities(inner, role, sql, memo).await?;
    }
    Ok(())
}

/// Gives the tables that need it full identity; each is remembered before.
pub(super) async fn identities(inner: &Inner, role: &SourceRole, sql: &Sql, memo: &mut Memo) -> Result<()> {
    let needed = identity::needed(sql).await?;
    let unknown = needed
        .iter()
        .filter(|table| !memo.identities.iter().any(|known| known.schema == table.schema && known.name == table.name));
    let unknown: Vec<_> = unknown.cloned().collect();
    if !unknown.is_empty() {
        memo.identities.extend(unknown);
        inner.store.set_memo(&role.operation, memo).await?;
    }
    for table in &needed {
        inner.store.check().await?;
        identity::make_full(sql, table).await?;
    }
    Ok(())
}

async fn slot_is_there(sql: &Sql, names: &Names) -> Result<bool> {
    let query = format!("SELECT FROM pg_replication_slots WHERE slot_name = {}", literal(&names.slot));
    Ok(!rows(sql, "look for the slot of the operation", &query).await?.is_empty())
}

/// A new slot with a new snapshot: the seed starts over. The slot and the holder before, if any, go.
pub(super) async fn new_generation(inner: &Inner, role: &SourceRole, memo: &mut Memo) -> Result<()> {
    let names = Names::of(&role.operation);
    let database = role.database.as_str();
    let sql = inner.maintenance("source begin").await?;
    // Whoever reads the memo from here on knows that a slot of that name is half made.
    (memo.slot, memo.plan, memo.generation) = (None, None, memo.generation + 1);
    inner.store.set_memo(&role.operation, memo).await?;
    holder::end(&sql, &names).await?;
    drop_slot(inner, &sql, &names.slot).await?;
    inner.store.check().await?;
    let mut wire = Wire::connect(&inner.config, database, "source slot", true).await?;
    let (start, exported) = create_slot(&mut wire, &sql, &names.slot, false, inner.limits.slot_wait).await?;
    let quiet = inner.limits.holder_quiet;
    let held: Slot = holder::start(&inner.config, database, &names, &exported, start, quiet).await?;
    memo.slot = Some(held);
    inner.store.set_memo(&role.operation, memo).await
}

/// Creates a slot; answers where it starts, and the name of the snapshot as of there, which lasts until the connection is used
/// again. It waits for all transactions that are writing, in any database; after `patience` it says for whom.
pub(super) async fn create_slot(
    wire: &mut Wire,
    sql: &Sql,
    name: &str,
    temporary: bool,
    patience: Duration,
) -> Result<(String, String)> {
    let what = "create the replication slot";
    let temporary = if temporary { "TEMPORARY " } else { "" };
    let command = format!("CREATE_REPLICATION_SLOT {} {temporary}LOGICAL pgoutput EXPORT_SNAPSHOT", ident(name));
    let pid = wire.backend_pid();
    let created = tokio::time::timeout(patience, wire.query(what, &command)).await;
    let Ok(created) = created else {
        let holder = who_holds_up(sql, pid).await?;
        // It does not notice by itself that nobody waits any more; its slot goes with it.
        rows(sql, what, &format!("SELECT pg_terminate_backend({pid})")).await?;
        return Err(Error::Busy(format!("the replication slot cannot be created while {holder}")));
    };
    let row = created?.into_iter().next().map(Row::new);
    let row = row.ok_or_else(|| Error::Internal(format!("{what}: no answer")))?;
    Ok((row.owned(1), row.owned(2)))
}

/// For whom a process waits, in words.
async fn who_holds_up(sql: &Sql, pid: i32) -> Result<String> {
    let query = format!(
        "SELECT h.pid, a.application_name, a.datname, a.usename,
                extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
         FROM pg_locks w JOIN pg_locks h ON h.locktype = 'transactionid' AND h.transactionid = w.transactionid AND h.granted
         LEFT JOIN pg_stat_activity a ON a.pid = h.pid
         WHERE w.pid = {pid} AND w.locktype = 'transactionid' AND NOT w.granted"
    );
    let found = rows(sql, "look who holds up the replication slot", &query).await?;
    Ok(match found.first() {
        Some(row) if row.maybe(0).is_some_and(|pid| pid != "0") => format!(
            "process {} (application {:?}, database {:?}, user {:?}) is in a transaction that has lasted {} s",
            row.text(0),
            row.text(1),
            row.text(2),
            row.text(3),
            row.text(4)
        ),
        Some(_) => "a prepared transaction is open".to_owned(),
        None => "the server is busy".to_owned(),
    })
}

/// Drops a slot if it is there; who uses it is ended first.
pub(super) async fn drop_slot(inner: &Inner, sql: &Sql, name: &str) -> Result<()> {
    let what = "drop the replication slot";
    let until = std::time::Instant::now() + inner.limits.end_wait;
    let find = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = {}", literal(name));
    loop {
        let Some(row) = rows(sql, what, &find).await?.into_iter().next() else { return Ok(()) };
        if let Some(pid) = row.maybe(0) {
            one(sql, what, &format!("SELECT pg_terminate_backend({pid})")).await?;
        } else {
            inner.store.check().await?;
            match sql.run(what, &format!("SELECT pg_drop_replication_slot({})", literal(name))).await {
                Ok(()) => return Ok(()),
                Err(error) if !error.retryable() => return Err(error),
                // Somebody was faster, at either.
                Err(_) => {}
            }
        }
        if std::time::Instant::now() >= until {
            return Err(Error::Busy(format!("the replication slot {name} is in use and its user does not end")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
