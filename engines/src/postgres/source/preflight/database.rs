//! What is in the database: what cannot be carried, and what costs more than usual.

use super::{Subject, error, warning};
use crate::{
    Result,
    postgres::source::identity,
    postgres::{
        rows::{Row, one},
        sql::Sql,
        types::{CARRIED, OID_BOUND},
    },
};
use handover::Finding;

/// So much is read behind a fence in about half a second.
const LARGE_BYTES: u64 = 256 << 20;
/// So many names are enough to see which ones are meant.
const NAMES: usize = 5;

/// Examines it; `begun` says whether the operation has its helpers there already.
pub(super) async fn examine(sql: &Sql, subject: &Subject<'_>, begun: bool, findings: &mut Vec<Finding>) -> Result<()> {
    let row = one(sql, "examine the database", &contents()).await?;
    let name = subject.name;
    if !row.flag(0) {
        findings.push(error(
            "NO_PLPGSQL",
            format!("{name} has no language plpgsql, in which the event triggers of an operation are written"),
            "CREATE EXTENSION plpgsql in it; it may go again afterwards",
        ));
    }
    if row.flag(1) && !begun {
        findings.push(error(
            "SCHEMA_TAKEN",
            format!("{name} has a schema named causeway that is not of an operation"),
            "rename that schema",
        ));
    }
    behind_the_fence(&row, name, findings)?;
    let publications = row.list(2)?;
    if !publications.is_empty() {
        findings.push(warning(
            "PUBLICATIONS",
            format!("{name} publishes changes by {}; its subscribers do not follow it", some(&publications)),
            "point the subscribers to the destination afterwards, and let them synchronize anew",
        ));
    }
    let text = row.list(6)?;
    if !text.is_empty() {
        findings.push(warning(
            "TEXT_FORMAT",
            format!("rows with arrays of user-defined types, composites and the like travel as text, which takes longer: {}", some(&text)),
            "nothing, unless the tables are large",
        ));
    }
    let without: Vec<String> = match begun {
        true => vec![],
        false => identity::needed(sql).await?.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect(),
    };
    if !without.is_empty() {
        findings.push(warning(
            "NO_KEY",
            format!("tables without a usable primary key get REPLICA IDENTITY FULL while the operation runs, so that their updates log whole rows: {}", some(&without)),
            "give tables with many updates a primary key that is not deferrable",
        ));
    }
    Ok(())
}

/// One row with everything, so that it costs one round trip.
fn contents() -> String {
    format!(
        "SELECT EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql'),
            EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'causeway'
                AND coalesce(obj_description(n.oid, 'pg_namespace'), '') NOT LIKE 'Helpers of a copy or move by Causeway%'),
            (SELECT to_json(array_agg(pubname ORDER BY pubname)) FROM pg_publication WHERE NOT starts_with(pubname, 'causeway_')),
            pg_relation_size('pg_largeobject'),
            (SELECT coalesce(sum(pg_relation_size(c.oid)), 0)::bigint FROM pg_class c WHERE c.relkind = 'r' AND c.relpersistence = 'u'),
            (SELECT count(*) FROM pg_class c WHERE c.relkind = 'r' AND c.relpersistence = 'u'),
            (SELECT to_json(array_agg(x.name ORDER BY x.name)) FROM ({OID_BOUND}
                SELECT DISTINCT n.nspname || '.' || c.relname AS name FROM pg_attribute a
                JOIN oid_bound b ON b.oid = a.atttypid JOIN pg_class c ON c.oid = a.attrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE a.attnum > 0 AND NOT a.attisdropped AND {CARRIED}) x)"
    )
}

/// What the log does not carry is read while clients wait.
fn behind_the_fence(row: &Row, name: &str, findings: &mut Vec<Finding>) -> Result<()> {
    let objects: u64 = row.parse(3)?;
    if objects >= LARGE_BYTES {
        findings.push(warning(
            "LARGE_OBJECTS",
            format!("{name} has {objects} bytes of large objects, which are looked through while it is fenced"),
            "expect a longer freeze, or keep such content in tables",
        ));
    }
    if row.text(5) != "0" {
        findings.push(warning(
            "UNLOGGED_TABLES",
            format!(
                "{name} has {} unlogged tables with {} bytes, which are copied while it is fenced",
                row.text(5),
                row.text(4)
            ),
            "expect a longer freeze; empty them before, or make them logged",
        ));
    }
    Ok(())
}

fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES);
    let shown = names[..names.len().min(NAMES)].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
