//! Cutting a database into the parts of a seed.

use super::{large_objects, properties};
use crate::{
    Result,
    postgres::{
        payload::{FORMAT, PartKind, PlanHeader, Table},
        rows::{Row, one, rows},
        source::{memo::SeedPlan, preflight::needs},
        sql::Sql,
        types::{CARRIED, OID_BOUND},
    },
};

/// A table up to this size is one part. No lock keeps the rows of a larger one in place between two parts: a TRUNCATE that waits
/// for a lock keeps everybody else from the table. Each part looks whether they are still where they were.
const PART_BYTES: u64 = 64 << 20;
/// A part of a larger one. Small, because at the end one lane waits for the other's last part.
const RANGE_BYTES: u64 = 32 << 20;
/// More parts of one table cost more to remember than they save when one has to be sent again.
const PARTS_OF_TABLE_MAX: u64 = 4096;
/// Smaller relations need not be weighed against each other.
const LARGE_BYTES: u64 = 1 << 20;

/// A table as the catalog has it.
pub(in crate::postgres::source) struct Found {
    pub(in crate::postgres::source) table: Table,
    blocks: u64,
    /// Whether its rows lie in pages that can be read by their number.
    ranges: bool,
}

/// The tables with rows to carry: the logged ones, or those that are not.
pub(in crate::postgres::source) async fn tables(
    client: &tokio_postgres::Client,
    persistence: char,
) -> Result<Vec<Found>> {
    let query = format!(
        "{OID_BOUND}
         SELECT n.nspname, c.relname,
                coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int,
                current_setting('server_version_num')::int >= 140000 AND m.amname = 'heap',
                (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
                NOT EXISTS (SELECT FROM pg_attribute a JOIN oid_bound b ON b.oid = a.atttypid
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
         WHERE {CARRIED} AND c.relpersistence = '{persistence}'
         ORDER BY pg_relation_size(c.oid) DESC NULLS LAST, c.oid"
    );
    rows(client, "list the tables of the database", &query).await?.iter().map(found).collect()
}

fn found(row: &Row) -> Result<Found> {
    let table = Table { schema: row.owned(0), name: row.owned(1), columns: row.list(4)?, binary: row.flag(5) };
    Ok(Found { table, blocks: row.parse(2)?, ranges: row.flag(3) })
}

/// Plans a seed in a transaction that sees the held snapshot.
pub(in crate::postgres::source) async fn build(sql: &Sql, database: &str) -> Result<SeedPlan> {
    let block = one(sql, "read the block size", "SELECT current_setting('block_size')").await?.parse::<u64>(0)?;
    let mut plan = SeedPlan {
        header: PlanHeader {
            format: FORMAT,
            parts: vec![PartKind::Schema],
            database: properties::read(sql, database).await?,
            server_version: one(sql, "read the version", "SELECT current_setting('server_version_num')")
                .await?
                .parse(0)?,
            roles: needs::roles(sql).await?,
            ..PlanHeader::default()
        },
        ..SeedPlan::default()
    };
    let found = tables(sql, 'p').await?;
    // The dump is not made yet; this much its text has for a table, about.
    plan.parts.push(("schema".to_owned(), 2048 * (found.len() as u64 + 1)));
    for (found, number) in found.into_iter().zip(0u32..) {
        let name = format!("{}.{}", found.table.schema, found.table.name);
        for (first, end) in ranges(&found, block) {
            let blocks = end.map_or(found.blocks, u64::from).saturating_sub(u64::from(first));
            plan.header.parts.push(PartKind::Rows { table: number, first, end });
            plan.parts.push((name.clone(), blocks * block));
        }
        plan.header.tables.push(found.table);
    }
    for (first, end, bytes) in large_objects::ranges(sql).await? {
        plan.header.parts.push(PartKind::LargeObjects);
        plan.parts.push(("large objects".to_owned(), bytes));
        plan.large_objects.push((first, end));
    }
    plan.sizes = sizes(sql).await?;
    Ok(plan)
}

/// The ranges of pages in which a table is read; the last one has no end, for what was added since it was measured.
fn ranges(found: &Found, block: u64) -> Vec<(u32, Option<u32>)> {
    if !found.ranges || found.blocks * block <= PART_BYTES {
        return vec![(0, None)];
    }
    let step = (RANGE_BYTES / block).max(found.blocks / PARTS_OF_TABLE_MAX + 1);
    let cuts: Vec<u32> = (0..found.blocks.max(1))
        .step_by(usize::try_from(step).unwrap_or(usize::MAX))
        .filter_map(|first| u32::try_from(first).ok())
        .collect();
    cuts.iter().enumerate().map(|(at, first)| (*first, cuts.get(at + 1).copied())).collect()
}

/// What the destination weighs when it builds indexes side by side.
async fn sizes(sql: &Sql) -> Result<Vec<(String, String, u64)>> {
    let query = format!(
        "SELECT n.nspname, c.relname, pg_relation_size(c.oid)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'i', 'm') AND c.oid >= 16384 AND pg_relation_size(c.oid) >= {LARGE_BYTES}"
    );
    let found = rows(sql, "measure indexes", &query).await?;
    found.iter().map(|row| Ok((row.owned(0), row.owned(1), row.parse(2)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_a_table_once() {
        let of = |blocks, ranges| {
            let table = Table { schema: String::new(), name: String::new(), columns: vec![], binary: true };
            super::ranges(&Found { table, blocks, ranges }, 8192)
        };
        assert_eq!(of(1 << 20, false), [(0, None)]);
        assert_eq!(of(0, true), [(0, None)]);
        assert_eq!(of(8192, true), [(0, None)]);
        assert_eq!(of(8193, true), [(0, Some(4096)), (4096, Some(8192)), (8192, None)]);
        let many = of(u64::from(u32::MAX), true);
        assert!(many.len() as u64 <= PARTS_OF_TABLE_MAX);
        assert!(many.windows(2).all(|two| two[0].1 == Some(two[1].0)));
    }
}
