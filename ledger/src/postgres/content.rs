//! What a PostgreSQL database holds, as hashes that do not depend on where its rows lie: tables, sequences, large objects,
//! definitions, settings.

use std::io::{self, BufRead as _};

use postgres::Client;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::{definitions, error};
use crate::driver::{Error, TableHash};

const TABLES: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND c.relispopulated
      AND n.nspname NOT IN ('information_schema', 'causeway') ORDER BY 1";

const SEQUENCES: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'causeway') ORDER BY 1";

const LARGE_OBJECTS: &str = "SELECT oid, pg_get_userbyid(lomowner), (SELECT array_agg(a::text ORDER BY a::text)
      FROM unnest(coalesce(lomacl, acldefault('L', lomowner))) a), encode(sha256(lo_get(oid)), 'hex')
    FROM pg_largeobject_metadata";

/// Every table, sequence and materialized view by name, and the rest under words in angle brackets.
pub(super) fn hashes(client: &mut Client) -> Result<Vec<TableHash>, Error> {
    let mut hashes = Vec::new();
    for table in names(client, TABLES).map_err(error("list the tables"))? {
        let hash = hash(client, &table, &format!("SELECT * FROM ONLY {table}"))?;
        hashes.push(TableHash { table, ..hash });
    }
    for sequence in names(client, SEQUENCES).map_err(error("list the sequences"))? {
        let name = format!("<sequence {sequence}>");
        hashes.push(hash(client, &name, &format!("SELECT last_value, is_called FROM {sequence}"))?);
    }
    hashes.push(hash(client, "<large objects>", LARGE_OBJECTS)?);
    hashes.push(hash(client, "<definitions>", &definitions::objects())?);
    hashes.push(hash(client, "<views>", &definitions::deparsed())?);
    hashes.push(hash(client, "<settings>", definitions::SETTINGS)?);
    Ok(hashes)
}

/// What [`hashes`] hashes under `<definitions>`, `<views>` and `<settings>`, in order: to be looked at when they differ.
pub(super) fn lines(client: &mut Client) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for sql in [definitions::objects(), definitions::deparsed(), definitions::SETTINGS.to_owned()] {
        rows(client, &sql, &mut |row| lines.push(String::from_utf8_lossy(row).trim_end().to_owned()))?;
    }
    lines.sort_unstable();
    Ok(lines)
}

fn names(client: &mut Client, sql: &str) -> Result<Vec<String>, postgres::Error> {
    client.query(sql, &[])?.iter().map(|row| row.try_get(0)).collect()
}

/// Hashes the rows in the order of their own hashes: two tables that hold the same rows, duplicates included, are equal.
fn hash(client: &mut Client, name: &str, sql: &str) -> Result<TableHash, Error> {
    let mut of_rows: Vec<u128> = Vec::new();
    rows(client, sql, &mut |row| of_rows.push(xxh3_128(row)))?;
    of_rows.sort_unstable();
    let mut all = Xxh3Default::new();
    of_rows.iter().for_each(|row| all.update(&row.to_le_bytes()));
    Ok(TableHash { table: name.to_owned(), rows: of_rows.len() as u64, hash: all.digest128() })
}

/// Gives each row as text COPY prints it.
fn rows(client: &mut Client, sql: &str, each: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
    let mut reader = client.copy_out(&format!("COPY ({sql}) TO STDOUT")).map_err(error("read rows"))?;
    let mut row = Vec::new();
    loop {
        row.clear();
        let unreadable = |cause: io::Error| Error::Failed { stage: "read rows", cause: cause.into() };
        if reader.read_until(b'\n', &mut row).map_err(unreadable)? == 0 {
            return Ok(());
        }
        each(&row);
    }
}

/// Indexes that hold another number of rows than their table.
const INDEXES: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(a.attname),
      i.indexrelid::regclass::text
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND i.indpred IS NULL AND c.relkind = 'r'
      AND a.attnotnull AND a.attnum > 0";

const UNSOUND: &str =
    "SELECT 'index ' || indexrelid::regclass::text || ' is not valid' FROM pg_index WHERE NOT indisvalid
    UNION ALL SELECT 'constraint ' || conname || ' was never validated' FROM pg_constraint WHERE NOT convalidated";

/// Whether indexes are valid and hold as many rows as their tables, and constraints are validated; "ok" or what is not.
pub(super) fn integrity(client: &mut Client) -> Result<String, postgres::Error> {
    let mut found = names(client, UNSOUND)?;
    let indexes = client.query(INDEXES, &[])?;
    for index in indexes {
        let (table, column, name): (String, String, String) = (index.try_get(0)?, index.try_get(1)?, index.try_get(2)?);
        let mut count = |on: bool| -> Result<i64, postgres::Error> {
            let word = if on { "on" } else { "off" };
            let other = if on { "off" } else { "on" };
            client.batch_execute(&format!(
                "SET LOCAL enable_seqscan = {other}; SET LOCAL enable_indexscan = {word};
                 SET LOCAL enable_indexonlyscan = {word}; SET LOCAL enable_bitmapscan = off"
            ))?;
            // Ordering by the column makes the planner take an index that begins with it.
            let sql = format!("SELECT count(*) FROM (SELECT {column} FROM ONLY {table} ORDER BY {column}) x");
            client.query_one(&sql, &[])?.try_get(0)
        };
        let (by_index, by_table) = (count(true)?, count(false)?);
        if by_index != by_table {
            found.push(format!("{table} has {by_table} rows, {by_index} by its index {name}"));
        }
    }
    Ok(if found.is_empty() { "ok".to_owned() } else { found.join("; ") })
}
