//! Part 0: the schema, kept piece by piece; what comes before the data is made when it is whole.

use super::{
    super::{
        payload::Entry,
        sql::{Sql, failed, qualified},
    },
    entries,
    live::Live,
    records,
};
use crate::{Error, Result};
use bytes::Bytes;

/// Entries in one transaction: few round trips, and no more locks than a server with default settings has room for.
pub(super) const BATCH_MAX: usize = 200;

/// Takes one chunk. It is durable when this returns.
pub(super) async fn chunk(live: &Live, part: u32, offset: u64, payload: Bytes, next: u64, last: bool) -> Result<()> {
    let _building = live.building.lock().await;
    let held = live.part(part);
    if held.done || next < held.offset || next == held.offset && !last {
        return Ok(());
    }
    if offset > held.offset {
        return Err(Error::Gap { expected: held.offset.to_string(), got: offset.to_string() });
    }
    if next.checked_sub(offset) != Some(payload.len() as u64) {
        return Err(Error::Corrupt(format!(
            "a piece of the schema has {} bytes from {offset} to {next}",
            payload.len()
        )));
    }
    if next > held.offset {
        let known = usize::try_from(held.offset - offset).unwrap_or(usize::MAX);
        let news = payload.slice(known.min(payload.len())..);
        records::put_piece(&live.sessions, live.epoch, part, held.offset, news, next).await?;
        live.committed(part, next, false);
        live.part_survives(part);
    }
    if last {
        live.unless_interrupted(make(live, part, next)).await?;
    }
    Ok(())
}

/// Makes what comes before the data.
async fn make(live: &Live, part: u32, end: u64) -> Result<()> {
    let schema = live.schema().await?;
    let mut sql = live.session("dest schema", &schema.preamble).await?;
    // What template0 brings and the source has not has to go first, or what follows may find its name taken.
    for statement in &schema.dropped {
        entries::drop_unless_gone(live, &sql, statement).await?;
    }
    let done = entries::done(&sql).await?;
    let left: Vec<&Entry> = schema.pre.iter().filter(|entry| !done.contains(&entry.id)).collect();
    for batch in left.chunks(BATCH_MAX) {
        sql = entries::run_batch(live, sql, batch).await?;
    }
    empty_extension_tables(live, &sql).await?;
    live.transact_in(&sql, "end the schema", &records::put_part(part, end, true)).await?;
    live.committed(part, live.part(part).offset, true);
    live.part_survives(part);
    live.ready.send_replace(true);
    tracing::info!(operation = %live.operation, entries = schema.pre.len(), "made the schema");
    Ok(())
}

/// Creating an extension may fill its configuration tables; the rows that the source has of them come with the seed.
async fn empty_extension_tables(live: &Live, sql: &Sql) -> Result<()> {
    let what = "empty the tables of extensions";
    let tables = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' WHERE c.relkind = 'r'";
    let rows = sql.query(tables, &[]).await.map_err(|error| failed(what, &error))?;
    for row in rows {
        let (schema, name): (&str, &str) = (row.get(0), row.get(1));
        if live.planned.header.tables.iter().any(|table| table.schema == schema && table.name == name) {
            sql.run(what, &format!("DELETE FROM ONLY {}", qualified(schema, name))).await?;
        }
    }
    Ok(())
}
