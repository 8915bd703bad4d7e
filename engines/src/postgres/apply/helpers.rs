//! What the applier needs in the replica database: checkpoints, and indexes on tables without a key. All of it goes with the
//! operation.

use crate::{
    Result,
    postgres::{
        payload,
        sql::{Sql, failed, ident, literal, qualified},
    },
};
use std::collections::HashMap;

/// Tables whose rows have to be found by all of their columns.
const KEYLESS: &str = "\
    SELECT c.oid, n.nspname, c.relname, \
           array_agg(a.attname ORDER BY a.attnum), array_agg(format_type(a.atttypid, -1) ORDER BY a.attnum) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname <> 'causeway' \
      AND c.relreplident <> 'i' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
      AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate \
          AND NOT EXISTS (SELECT FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> '' \
              AND g.attnum = ANY (i.indkey::int2[]))) \
    GROUP BY c.oid, n.nspname, c.relname";

/// Makes what is missing. To be called when the rows of the seed are there and primary keys are built; may be repeated.
pub(crate) async fn create(sql: &Sql) -> Result<()> {
    const WHAT: &str = "make the helpers of the replica";
    sql.run(WHAT, &format!("{CHECKPOINTS}; {EMPTIED}")).await?;
    let mut hashable = HashMap::new();
    for row in sql.query(KEYLESS, &[]).await.map_err(|error| failed(WHAT, &error))? {
        let (oid, schema, name): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        let (columns, types): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
        let mut hashed = Vec::new();
        for (column, type_name) in columns.into_iter().zip(types) {
            if !hashable.contains_key(&type_name) {
                // What can be hashed is known to the function alone: elements, fields and bounds have to be hashable too.
                let attempt = format!("SELECT hash_record_extended(ROW(NULL::{type_name}), 0)");
                hashable.insert(type_name.clone(), sql.run(WHAT, &attempt).await.is_ok());
            }
            if hashable.get(&type_name) == Some(&true) {
                hashed.push(column);
            }
        }
        if hashed.is_empty() {
            continue;
        }
        let row = hashed.iter().map(|column| ident(column)).collect::<Vec<_>>().join(", ");
        let index = format!(
            "CREATE INDEX IF NOT EXISTS causeway_row_{oid} ON {} (hash_record_extended(ROW({row}), 0))",
            qualified(&schema, &name)
        );
        sql.run(WHAT, &index).await?;
        let remember = "INSERT INTO causeway.row_hash VALUES ($1, $2) ON CONFLICT DO NOTHING";
        sql.execute(remember, &[&oid, &hashed]).await.map_err(|error| failed(WHAT, &error))?;
    }
    Ok(())
}

/// Removes all of it; may be repeated.
pub(crate) async fn drop(sql: &Sql) -> Result<()> {
    const WHAT: &str = "remove the helpers of the replica";
    let indexes = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind = 'i' AND c.relname ~ '^causeway_row_[0-9]+$'";
    for row in sql.query(indexes, &[]).await.map_err(|error| failed(WHAT, &error))? {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        sql.run(WHAT, &format!("DROP INDEX IF EXISTS {}", qualified(&schema, &name))).await?;
    }
    sql.run(WHAT, "DROP TABLE IF EXISTS causeway.row_hash, causeway.checkpoint, causeway.emptied").await
}

/// Tables that a TRUNCATE emptied at the source before their rows were sent. Until the log tells of that TRUNCATE it changes rows
/// which are not here, and which nobody will miss.
pub(crate) const EMPTIED: &str = "CREATE TABLE IF NOT EXISTS causeway.emptied (relation oid PRIMARY KEY)";

/// Notes such a table.
pub(crate) fn note_emptied(table: &payload::Table) -> String {
    let name = literal(&qualified(&table.schema, &table.name));
    format!("INSERT INTO causeway.emptied VALUES ({name}::regclass) ON CONFLICT DO NOTHING")
}

/// Forgets one, when the log has come to the TRUNCATE.
pub(super) fn forget_emptied(table: &str) -> String {
    format!("DELETE FROM causeway.emptied WHERE relation = {}::regclass", literal(table))
}

/// One row for each worker: everything of its share up to the point is applied. Rows are updated in place all the time.
pub(super) const CHECKPOINTS: &str = "\
    CREATE SCHEMA IF NOT EXISTS causeway; \
    CREATE TABLE IF NOT EXISTS causeway.checkpoint (worker int PRIMARY KEY, lsn pg_lsn NOT NULL, \
        index bigint NOT NULL, epoch bigint NOT NULL) WITH (fillfactor = 10); \
    CREATE TABLE IF NOT EXISTS causeway.row_hash (relation oid PRIMARY KEY, columns text[] NOT NULL)";
