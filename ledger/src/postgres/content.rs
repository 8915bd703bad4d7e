//! What a PostgreSQL database holds, as hashes that do not depend on where its rows lie: tables, sequences, large objects,
//! definitions, settings.

use std::io::{self, BufRead as _};

use postgres::Client;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::error;
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

/// Definitions that every major version prints alike; what follows an extension is its own affair, and the owner of a multirange
/// cannot be given to another, not even by pg_dump.
const DEFINITIONS: &str = "
    SELECT 'relation', c.oid::regclass::text, c.relkind::text, c.relpersistence::text, pg_get_userbyid(c.relowner),
      (SELECT string_agg(a::text, ',' ORDER BY a::text)
         FROM unnest(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) a),
      concat_ws(';', c.reloptions::text, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
        pg_get_expr(c.relpartbound, c.oid), CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
        (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid))
    FROM mine c WHERE c.relkind <> 'i' AND c.relkind <> 'I'
  UNION ALL
    SELECT 'column', c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
      concat_ws(';', a.attnotnull, a.attidentity, a.attgenerated, a.attcollation::regcollation, a.attacl::text, a.attislocal,
        a.attstorage, a.attcompression),
      pg_get_expr(d.adbin, d.adrelid), row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)::text
    FROM mine c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'c')
  UNION ALL
    SELECT 'constraint', c.conrelid::regclass::text, c.contypid::regtype::text, c.conname, pg_get_constraintdef(c.oid),
      c.convalidated::text, NULL
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE c.contype NOT IN ('n', 't') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway')
  UNION ALL
    SELECT 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid),
      concat_ws(';', i.indisvalid, i.indisreplident, i.indisclustered), NULL, NULL
    FROM mine c JOIN pg_index i ON i.indexrelid = c.oid
  UNION ALL
    SELECT 'trigger', t.tgrelid::regclass::text, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text, NULL, NULL
    FROM mine c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal
  UNION ALL
    SELECT 'policy', p.tablename, p.policyname, p.permissive || p.cmd, p.roles::text, p.qual, p.with_check
    FROM pg_policies p
  UNION ALL
    SELECT 'sequence', s.seqrelid::regclass::text, s.seqtypid::regtype::text, s.seqstart::text,
      concat_ws(';', s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle), NULL, NULL
    FROM mine c JOIN pg_sequence s ON s.seqrelid = c.oid
  UNION ALL
    SELECT 'function', p.oid::regprocedure::text, md5(p.prosrc), pg_get_userbyid(p.proowner), p.proconfig::text,
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) a),
      concat_ws(';', p.prokind, p.provolatile, p.proisstrict, p.prosecdef, p.proparallel, p.procost, p.prorows)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE (d.classid, d.objid, d.deptype) = ('pg_proc'::regclass, p.oid, 'e'))
  UNION ALL
    SELECT 'type', t.oid::regtype::text, t.typtype::text,
      CASE WHEN t.typtype <> 'm' THEN pg_get_userbyid(t.typowner) END, t.typdefault, t.typnotnull::text,
      (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway') AND t.typtype IN ('e', 'd', 'r', 'm')
  UNION ALL
    SELECT 'schema', n.nspname, pg_get_userbyid(n.nspowner),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(n.nspacl, acldefault('n', n.nspowner))) a),
      NULL, NULL, NULL
    FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway')
  UNION ALL
    SELECT 'extension', e.extname, e.extnamespace::regnamespace::text, NULL, NULL, NULL, NULL FROM pg_extension e
  UNION ALL
    SELECT 'event trigger', e.evtname, e.evtevent, e.evtfoid::regproc::text, e.evtenabled::text, e.evttags::text, NULL
    FROM pg_event_trigger e WHERE e.evtname !~ '^causeway'
  UNION ALL
    SELECT 'publication', p.pubname, pg_get_userbyid(p.pubowner),
      concat_ws(';', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot),
      (SELECT string_agg(pt.schemaname || '.' || pt.tablename, ',' ORDER BY pt.schemaname, pt.tablename) FROM pg_publication_tables pt
         WHERE pt.pubname = p.pubname AND NOT p.puballtables), NULL, NULL
    FROM pg_publication p WHERE p.pubname !~ '^causeway'
  UNION ALL
    SELECT 'comment', i.type, i.identity, d.description, NULL, NULL, NULL
    FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.objoid >= 16384 AND i.identity IS NOT NULL AND NOT EXISTS
      (SELECT FROM pg_depend e WHERE (e.classid, e.objid, e.deptype) = (d.classoid, d.objoid, 'e'))";

/// Relations of the user's own.
const MINE: &str = "WITH mine AS (SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'causeway') AND c.relpersistence <> 't')";

/// As the server prints them, which changes a little from one major version to the next.
const VIEWS: &str = "SELECT c.relname, pg_get_viewdef(c.oid) FROM mine c WHERE c.relkind IN ('v', 'm')";

const SETTINGS: &str = "SELECT 'setting', coalesce(s.setrole::regrole::text, ''), s.setconfig::text
    FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
  UNION ALL
    SELECT 'database', concat_ws(';', pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
        d.datallowconn, d.datconnlimit, shobj_description(d.oid, 'pg_database')),
      (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(coalesce(d.datacl, acldefault('d', d.datdba))) a)
    FROM pg_database d WHERE d.datname = current_database()";

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
    hashes.push(hash(client, "<definitions>", &format!("{MINE} {DEFINITIONS}"))?);
    hashes.push(hash(client, "<views>", &format!("{MINE} {VIEWS}"))?);
    hashes.push(hash(client, "<settings>", SETTINGS)?);
    Ok(hashes)
}

/// What [`hashes`] hashes under `<definitions>`, `<views>` and `<settings>`, in order: to be looked at when they differ.
pub(super) fn definitions(client: &mut Client) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for sql in [format!("{MINE} {DEFINITIONS}"), format!("{MINE} {VIEWS}"), SETTINGS.to_owned()] {
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
