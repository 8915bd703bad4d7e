//! Large objects: which there are, which changed, and reading them whole.

use crate::{
    Error, Result,
    postgres::{
        payload::large_objects::{Record, put},
        rows::{one, rows},
        sql::{Sql, ident, literal},
        wire::Wire,
    },
};
use bytes::{Buf as _, Bytes, BytesMut};
use std::collections::HashMap;
use tokio_postgres::Client;

/// About how many objects a part has: so many are listed at once.
const OBJECTS_OF_PART: u32 = 20_000;

/// The ranges of OIDs in which the objects are read, each with its share of the bytes; none if there are no objects.
pub(super) async fn ranges(sql: &Sql) -> Result<Vec<(u32, Option<u32>, u64)>> {
    let what = "list the large objects";
    let query = format!(
        "SELECT oid FROM (SELECT oid, row_number() OVER (ORDER BY oid) - 1 AS place FROM pg_largeobject_metadata) o
         WHERE place % {OBJECTS_OF_PART} = 0 ORDER BY oid"
    );
    let firsts = rows(sql, what, &query).await?.iter().map(|row| row.parse(0)).collect::<Result<Vec<u32>>>()?;
    let bytes = one(sql, what, "SELECT pg_relation_size('pg_largeobject')").await?.parse::<u64>(0)?;
    let share = bytes / (firsts.len() as u64).max(1);
    Ok(firsts.iter().enumerate().map(|(at, first)| (*first, firsts.get(at + 1).copied(), share)).collect())
}

/// Reads objects in OID order, as records; a session inside its snapshot.
pub(in crate::postgres::source) struct Reader {
    objects: std::collections::VecDeque<(u32, String)>,
    open: Option<u32>,
    pages: BytesMut,
    more: bool,
    page_bytes: u64,
}

/// The objects that a [`Reader`] reads: a condition on `m`, of `pg_largeobject_metadata`.
pub(in crate::postgres::source) fn in_range(first: u32, end: Option<u32>) -> String {
    let end = end.map_or_else(String::new, |end| format!(" AND m.oid < {end}"));
    format!("m.oid >= {first}{end}")
}

/// Objects that were made or changed by transactions not older than `xmin`: some of these may be in the seed already.
pub(in crate::postgres::source) async fn changed(client: &Client, xmin: u64) -> Result<Vec<u32>> {
    // A row shows the low 32 bits; its age compares rightly unless two billion transactions have passed.
    let newer = format!("<= age('{}'::xid)", xmin & 0xffff_ffff);
    let query = format!(
        "SELECT oid FROM pg_largeobject_metadata WHERE age(xmin) {newer}
         UNION SELECT loid FROM pg_largeobject WHERE age(xmin) {newer} ORDER BY 1"
    );
    rows(client, "look for changed large objects", &query).await?.iter().map(|row| row.parse(0)).collect()
}

/// All objects.
pub(in crate::postgres::source) async fn all(client: &Client) -> Result<Vec<u32>> {
    let query = "SELECT oid FROM pg_largeobject_metadata ORDER BY oid";
    rows(client, "list the large objects", query).await?.iter().map(|row| row.parse(0)).collect()
}

impl Reader {
    /// Begins to read the objects of a condition.
    pub(in crate::postgres::source) async fn open(wire: &mut Wire, condition: &str) -> Result<Self> {
        let what = "read large objects";
        let objects = statements(wire, condition).await?;
        let page = wire.query(what, "SELECT current_setting('block_size')::int / 4").await?;
        let page_bytes = page.first().and_then(|row| row.first()?.as_ref()?.parse().ok()).unwrap_or(2048);
        let copy = format!(
            "COPY (SELECT l.loid, l.pageno, l.data FROM pg_largeobject l JOIN pg_largeobject_metadata m ON m.oid = l.loid
                   WHERE {condition} ORDER BY l.loid, l.pageno) TO STDOUT (FORMAT binary)"
        );
        wire.copy_out(what, &copy).await?;
        Ok(Self { objects: objects.into(), open: None, pages: BytesMut::new(), more: true, page_bytes })
    }

    /// About `max` bytes of records; the flag says whether they are the last.
    pub(in crate::postgres::source) async fn next(&mut self, wire: &mut Wire, max: usize) -> Result<(Bytes, bool)> {
        let mut records = BytesMut::new();
        while records.len() < max {
            if self.pages.is_empty() && self.more {
                let chunk = wire.copy_rows(max).await?;
                self.pages.extend_from_slice(&chunk.payload);
                self.more = !chunk.last;
                continue;
            }
            let Some((oid, page, data)) = take_page(&mut self.pages)? else {
                // Objects without content, behind the last that has some.
                match self.objects.pop_front() {
                    Some((oid, statements)) => put(&mut records, &Record::Object { oid, statements }),
                    None => return Ok((records.freeze(), true)),
                }
                continue;
            };
            while self.open != Some(oid) {
                let Some((next, statements)) = self.objects.pop_front() else {
                    return Err(Error::Internal("a page of a large object that is not listed".to_owned()));
                };
                put(&mut records, &Record::Object { oid: next, statements });
                self.open = Some(next);
            }
            put(&mut records, &Record::Piece { oid, offset: page * self.page_bytes, data });
        }
        Ok((records.freeze(), self.objects.is_empty() && self.pages.is_empty() && !self.more))
    }
}

/// Takes one row of `loid, pageno, data` in the binary format.
fn take_page(rows: &mut BytesMut) -> Result<Option<(u32, u64, Bytes)>> {
    let bad = || Error::Internal("a page of a large object is not what it should be".to_owned());
    if rows.is_empty() {
        return Ok(None);
    }
    // Three fields of which two have four bytes: 2 + (4 + 4) + (4 + 4) + 4.
    if rows.len() < 22 || rows.get_u16() != 3 || rows.get_i32() != 4 {
        return Err(bad());
    }
    let oid = rows.get_u32();
    if rows.get_i32() != 4 {
        return Err(bad());
    }
    let page = u64::from(rows.get_u32());
    let len = usize::try_from(rows.get_i32()).map_err(|_| bad())?;
    if rows.len() < len {
        return Err(bad());
    }
    Ok(Some((oid, page, rows.split_to(len).freeze())))
}

/// Each object with the statements for what belongs to it.
async fn statements(wire: &mut Wire, condition: &str) -> Result<Vec<(u32, String)>> {
    let what = "read the owners of large objects";
    let query = format!(
        "SELECT m.oid, pg_get_userbyid(m.lomowner), obj_description(m.oid, 'pg_largeobject')
         FROM pg_largeobject_metadata m WHERE {condition} ORDER BY m.oid"
    );
    let listed = wire.query(what, &query).await?;
    let query = format!(
        "SELECT m.oid, CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
         FROM pg_largeobject_metadata m CROSS JOIN LATERAL aclexplode(m.lomacl) a
         WHERE {condition} AND a.grantee <> m.lomowner ORDER BY 1, 2, 3"
    );
    let mut granted: HashMap<u32, String> = HashMap::new();
    for row in wire.query(what, &query).await?.into_iter().map(crate::postgres::rows::Row::new) {
        let oid = row.parse(0)?;
        let grantee = row.maybe(1).map_or_else(|| "PUBLIC".to_owned(), ident);
        let option = if row.flag(3) { " WITH GRANT OPTION" } else { "" };
        let grant = format!("GRANT {} ON LARGE OBJECT {oid} TO {grantee}{option};", row.text(2));
        granted.entry(oid).or_default().push_str(&grant);
    }
    let mut objects = Vec::with_capacity(listed.len());
    for row in listed.into_iter().map(crate::postgres::rows::Row::new) {
        let oid = row.parse(0)?;
        let mut text = format!("ALTER LARGE OBJECT {oid} OWNER TO {};", ident(row.text(1)));
        if let Some(comment) = row.maybe(2) {
            text.push_str(&format!("COMMENT ON LARGE OBJECT {oid} IS {};", literal(comment)));
        }
        text.push_str(&granted.remove(&oid).unwrap_or_default());
        objects.push((oid, text));
    }
    Ok(objects)
}
