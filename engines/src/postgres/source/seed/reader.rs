//! Reading one part of a seed from an offset on.
//!
//! A part is what one COPY gives, in an order that is the same each time: within a snapshot the rows of a range of pages stand
//! where they stand. So a part is resumed by reading it again and passing over what was sent.

use super::{
    super::memo::{SeedPlan, Slot},
    large_objects,
};
use crate::{
    Error, Result,
    postgres::{
        config::PostgresConfig,
        payload::{EMPTIED, PartKind, Table},
        source::holder,
        sql::{ident, literal, qualified},
        wire::Wire,
    },
    source::Chunk,
};
use bytes::Bytes;

/// What is passed over is read in pieces of this size.
const SKIP_BYTES: usize = 1 << 20;

/// A part that is being read.
pub(in crate::postgres::source) struct Reader {
    wire: Wire,
    /// For large objects, whose rows are made into records.
    objects: Option<large_objects::Reader>,
    /// Where the next byte is.
    offset: u64,
    /// What was read already and is not given yet.
    rest: Option<Piece>,
}

#[derive(Default)]
struct Piece {
    payload: Bytes,
    rows: u64,
    last: bool,
    emptied: bool,
}

/// What has become of a table's rows since the snapshot was taken.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// They are where they were.
    Same,
    /// VACUUM FULL or CLUSTER wrote them anew, in another order.
    Other,
    /// All snapshots see a TRUNCATE: nothing is left of them.
    Gone,
}

/// A session for reading parts, inside the held snapshot.
pub(in crate::postgres::source) async fn connect(config: &PostgresConfig, database: &str, slot: &Slot) -> Result<Wire> {
    let mut wire = Wire::connect(config, database, "source seed", false).await?;
    enter(&mut wire, slot).await?;
    Ok(wire)
}

/// Begins a transaction in the held snapshot.
pub(in crate::postgres::source) async fn enter(wire: &mut Wire, slot: &Slot) -> Result<()> {
    let what = "take part in the snapshot of the seed";
    wire.query(what, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    match wire.query(what, &holder::import_statement(&slot.snapshot)).await {
        Err(error) if holder::gone(&error) => {
            return Err(Error::LogLost("the snapshot of the seed is not held any more".to_owned()));
        }
        other => other?,
    };
    // The order of the rows has to be the same each time, and everybody's rows have to be seen.
    let settings = "SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0;
         SET LOCAL row_security = off";
    wire.query(what, settings).await.map(drop)
}

impl Reader {
    /// Begins to read a part at an offset at which a chunk of it ended.
    pub(in crate::postgres::source) async fn open(
        mut wire: Wire,
        plan: &SeedPlan,
        part: u32,
        offset: u64,
    ) -> Result<Self> {
        let unknown = || Error::Misuse(format!("there is no part {part} of rows in the plan"));
        let place = usize::try_from(part).map_err(|_| unknown())?;
        let objects = match plan.header.parts.get(place) {
            Some(PartKind::Rows { table, first, end }) => {
                let number = usize::try_from(*table).map_err(|_| unknown())?;
                let found = plan.header.tables.get(number).ok_or_else(unknown)?;
                match find(&mut wire, found).await? {
                    Place::Same => {}
                    // Read at once, all of them come in any order.
                    Place::Other if *first == 0 && end.is_none() && offset == 0 => {}
                    Place::Other => {
                        let name = qualified(&found.schema, &found.name);
                        return Err(Error::LogLost(format!("the table {name} was rewritten before it was sent")));
                    }
                    Place::Gone => {
                        let emptied = Piece { last: true, emptied: true, ..Piece::default() };
                        return Ok(Self { wire, objects: None, offset, rest: Some(emptied) });
                    }
                }
                copy_rows(&mut wire, found, *first, *end).await?;
                None
            }
            Some(PartKind::LargeObjects) => {
                let rows = plan.header.parts.iter().take(place);
                let before = rows.filter(|kind| matches!(kind, PartKind::LargeObjects)).count();
                let (first, end) = plan.large_objects.get(before).copied().ok_or_else(unknown)?;
                set_encoding(&mut wire, "UTF8").await?;
                wire.query("read in the order of an index", "SET enable_indexscan = on").await?;
                Some(large_objects::Reader::open(&mut wire, &large_objects::in_range(first, end)).await?)
            }
            Some(PartKind::Schema) | None => return Err(unknown()),
        };
        let mut reader = Self { wire, objects, offset: 0, rest: None };
        reader.skip_to(offset).await?;
        Ok(reader)
    }

    /// Where the next chunk starts.
    pub(in crate::postgres::source) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next chunk.
    pub(in crate::postgres::source) async fn next(&mut self, max: usize) -> Result<Chunk> {
        let piece = match self.rest.take() {
            Some(piece) => piece,
            None => self.piece(max).await?,
        };
        self.offset += piece.payload.len() as u64 + if piece.emptied { EMPTIED } else { 0 };
        Ok(Chunk { payload: piece.payload, next_offset: self.offset, last: piece.last, rows: piece.rows })
    }

    /// The session, for another part, once this one is read to its end. Its lock on the table is nobody's business any more.
    pub(in crate::postgres::source) async fn finish(mut self) -> Result<Wire> {
        self.wire.query("end the reading of a part", "ROLLBACK").await?;
        Ok(self.wire)
    }

    async fn piece(&mut self, max: usize) -> Result<Piece> {
        match &mut self.objects {
            Some(objects) => {
                let (payload, last) = objects.next(&mut self.wire, max).await?;
                Ok(Piece { payload, last, ..Piece::default() })
            }
            None => {
                let chunk = self.wire.copy_chunk(max).await?;
                Ok(Piece { payload: chunk.payload, rows: chunk.rows, last: chunk.last, emptied: false })
            }
        }
    }

    async fn skip_to(&mut self, offset: u64) -> Result<()> {
        while self.offset < offset {
            let mut piece = self.piece(SKIP_BYTES).await?;
            let skip = usize::try_from(offset - self.offset).unwrap_or(usize::MAX).min(piece.payload.len());
            self.offset += skip as u64;
            let rest = piece.payload.split_off(skip);
            let last = piece.last;
            if !rest.is_empty() || last {
                // How many of the rows are in the rest is not known, and matters to nobody.
                self.rest = Some(Piece { payload: rest, last, ..Piece::default() });
            }
            if last && self.offset < offset {
                return Err(Error::Corrupt(format!("a part of the seed ends at {}, before {offset}", self.offset)));
            }
        }
        Ok(())
    }
}

/// Looks where the rows of a table are. From here on a lock keeps them there, until the part is read.
async fn find(wire: &mut Wire, table: &Table) -> Result<Place> {
    let name = qualified(&table.schema, &table.name);
    let what = "look whether a table was rewritten";
    let lock = format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE");
    wire.query(what, &lock).await?;
    // The function looks at what is, the column at what the snapshot shows. After VACUUM FULL the rows are still seen.
    let query = format!(
        "SELECT CASE WHEN pg_relation_filenode(c.oid) IS NOT DISTINCT FROM nullif(c.relfilenode, 0) THEN 'same'
             WHEN EXISTS (SELECT FROM ONLY {name}) THEN 'other' ELSE 'gone' END
         FROM pg_class c WHERE c.oid = {}::regclass",
        literal(&name)
    );
    let found = wire.query(what, &query).await?;
    match found.first().and_then(|row| row.first()?.as_deref()) {
        Some("same") => Ok(Place::Same),
        Some("other") => Ok(Place::Other),
        Some("gone") => Ok(Place::Gone),
        _ => Err(Error::LogLost(format!("the table {name} was dropped before it was sent"))),
    }
}

/// Begins to read the rows of a range of pages.
pub(in crate::postgres::source) async fn copy_rows(
    wire: &mut Wire,
    table: &Table,
    first: u32,
    end: Option<u32>,
) -> Result<()> {
    // As it is in the database: no conversion, and no rows that cannot be converted.
    set_encoding(wire, "").await?;
    // An index that has all columns may seem cheaper than the table; its order is another one.
    wire.query("read in the order of the pages", "SET enable_indexonlyscan = off; SET enable_indexscan = off").await?;
    let name = qualified(&table.schema, &table.name);
    let columns: Vec<String> = table.columns.iter().map(|column| ident(column)).collect();
    let mut pages = vec![];
    if first > 0 {
        pages.push(format!("ctid >= '({first},0)'"));
    }
    pages.extend(end.map(|end| format!("ctid < '({end},0)'")));
    let pages = if pages.is_empty() { String::new() } else { format!(" WHERE {}", pages.join(" AND ")) };
    let format = if table.binary { " (FORMAT binary)" } else { "" };
    let copy = format!("COPY (SELECT {} FROM ONLY {name}{pages}) TO STDOUT{format}", columns.join(", "));
    wire.copy_out(&format!("read the rows of {name}"), &copy).await
}

/// Sets the encoding of what is read; the database's own if it is empty.
pub(in crate::postgres::source) async fn set_encoding(wire: &mut Wire, encoding: &str) -> Result<()> {
    let set = format!(
        "SELECT set_config('client_encoding', CASE WHEN current_setting('server_encoding') = 'SQL_ASCII' OR {0} = ''
                THEN current_setting('server_encoding') ELSE {0} END, false)",
        literal(encoding)
    );
    wire.query("set the encoding", &set).await.map(drop)
}
