//! What the destination knows of a table that the log changes: its columns, its key, who else watches over its rows.

use crate::{
    Error, Result,
    postgres::{
        log::pgoutput::Relation,
        sql::{literal, qualified},
        wire::{Row, Wire},
    },
};

use std::sync::atomic::{AtomicBool, Ordering};

const WHAT: &str = "look a table up";

/// A table, as one description of the source and the destination's catalog have it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    /// In the order of the log.
    pub(super) columns: Vec<Column>,
    pub(super) key: Key,
    /// Another index, or an equality that says more than equal bytes, can make rows with different keys get into each other's
    /// way: one worker has to apply them all.
    pub(super) serial: bool,
    /// Which worker that is, by its remainder.
    pub(super) home: u64,
    /// An UPDATE cannot write a column (identity that is always generated): rows are replaced.
    pub(super) replace: bool,
    /// The array type of its rows, for columns of which there are no arrays.
    pub(super) row_array: u32,
    pub(super) row_type: u32,
    /// A TRUNCATE emptied it before its rows were sent, and the log has not come to it yet: rows may be missing.
    pub(super) emptied: AtomicBool,
    /// All its columns, and which of the log's each is (generated ones are none).
    pub(super) layout: Vec<(u32, Option<usize>)>,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_oid: u32,
    /// The type of arrays of it; 0 if it is an array itself, or a row: `unnest` would take those apart.
    pub(super) array_oid: u32,
    /// As SQL names the type.
    pub(super) type_name: String,
    /// What separates the elements of its arrays in text.
    pub(super) delimiter: u8,
    /// `GENERATED ALWAYS AS IDENTITY`.
    pub(super) always: bool,
}

/// How rows are found again.
#[derive(Debug)]
pub(super) enum Key {
    /// By these columns, which are unique. Each with the schema of its equality operator.
    Columns(Vec<(usize, String)>),
    /// By all of them; rows may be there more than once. These columns are in the helper's index.
    Whole { hashed: Vec<usize> },
}

impl Table {
    /// Looks a relation of the log up at the destination.
    pub(super) async fn load(wire: &mut Wire, relation: &Relation) -> Result<Self> {
        let place = literal(&qualified(&relation.schema, &relation.name));
        let missing =
            |what: &str| Error::Corrupt(format!("the log changes {}.{}, {what}", relation.schema, relation.name));
        let query = format!(
            "SELECT c.oid, c.reltype, r.typarray, EXISTS (SELECT FROM causeway.emptied WHERE relation = c.oid) FROM pg_class c JOIN pg_type r ON r.oid = c.reltype \
             WHERE c.oid = to_regclass({place})"
        );
        let rows = wire.query(WHAT, &query).await?;
        let found = rows.first().ok_or_else(|| missing("which the destination does not have"))?;
        let (oid, row_type, row_array) = (number(found, 0)?, number(found, 1)?, number(found, 2)?);
        let emptied = AtomicBool::new(text(found, 3) == "t");
        let attributes = wire.query(WHAT, &COLUMNS.replace("$1", &oid.to_string())).await?;
        let mut columns = Vec::with_capacity(relation.columns.len());
        for wanted in &relation.columns {
            let attribute = attributes.iter().find(|row| text(row, 0) == wanted.name);
            let attribute = attribute.filter(|row| text(row, 6).is_empty());
            let attribute = attribute.ok_or_else(|| missing("which has other columns at the destination"))?;
            columns.push(Column {
                name: wanted.name.clone(),
                type_oid: number(attribute, 2)?,
                array_oid: number(attribute, 3)?,
                type_name: text(attribute, 4).to_owned(),
                delimiter: text(attribute, 5).bytes().next().unwrap_or(b','),
                always: text(attribute, 7) == "a",
            });
        }
        let place_of = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let layout =
            attributes.iter().map(|row| Ok((number(row, 2)?, place_of(text(row, 0))))).collect::<Result<_>>()?;
        let indexes = wire.query(WHAT, &INDEXES.replace("$1", &oid.to_string())).await?;
        let plain: Vec<i32> =
            attributes.iter().filter(|row| text(row, 8) == "t").filter_map(|row| text(row, 1).parse().ok()).collect();
        let numbers: Vec<(i32, usize)> =
            attributes.iter().filter_map(|row| Some((text(row, 1).parse().ok()?, place_of(text(row, 0))?))).collect();
        let chosen = choose(relation, &indexes, &numbers);
        let others = indexes.iter().enumerate().any(|(n, _)| chosen.as_ref().is_none_or(|(index, ..)| *index != n));
        let (key, simple) = match chosen {
            Some((_, key, attributes)) => (Key::Columns(key), attributes.iter().all(|number| plain.contains(number))),
            None => (Key::Whole { hashed: hashed(wire, oid, relation).await? }, true),
        };
        let in_key = |n: usize| matches!(&key, Key::Columns(key) if key.iter().any(|(column, _)| *column == n));
        let replace = columns.iter().enumerate().any(|(n, column)| column.always && !in_key(n));
        let Relation { schema, name, .. } = relation;
        Ok(Self {
            schema: schema.clone(),
            name: name.clone(),
            serial: others || !simple,
            home: xxhash_rust::xxh3::xxh3_64(relation.name.as_bytes()) >> 32,
            columns,
            replace,
            key,
            row_array,
            row_type,
            emptied,
            layout,
        })
    }

    /// Its quoted name.
    pub(super) fn quoted(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// Whether rows that the log changes may be missing.
    pub(super) fn may_lack_rows(&self) -> bool {
        self.emptied.load(Ordering::Relaxed)
    }

    /// The columns that find a row, if it has a key.
    pub(super) fn key_columns(&self) -> Option<&[(usize, String)]> {
        match &self.key {
            Key::Columns(columns) => Some(columns),
            Key::Whole { .. } => None,
        }
    }
}

/// Name, number, type, array type, type in SQL, delimiter, generated, identity, and whether equal values have equal bytes.
const COLUMNS: &str = "\
    SELECT a.attname, a.attnum, a.atttypid, CASE b.typtype WHEN 'c' THEN 0 ELSE t.typarray END, format_type(a.atttypid, -1), t.typdelim, a.attgenerated, \
           a.attidentity, \
           (b.typtype = 'e' OR b.oid = ANY ('{bool,bytea,\"\\\"char\\\"\",name,int8,int2,int4,oid,date,time,timestamp,\
               timestamptz,uuid,macaddr,bit,varbit,money}'::regtype[]) \
            OR (b.oid = ANY ('{text,varchar}'::regtype[]) OR b.oid = 'bpchar'::regtype AND a.atttypmod > 0) \
               AND coalesce(co.collisdeterministic, true)) \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
    JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
    LEFT JOIN pg_collation co ON co.oid = a.attcollation \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// Indexes that watch over rows: columns, usable as a key, primary or identity, and the schemas of the equality operators.
const INDEXES: &str = "\
    SELECT array_to_string(i.indkey[0:i.indnkeyatts - 1], ' '), \
           i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid, \
           i.indisprimary OR i.indisreplident, i.indisprimary, \
           (SELECT string_agg(coalesce(n.nspname, 'pg_catalog'), E'\\x01' ORDER BY k.n) \
            FROM generate_series(0, i.indnkeyatts - 1) k (n) JOIN pg_opclass o ON o.oid = i.indclass[k.n] \
            LEFT JOIN pg_amop m ON m.amopfamily = o.opcfamily AND m.amoplefttype = o.opcintype \
                AND m.amoprighttype = o.opcintype AND m.amopstrategy = 3 \
            LEFT JOIN pg_operator p ON p.oid = m.amopopr LEFT JOIN pg_namespace n ON n.oid = p.oprnamespace) \
    FROM pg_index i WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion) AND i.indislive \
    ORDER BY NOT i.indisprimary, NOT i.indisreplident, i.indexrelid";

/// The index whose columns find rows: its place, its columns with the schemas of their operators, its attributes' numbers.
type Chosen = (usize, Vec<(usize, String)>, Vec<i32>);

fn choose(relation: &Relation, indexes: &[Row], numbers: &[(i32, usize)]) -> Option<Chosen> {
    let flagged: Vec<usize> =
        relation.columns.iter().enumerate().filter(|(_, column)| column.key).map(|(n, _)| n).collect();
    indexes.iter().enumerate().find_map(|(n, row)| {
        let attributes: Vec<i32> = text(row, 0).split(' ').filter_map(|number| number.parse().ok()).collect();
        let place = |number: &i32| numbers.iter().find(|(other, _)| other == number).map(|(_, place)| *place);
        let columns: Vec<usize> = attributes.iter().map(place).collect::<Option<_>>()?;
        // A whole old row comes with every change: then the primary key is as good as all of it, and found by an index.
        let fits = match relation.full {
            true => text(row, 3) == "t",
            false => columns.len() == flagged.len() && flagged.iter().all(|column| columns.contains(column)),
        };
        let schemas = text(row, 4).split('\x01').map(str::to_owned);
        (fits && text(row, 1) == "t").then(|| (n, columns.into_iter().zip(schemas).collect(), attributes))
    })
}

async fn hashed(wire: &mut Wire, oid: u32, relation: &Relation) -> Result<Vec<usize>> {
    let query = format!("SELECT unnest(columns) FROM causeway.row_hash WHERE relation = {oid}");
    let rows = wire.query(WHAT, &query).await?;
    let place = |row: &Row| relation.columns.iter().position(|column| column.name == text(row, 0));
    Ok(rows.iter().filter_map(place).collect())
}

fn text(row: &Row, n: usize) -> &str {
    row.get(n).and_then(Option::as_deref).unwrap_or_default()
}

fn number(row: &Row, n: usize) -> Result<u32> {
    text(row, n).parse().map_err(|_| Error::Internal(format!("{WHAT}: a number was expected")))
}
