//! What the log does not carry, read behind a fence or as of a mark: sequences, large objects, unlogged tables, definitions.
//!
//! A fenced database takes no new connection, so the session that reads is made before. A task owns it: a caller that goes
//! away in the middle of a COPY must not leave it useless.

use super::{
    memo::Memo,
    seed::{large_objects, plan, reader},
};
use crate::{
    Error, Result,
    postgres::{
        catalog::{self, Known},
        payload::{Extra, Sequence},
        position::Lsn,
        rows::{Row, rows},
        sql::{Sql, literal, qualified},
        wire::Wire,
    },
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

/// About how large the raw part of an extra is; it has to fit into a frame of the transfer.
const RAW_BYTES: usize = 512 << 10;
/// Sequences read in one statement, and told in one extra: each is a table to the planner.
const SEQUENCES: usize = 500;
/// Large objects in one list.
const OBJECTS: usize = 50_000;
/// Changed large objects read together.
const CHANGED: usize = 1_000;
/// Extras read ahead of the caller.
const AHEAD: usize = 4;

/// One extra.
pub(super) struct Item {
    pub(super) extra: Extra,
    pub(super) raw: Bytes,
    pub(super) last: bool,
}

/// Where an attempt ends, and who reads what belongs there.
pub(super) struct Marker {
    /// Its position in the log.
    pub(super) lsn: Lsn,
    requests: mpsc::Sender<Request>,
}

/// Everything from an index on.
struct Request {
    from: u64,
    items: mpsc::Sender<Result<Item>>,
}

/// The sessions with which extras are read.
pub(super) struct Sessions {
    pub(super) sql: Arc<Sql>,
    pub(super) wire: Wire,
}

impl Marker {
    /// A marker whose extras `sessions` read; `known` are the definitions as they were shortly before. The task ends with the marker.
    pub(super) fn new(lsn: Lsn, sessions: Sessions, memo: Arc<Memo>, known: Option<Arc<Known>>) -> Self {
        let (requests, mut asked) = mpsc::channel::<Request>(1);
        let Sessions { sql, mut wire } = sessions;
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                let mut out = Out { index: 0, from: request.from, items: request.items };
                if let Err(error) = read(&sql, &mut wire, &memo, known.as_deref(), &mut out).await {
                    tracing::debug!(%error, "read what the log does not carry");
                    // Whoever asked may be gone.
                    let _ = out.items.send(Err(error)).await;
                }
            }
        });
        Self { lsn, requests }
    }

    /// The extras from an index on, in their order, which is the same each time.
    pub(super) async fn read_from(&self, index: u64) -> Result<mpsc::Receiver<Result<Item>>> {
        let (items, receiver) = mpsc::channel(AHEAD);
        let sent = self.requests.send(Request { from: index, items }).await;
        sent.map_err(|_| Error::Internal("the task that reads extras is gone".to_owned()))?;
        Ok(receiver)
    }
}

/// Passes over what the caller has.
struct Out {
    index: u64,
    from: u64,
    items: mpsc::Sender<Result<Item>>,
}

impl Out {
    async fn put(&mut self, extra: Extra, raw: Bytes, last: bool) {
        if self.index >= self.from {
            // A caller that is gone asks again; what is being read is read to its end, so that the session stays whole.
            let _ = self.items.send(Ok(Item { extra, raw, last })).await;
        }
        self.index += 1;
    }
}

async fn read(sql: &Sql, wire: &mut Wire, memo: &Memo, known: Option<&Known>, out: &mut Out) -> Result<()> {
    let slot = memo.slot.as_ref().ok_or_else(|| Error::Internal("a marker without a slot".to_owned()))?;
    // Asked together: clients may be waiting.
    let (all, all_objects, changed, tables) = tokio::join!(biased;
        rows(sql, SEQUENCES_WHAT, SEQUENCES_ALL),
        large_objects::all(sql),
        large_objects::changed(sql, slot.xmin),
        plan::tables(sql, 'u'),
    );
    sequences(sql, &all?, out).await?;
    let (all_objects, changed, tables) = (all_objects?, changed?, tables?);
    let rest = async {
        objects(wire, &all_objects, &changed, out).await?;
        unlogged(wire, &tables, out).await
    };
    let (rest, lines) = tokio::join!(biased; rest, catalog::lines_as_known(sql, known));
    rest?;
    definitions(lines?, out).await
}

const SEQUENCES_WHAT: &str = "read where the sequences stand";
const SEQUENCES_ALL: &str = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'causeway' ORDER BY 1, 2";

/// Read from each sequence itself: the view `pg_sequences` knows nothing of one that was restarted.
async fn sequences(sql: &Sql, all: &[Row], out: &mut Out) -> Result<()> {
    for some in all.chunks(SEQUENCES) {
        let each = |row: &Row| {
            let (schema, name) = (row.text(0), row.text(1));
            let sequence = qualified(schema, name);
            format!("SELECT {}, {}, last_value, is_called FROM {sequence}", literal(schema), literal(name))
        };
        let query: Vec<String> = some.iter().map(each).collect();
        let read = rows(sql, SEQUENCES_WHAT, &query.join(" UNION ALL ")).await?;
        let read = read.iter().map(|row| {
            let (schema, name) = (row.owned(0), row.owned(1));
            Ok(Sequence { schema, name, last_value: row.parse(2)?, is_called: row.flag(3) })
        });
        let extra = Extra::Sequences(read.collect::<Result<_>>()?);
        out.put(extra, Bytes::new(), false).await;
    }
    Ok(())
}

/// All that exist, so that the others go, and those that may differ from the seed.
async fn objects(wire: &mut Wire, all: &[u32], changed: &[u32], out: &mut Out) -> Result<()> {
    let mut lists: Vec<Vec<u32>> = all.chunks(OBJECTS).map(<[u32]>::to_vec).collect();
    if lists.is_empty() {
        lists.push(vec![]);
    }
    for list in lists {
        out.put(Extra::LargeObjectList(list), Bytes::new(), false).await;
    }
    if changed.is_empty() {
        return Ok(());
    }
    reader::set_encoding(wire, "UTF8").await?;
    for some in changed.chunks(CHANGED) {
        let oids: Vec<String> = some.iter().map(u32::to_string).collect();
        let condition = format!("m.oid = ANY ('{{{}}}')", oids.join(","));
        let mut reader = large_objects::Reader::open(wire, &condition).await?;
        loop {
            let (raw, last) = reader.next(wire, RAW_BYTES).await?;
            if !raw.is_empty() {
                out.put(Extra::LargeObjects, raw, false).await;
            }
            if last {
                break;
            }
        }
    }
    Ok(())
}

async fn unlogged(wire: &mut Wire, tables: &[plan::Found], out: &mut Out) -> Result<()> {
    for found in tables {
        reader::copy_rows(wire, &found.table, 0, None).await?;
        let mut first = true;
        loop {
            // Each piece is a COPY of its own at the destination.
            let chunk = wire.copy_rows(RAW_BYTES).await?;
            if first || !chunk.payload.is_empty() {
                out.put(Extra::Unlogged { table: found.table.clone(), first }, chunk.payload, false).await;
            }
            first = false;
            if chunk.last {
                break;
            }
        }
    }
    Ok(())
}

/// The definitions come last, in as many pieces as it takes.
async fn definitions(lines: Vec<String>, out: &mut Out) -> Result<()> {
    let mut lines = lines.into_iter().peekable();
    loop {
        let (mut piece, mut bytes) = (vec![], 0);
        while let Some(line) = lines.next_if(|line| bytes == 0 || bytes + line.len() <= RAW_BYTES) {
            bytes += line.len() + 8;
            piece.push(line);
        }
        let last = lines.peek().is_none();
        out.put(Extra::Catalog(piece), Bytes::new(), last).await;
        if last {
            return Ok(());
        }
    }
}
