//! Rows of the seed: one transaction a part, which records the part too.

use super::{super::payload::PartKind, live::Live, records, schema};
use crate::{
    Error, Result,
    postgres::{
        apply::helpers,
        payload::{EMPTIED, Table},
        sql::{ident, literal, qualified},
        states,
        wire::Wire,
    },
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Mutex as AsyncMutex;

/// Parts that are being loaded at a time. More than any source has lanes; those over are of lanes that broke and will start
/// their part anew, so the oldest of them goes.
const LOADING_MAX: usize = 24;
/// Sessions kept for the next part.
const IDLE_MAX: usize = 8;

/// The parts that are being loaded.
#[derive(Default)]
pub(super) struct Loads {
    parts: Mutex<BTreeMap<u32, Arc<Slot>>>,
    idle: Mutex<Vec<Wire>>,
    clock: AtomicU64,
}

/// One part.
#[derive(Default)]
struct Slot {
    loading: AsyncMutex<Loading>,
    used: AtomicU64,
}

/// What of it is sent to the server. While a call works on the session it has it taken out, so a call that is dropped leaves
/// none, and the server rolls the part back.
#[derive(Default)]
struct Loading {
    copying: Option<Wire>,
    at: u64,
}

impl Loads {
    fn slot(&self, part: u32) -> Arc<Slot> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = parts.entry(part).or_default().clone();
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        slot
    }

    fn done(&self, part: u32) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(&part);
    }

    /// Rolls the part back that was not heard of for the longest time, if there are too many.
    fn make_room(&self) {
        let mut parts: Vec<Arc<Slot>> =
            self.parts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        // One that is locked is at work, and not abandoned.
        parts.retain(|slot| slot.loading.try_lock().is_ok_and(|loading| loading.copying.is_some()));
        if parts.len() < LOADING_MAX {
            return;
        }
        if let Some(oldest) = parts.iter().min_by_key(|slot| slot.used.load(Ordering::Relaxed))
            && let Ok(mut loading) = oldest.loading.try_lock()
        {
            *loading = Loading::default();
        }
    }

    /// Lets go of all sessions.
    pub(super) fn clear(&self) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Keeps a session for the next part.
    pub(super) fn give_back(&self, wire: Wire) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(wire);
        }
    }

    fn take_idle(&self) -> Option<Wire> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Live {
    /// Takes one chunk of any part.
    pub(super) async fn chunk(&self, part: u32, offset: u64, payload: Bytes, next: u64, last: bool) -> Result<()> {
        let kind = self.kind(part)?;
        let held = self.part(part);
        if held.done {
            return Ok(());
        }
        match kind {
            PartKind::Schema => schema::chunk(self, part, offset, payload, next, last).await,
            PartKind::Rows { table, .. } => {
                let table = self.planned.header.tables.get(*table as usize);
                let table = table.ok_or_else(|| Error::Corrupt(format!("part {part} is of no table of the plan")))?;
                self.until_takes(part).await?;
                self.unless_interrupted(self.rows(part, table, offset, payload, next, last)).await
            }
            PartKind::LargeObjects => {
                self.until_takes(part).await?;
                self.unless_interrupted(self.large_objects(part, offset, payload, next, last)).await
            }
        }
    }

    /// Waits until there are tables, for a part that needs them.
    pub(super) async fn until_takes(&self, part: u32) -> Result<()> {
        if let PartKind::Schema = self.kind(part)? {
            return Ok(());
        }
        let mut ready = self.ready.subscribe();
        let there = async {
            let there = ready.wait_for(|ready| *ready).await;
            there.map(|_| ()).map_err(|_| Error::Internal("nobody waits for the schema any more".to_owned()))
        };
        self.unless_interrupted(there).await
    }

    async fn rows(&self, part: u32, table: &Table, offset: u64, payload: Bytes, next: u64, last: bool) -> Result<()> {
        let slot = self.loads.slot(part);
        let mut loading = slot.loading.lock().await;
        if self.part(part).done || next <= loading.at && !last {
            return Ok(());
        }
        if offset == 0 {
            // The lane broke and begins anew; a session that was copying rolls back when it is closed.
            *loading = Loading::default();
        }
        if offset != loading.at {
            return Err(Error::Gap { expected: loading.at.to_string(), got: offset.to_string() });
        }
        let wire = loading.copying.take();
        loading.at = 0;
        let emptied = last && next == offset + payload.len() as u64 + EMPTIED;
        // Most tables of most databases are small or empty: no COPY for nothing.
        if emptied || last && wire.is_none() && payload.is_empty() {
            // What came of an emptied table so far was of no use: its session rolls back when it is closed.
            drop(wire);
            let note = if emptied { helpers::note_emptied(table) } else { String::new() };
            let mut wire = self.loader().await?;
            self.end_part(&mut wire, part, next, &format!("BEGIN; SET LOCAL synchronous_commit = off; {note}")).await?;
            self.loads.give_back(wire);
            return Ok(());
        }
        let mut wire = match wire {
            Some(wire) => wire,
            None => self.begin_part(table).await?,
        };
        wire.copy_write(payload).await?;
        if last {
            wire.copy_finish().await?;
            self.end_part(&mut wire, part, next, "").await?;
            self.loads.give_back(wire);
        } else {
            (loading.copying, loading.at) = (Some(wire), next);
        }
        Ok(())
    }

    /// A session that loads rows.
    pub(super) async fn loader(&self) -> Result<Wire> {
        if let Some(wire) = self.loads.take_idle() {
            return Ok(wire);
        }
        let mut wire = Wire::connect(&self.shared.config, &self.database, "dest load", false).await?;
        // Rows travel in the database's own encoding, so that nothing is converted and nothing is refused.
        let prepare = format!(
            "SET session_replication_role = replica; SET default_transaction_read_only = off; SET client_encoding = {}",
            literal(&self.planned.header.database.locale.encoding)
        );
        wire.query("prepare a session that loads", &prepare).await?;
        Ok(wire)
    }

    async fn begin_part(&self, table: &Table) -> Result<Wire> {
        self.loads.make_room();
        let mut wire = self.loader().await?;
        let what = format!("load {}", qualified(&table.schema, &table.name));
        wire.query(&what, "BEGIN; SET LOCAL synchronous_commit = off").await?;
        wire.copy_in(&what, &copy_statement(table), table.binary).await?;
        Ok(wire)
    }

    async fn end_part(&self, wire: &mut Wire, part: u32, next: u64, begin: &str) -> Result<()> {
        // Not an upsert: if a connection that was lost just now committed the part after all, this one must not.
        let separator = if begin.is_empty() { "" } else { ";" };
        let end = format!(
            "{begin}{separator} INSERT INTO causeway.part VALUES ({part}, {next}, true); {}; COMMIT",
            records::check(self.epoch)
        );
        match self.checked(wire.query("end a part of the seed", &end).await) {
            Ok(_) => {}
            Err(error) if states::is_one_of(&error, &["23505"]) => {
                // The session is closed with its transaction; what is committed is what was sent.
                *wire = self.loader().await?;
            }
            Err(error) => return Err(error),
        }
        self.committed(part, next, true);
        self.loads.done(part);
        Ok(())
    }
}

/// Loads into the table itself, whoever inherits from it.
pub(super) fn copy_statement(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| ident(column)).collect();
    // Without a list all columns are meant, which is right for a table that has none to send.
    let list = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    let format = if table.binary { " WITH (FORMAT binary)" } else { "" };
    format!("COPY {}{list} FROM STDIN{format}", qualified(&table.schema, &table.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_loaded_by_their_columns() {
        let mut table = Table {
            schema: "s".to_owned(),
            name: "t\"".to_owned(),
            columns: vec!["a".to_owned(), "b c".to_owned()],
            binary: true,
        };
        assert_eq!(copy_statement(&table), r#"COPY "s"."t""" ("a", "b c") FROM STDIN WITH (FORMAT binary)"#);
        (table.columns, table.binary) = (vec![], false);
        assert_eq!(copy_statement(&table), r#"COPY "s"."t""" FROM STDIN"#);
    }
}
