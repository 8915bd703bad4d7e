//! The end of an operation at the source: a move drops the database, everything else leaves it as it was.

use super::{
    Inner, begin, ddl, fence, holder, identity, instance,
    memo::Memo,
    names::{Names, PREFIX},
};
use crate::{
    Error, Result,
    postgres::{
        rows::rows,
        sql::{APPLICATION, Sql, ident, literal},
        states,
    },
};
use handover::{
    Kind, OperationId,
    source_role::{Phase, SourceRole},
};
use std::time::{Duration, Instant};

pub(super) async fn release(inner: &Inner, role: &SourceRole, moved_to: &str) -> Result<()> {
    match role.kind {
        Kind::Copy => cleanup(inner, role).await,
        Kind::Move => drop_database(inner, role, moved_to).await,
    }
}

/// Drops the very database of the role; one that took its name since is left alone.
async fn drop_database(inner: &Inner, role: &SourceRole, moved_to: &str) -> Result<()> {
    let sql = inner.maintenance("source release").await?;
    let names = Names::of(&role.operation);
    if instance::is_there(&sql, role).await? {
        holder::end(&sql, &names).await?;
        begin::drop_slot(inner, &sql, &names.slot).await?;
        end_ours(inner, &sql, role).await?;
        inner.store.check().await?;
        // FORCE ends whoever is still in, as superusers of before the fence may be; a prepared transaction it does not.
        let name = ident(role.database.as_str());
        match sql.run("drop the moved database", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await {
            Err(error) if states::is_one_of(&error, &["55006"]) => {
                return Err(Error::Busy(error.to_string()));
            }
            other => other?,
        }
        tracing::info!(operation = %role.operation, database = %role.database, moved_to, "dropped the moved database");
    }
    begin::drop_slot(inner, &sql, &names.slot).await?;
    inner.store.note_moved(role.database.as_str(), moved_to).await?;
    inner.store.set_memo(&role.operation, &Memo::default()).await
}

/// Removes everything of the operation, in an order in which nothing that is left does harm.
pub(super) async fn cleanup(inner: &Inner, role: &SourceRole) -> Result<()> {
    let sql = inner.maintenance("source cleanup").await?;
    let names = Names::of(&role.operation);
    fence::open(inner, &sql, role, None).await?;
    holder::end(&sql, &names).await?;
    // The slot first: it is what fills the disk.
    begin::drop_slot(inner, &sql, &names.slot).await?;
    begin::drop_slot(inner, &sql, &names.mark()).await?;
    if instance::is_there(&sql, role).await? {
        end_ours(inner, &sql, role).await?;
        let memo: Memo = inner.store.memo(&role.operation).await?.unwrap_or_default();
        helpers(inner, role, &names, &memo).await?;
    }
    inner.store.set_memo(&role.operation, &Memo::default()).await
}

/// Publication, triggers, identities and our schema in the user's database.
async fn helpers(inner: &Inner, role: &SourceRole, names: &Names, memo: &Memo) -> Result<()> {
    let sql = inner.sql(role.database.as_str(), "source cleanup").await?;
    inner.store.check().await?;
    let publication = format!("DROP PUBLICATION IF EXISTS {}", ident(&names.slot));
    sql.run("drop the publication of the operation", &publication).await?;
    identity::restore(&sql, memo).await?;
    inner.store.check().await?;
    sql.run("drop the event triggers of the operation", &format!("BEGIN; {}; COMMIT", ddl::DROP)).await
}

/// Ends our own sessions with the database: those of an earlier agent, or of a call that was given up.
async fn end_ours(inner: &Inner, sql: &Sql, role: &SourceRole) -> Result<()> {
    let Some(oid) = instance::oid(&role.incarnation) else { return Ok(()) };
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datid = {oid} AND starts_with(application_name, {}) AND pid <> pg_backend_pid()",
        literal(&format!("{APPLICATION} source "))
    );
    let until = Instant::now() + inner.limits.end_wait;
    while !rows(sql, "end our sessions with the database", &end).await?.is_empty() {
        if Instant::now() >= until {
            return Err(Error::Busy("sessions of the agent with the database do not end".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Whether an operation left something behind: its record is about to go.
pub(super) async fn unfinished(inner: &Inner, operation: &OperationId) -> Result<Option<SourceRole>> {
    let memo: Option<Memo> = inner.store.memo(operation).await?;
    if memo.is_none_or(|memo| memo == Memo::default()) {
        return Ok(None);
    }
    let roles: Vec<SourceRole> = inner.store.roles().await?;
    // A fence is for those who know what the destination answered; this is for a beginning that failed.
    let found = roles.into_iter().find(|role| role.operation == *operation && role.phase == Phase::Replicating);
    Ok(found.map(|role| SourceRole { phase: Phase::CleaningUp { saved: String::new() }, ..role }))
}

/// Drops slots of ours whose operation is not known any more: they would fill the disk.
pub(super) async fn drop_orphans(inner: &Inner) -> Result<()> {
    let sql = inner.maintenance("source orphans").await?;
    let roles: Vec<SourceRole> = inner.store.roles().await?;
    let known: Vec<String> = roles.iter().map(|role| Names::of(&role.operation).slot).collect();
    let query = format!(
        "SELECT slot_name FROM pg_replication_slots WHERE starts_with(slot_name, {}) AND slot_type = 'logical' AND NOT temporary",
        literal(PREFIX)
    );
    for row in rows(&sql, "look for slots of forgotten operations", &query).await? {
        if !known.iter().any(|slot| slot == row.text(0)) {
            tracing::warn!(slot = row.text(0), "drop the slot of an operation that is not known any more");
            begin::drop_slot(inner, &sql, row.text(0)).await?;
        }
    }
    Ok(())
}
