//! What the log does not carry: sequences, large objects, unlogged tables, and the source's catalog to compare with.
//!
//! Each is applied in one or more transactions, the last of which records where it ends; applying one again has the same
//! effect. Nothing here waits for the disk: the marker does, once.

use super::{
    super::{
        catalog,
        payload::{Extra, Sequence, Table},
        position::Point,
        sql::{Sql, failed, literal, qualified},
    },
    live::Live,
    load::copy_statement,
    records,
};
use crate::{Error, Result};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::PoisonError};
use tokio_postgres::types::{ToSql, Type};

/// So many differences are named.
const DIFFERENCES_MAX: usize = 5;
/// A line may hold a whole function; its beginning names the object.
const LINE_CHARS_MAX: usize = 160;

impl Live {
    /// Applies one extra that ends at `to`.
    pub(super) async fn extra(&self, extra: Extra, raw: Bytes, to: Point) -> Result<()> {
        let noted = format!("UPDATE causeway.replica SET extras = {}", literal(to.position().as_str()));
        match extra {
            Extra::Sequences(sequences) => self.sequences(&sequences, &noted).await,
            Extra::LargeObjectList(oids) => self.keep_object_list(&oids, to, &noted).await,
            Extra::LargeObjects => self.put_objects(raw, &noted).await,
            Extra::Unlogged { table, first } => self.unlogged(&table, first, raw, &noted).await,
            Extra::Catalog(lines) => self.keep_catalog(&lines, to, &noted).await,
            Extra::Nothing => self.note(&noted).await,
        }
    }

    async fn note(&self, noted: &str) -> Result<()> {
        let statements = format!("SET LOCAL synchronous_commit = off; {noted}");
        self.transact("note how far a marker is applied", &statements).await
    }

    async fn sequences(&self, sequences: &[Sequence], noted: &str) -> Result<()> {
        let what = "set sequences";
        let each = |s: &Sequence| {
            format!("({}, '{}'::int8, {})", literal(&qualified(&s.schema, &s.name)), s.last_value, s.is_called)
        };
        let each: Vec<String> = sequences.iter().map(each).collect();
        if each.is_empty() {
            return self.note(noted).await;
        }
        let set = format!(
            "SET LOCAL synchronous_commit = off; SELECT count(setval(name::regclass, value, called))
             FROM (VALUES {}) s (name, value, called); {noted}",
            each.join(", ")
        );
        let Err(error) = self.transact(what, &set).await else { return Ok(()) };
        // One that is missing is said by name, with the others that are.
        match self.missing(sequences).await {
            Ok(Some(missing)) => Err(Error::Corrupt(format!("sequences of the source are missing here: {missing}"))),
            Ok(None) | Err(_) => Err(error),
        }
    }

    async fn missing(&self, sequences: &[Sequence]) -> Result<Option<String>> {
        let names: Vec<String> = sequences.iter().map(|s| qualified(&s.schema, &s.name)).collect();
        let sql = self.sessions.take().await?;
        let missing = "SELECT string_agg(name, ', ') FROM (SELECT name FROM unnest($1::text[]) name
             WHERE to_regclass(name) IS NULL LIMIT 5) missing";
        let row = sql.query_typed_one(missing, &[(&names, Type::TEXT_ARRAY)]).await;
        let row = row.map_err(|error| failed("look for sequences", &error))?;
        self.sessions.give_back(sql);
        Ok(row.get(0))
    }

    async fn unlogged(&self, table: &Table, first: bool, rows: Bytes, noted: &str) -> Result<()> {
        let name = qualified(&table.schema, &table.name);
        let what = format!("load unlogged table {name}");
        let mut wire = self.loader().await?;
        let mut begin = "BEGIN; SET LOCAL synchronous_commit = off".to_owned();
        if first {
            // Not TRUNCATE, which a foreign key would refuse; there are rows only after an attempt that was closed.
            begin += &format!("; DELETE FROM ONLY {name}");
        }
        wire.query(&what, &begin).await?;
        if !rows.is_empty() {
            wire.copy_in(&what, &copy_statement(table), table.binary).await?;
            wire.copy_write(rows).await?;
            wire.copy_finish().await?;
        }
        let end = format!("{noted}; {}; COMMIT", records::check(self.epoch));
        self.checked(wire.query(&what, &end).await)?;
        self.loads.give_back(wire);
        self.views.touch([(table.schema.clone(), table.name.clone())]);
        Ok(())
    }

    /// Keeps lines of the source's catalog for [`Live::compare_catalog`].
    async fn keep_catalog(&self, lines: &[String], to: Point, noted: &str) -> Result<()> {
        let what = "keep the source's catalog";
        let json = serde_json::to_string(lines).map_err(|error| Error::Internal(format!("{what}: {error}")))?;
        // Again after a crash, perhaps: lines are compared as a set.
        let keep = format!(
            "SET LOCAL synchronous_commit = off;
             INSERT INTO causeway.catalog SELECT {}, json_array_elements_text({}); {noted}",
            literal(&to.lsn.to_string()),
            literal(&json)
        );
        self.transact(what, &keep).await
    }

    /// Compares the source's catalog, if it came, with the one here.
    pub(super) async fn compare_catalog(&self, at: Point, sql: &Sql) -> Result<()> {
        let what = "compare the catalogs";
        let read = "SELECT line FROM causeway.catalog WHERE marker = $1";
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let marker = at.lsn.to_string();
        let marker: [(&(dyn ToSql + Sync), Type); 1] = [(&marker, Type::TEXT)];
        // Asked together: clients wait.
        let (rows, row, ours) = tokio::join!(biased;
            sql.query_typed(read, &marker),
            sql.query_typed_one("SELECT current_setting('server_version_num')::int", &[]),
            catalog::lines_as_known(sql, known.as_deref()),
        );
        let rows = rows.map_err(|error| failed(what, &error))?;
        if rows.is_empty() {
            return Ok(());
        }
        let version: i32 = row.map_err(|error| failed(what, &error))?.get(0);
        // What a server writes from a parse tree differs from version to version.
        let same_major = self.planned.header.server_version / 10_000 == version.unsigned_abs() / 10_000;
        let comparable = |line: &String| same_major || !line.starts_with(catalog::DEPARSED);
        let theirs: BTreeSet<String> = rows.iter().map(|row| row.get(0)).filter(comparable).collect();
        let ours: BTreeSet<String> = ours?.into_iter().filter(comparable).collect();
        match differences(&theirs, &ours) {
            None => Ok(()),
            Some(differences) => Err(Error::Corrupt(format!("source and destination differ: {differences}"))),
        }
    }
}

fn differences(theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> Option<String> {
    let missing = theirs.difference(ours).map(|line| ("only at the source", line));
    let extra = ours.difference(theirs).map(|line| ("only at the destination", line));
    let all: Vec<_> = missing.chain(extra).collect();
    if all.is_empty() {
        return None;
    }
    let mut shown: Vec<String> = all
        .iter()
        .take(DIFFERENCES_MAX)
        .map(|(side, line)| format!("{side}: {}", line.chars().take(LINE_CHARS_MAX).collect::<String>()))
        .collect();
    if all.len() > DIFFERENCES_MAX {
        shown.push(format!("and {} more", all.len() - DIFFERENCES_MAX));
    }
    Some(shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_and_few() {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(differences(&set(&["a", "b"]), &set(&["a", "b"])), None);
        let text = differences(&set(&["table a"]), &set(&["table b"])).expect("they differ");
        assert_eq!(text, "only at the source: table a; only at the destination: table b");
        let text = differences(&set(&["1", "2", "3", "4", "5", "6", "7"]), &set(&[])).expect("they differ");
        assert!(text.ends_with("and 2 more"), "{text}");
    }
}
