//! The flip, what follows it, and what takes its place when an operation is given up.

use super::{
    super::{
        apply,
        sql::{Sql, failed, ident},
        steps::Steps,
        store::encode,
    },
    Shared, database,
    memo::Memo,
    roles, views,
};
use crate::{Error, Result};
use handover::dest_role::{DestRole, Phase};
use std::time::Duration;

/// After the flip clients have the machine; what has no statistics by then gets them from autovacuum.
const ANALYZE_TIME_MAX: Duration = Duration::from_secs(600);

/// How long a lock on a table is waited for, and how often.
const LOCK_WAIT_MS: u32 = 200;
const LOCK_TRIES_MAX: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// **The flip.** See [`crate::dest::DestEngine::promote`].
pub(super) async fn promote(shared: &Shared, role: &DestRole) -> Result<()> {
    let mut steps = Steps::default();
    // First of all: an agent that was taken over ends nobody's session.
    let (memo, sql) = tokio::join!(shared.store.memo(&role.operation), shared.hurried.take());
    let memo: Option<Memo> = memo?;
    let memo = memo.ok_or_else(|| Error::Misuse("nothing was prepared that could be promoted".to_owned()))?;
    if memo.opened {
        // The database is its users' now, and what they have set since is theirs.
        return shared.store.put_role(&role.operation, role).await;
    }
    let (Some(oid), properties) = (memo.oid, &memo.properties) else {
        return Err(Error::Misuse("there is no database that could be promoted".to_owned()));
    };
    let sql = sql?;
    steps.done("look");
    let (name, ended, tx) = tokio::join!(
        database::name_of(&sql, oid),
        database::end_sessions(&sql, oid, database::Sessions::Foreign),
        shared.store.transaction("open the database"),
    );
    let name = name?.ok_or_else(|| Error::Corrupt("the database was dropped by somebody else".to_owned()))?;
    ended?;
    let tx = tx?;
    steps.done("sessions");
    let mut open = properties.statements.clone();
    if !properties.owner.is_empty() {
        open.push(format!("ALTER DATABASE {} OWNER TO {}", ident(&name), ident(&properties.owner)));
    }
    open.push(format!(
        "ALTER DATABASE {} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT {}",
        ident(&name),
        properties.connection_limit
    ));
    let (open, opened) = (open.join(";\n"), encode(&Memo { opened: true, ..memo })?);
    let record = encode(role)?;
    let all = tx.commit_with(|tx| {
        Box::pin(async move {
            let (put, opened, noted) = tokio::join!(biased;
                tx.put_record(&role.operation, record),
                tx.run("open the database", &open),
                tx.put_memo(&role.operation, opened),
            );
            put.and(opened).and(noted)
        })
    });
    all.await?;
    steps.done("open");
    tracing::info!(operation = %role.operation, took_us = %steps, "opened the database");
    Ok(())
}

/// Removes what is left of us in the database, and gathers statistics.
pub(super) async fn finish(shared: &Shared, role: &DestRole) -> Result<()> {
    shared.store.check().await?;
    let memo: Option<Memo> = shared.store.memo(&role.operation).await?;
    let Some(Memo { oid: Some(oid), opened: true, .. }) = memo else { return Ok(()) };
    let maintenance = shared.maintenance().await?;
    // Its users may have renamed or dropped it.
    let Some(name) = database::name_of(&maintenance, oid).await? else { return Ok(()) };
    drop(maintenance);
    let sql = Sql::connect(&shared.config, &name, "dest finish").await?;
    let prepare = "SET ROLE NONE; SET default_transaction_read_only = off; SET session_replication_role = replica";
    sql.run("prepare a session", prepare).await?;
    remove_helpers(&sql).await?;
    let tables = views::analyze(&sql, ANALYZE_TIME_MAX).await?;
    tracing::info!(operation = %role.operation, tables, "removed helpers and gathered statistics");
    Ok(())
}

/// Indexes of ours are on tables that clients use by now: their locks are waited for briefly and often, so that nobody queues
/// behind us.
async fn remove_helpers(sql: &Sql) -> Result<()> {
    const WHAT: &str = "remove the helpers of an operation";
    sql.run(WHAT, &format!("SET lock_timeout = '{LOCK_WAIT_MS}ms'")).await?;
    let mut tries = 0;
    while let Err(error) = try_to_remove_helpers(sql, WHAT).await {
        sql.run(WHAT, "ROLLBACK").await?;
        tries += 1;
        if !error.retryable() || tries >= LOCK_TRIES_MAX {
            return Err(error);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(())
}

async fn try_to_remove_helpers(sql: &Sql, what: &str) -> Result<()> {
    let read = "SELECT evtname::text, evtenabled::text FROM pg_event_trigger WHERE evtenabled IN ('A', 'R')";
    let rows = sql.query(read, &[]).await.map_err(|error| failed(what, &error))?;
    let (mut off, mut on) = (String::new(), String::new());
    for row in &rows {
        let name = ident(row.get(0));
        let word = if row.get::<_, &str>(1) == "A" { "ALWAYS" } else { "REPLICA" };
        off += &format!("ALTER EVENT TRIGGER {name} DISABLE; ");
        on += &format!("ALTER EVENT TRIGGER {name} ENABLE {word}; ");
    }
    // Event triggers of the user would wonder about what is dropped; those that fire always are off in our transaction alone.
    if !rows.is_empty() {
        sql.run(what, &format!("BEGIN; {off}")).await?;
    }
    apply::helpers::drop(sql).await?;
    sql.run(what, &format!("DROP SCHEMA IF EXISTS causeway CASCADE; {on}")).await?;
    if !rows.is_empty() {
        sql.run(what, "COMMIT").await?;
    }
    Ok(())
}

/// Removes everything of an operation but its record.
pub(super) async fn discard(shared: &Shared, role: &DestRole) -> Result<()> {
    shared.store.check().await?;
    let recorded: Vec<DestRole> = shared.store.roles().await?;
    let recorded = recorded.into_iter().find(|known| known.operation == role.operation);
    if recorded.is_some_and(|known| matches!(known.phase, Phase::Primary { .. })) {
        return Err(Error::Misuse("a destination that is primary is never discarded".to_owned()));
    }
    let memo: Option<Memo> = shared.store.memo(&role.operation).await?;
    let mut memo = memo.unwrap_or_default();
    if memo.opened {
        return Err(Error::Misuse("a database that was opened is never discarded".to_owned()));
    }
    if let Some(oid) = memo.oid.take() {
        database::remove(shared, &role.operation, oid, &memo).await?;
    }
    database::remove_incoming(shared, &role.operation).await?;
    database::sweep(shared).await?;
    roles::drop_created(shared, &memo.roles).await
}
