//! The seed: plan, chunks and digests, and what makes it whole.

use super::{Progress, Shared, ended};
use crate::{
    Error, Result,
    source::Plan,
    sqlite::{
        dest::{apply, spool},
        wire::{Body, ChunkPayload, Digest, Log, Point, SeedHeader},
    },
};
use bytes::Bytes;
use std::{
    fs::{File, Permissions},
    io::ErrorKind,
    os::unix::fs::{FileExt, PermissionsExt},
    sync::{Arc, PoisonError},
};

/// The longest range that is digested at once, so that memory stays bounded whatever is asked for.
const DIGEST_BYTES_MAX: usize = 16 << 20;

impl Shared {
    pub(super) fn plan(&self, plan: &Plan) -> Result<()> {
        let header = SeedHeader::decode(&plan.header)?;
        Point::parse(&plan.log_start)?;
        drop(self.enter()?);
        // Alone: nothing of the plan before is written after this.
        let files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let files = files.as_ref().ok_or_else(ended)?;
        let known = self.state().received.as_ref().map(|p| (p.generation, p.header, p.log_start.clone()));
        if let Some((generation, known_header, known_start)) = known {
            if plan.generation < generation {
                return Err(Error::Misuse(format!("plan {} is older than {generation}", plan.generation)));
            }
            if plan.generation == generation {
                if (header, &plan.log_start) != (known_header, &known_start) {
                    return Err(Error::Misuse(format!("plan {generation} has changed")));
                }
                return self.store.check().map(|_| ());
            }
        }
        let next = Progress::new(plan.generation, header, plan.verify, plan.log_start.clone());
        // The record goes first: from here on nothing of the generation before counts, whatever the files still hold.
        self.record(next.clone(), &self.syncing())?;
        {
            let mut state = self.state();
            (state.received, state.touched, state.unsure) = (Some(next), 0, 0);
        }
        let wrap = |e| Error::io("begin a replica", e);
        files.spool.set_len(0).map_err(wrap)?;
        if !plan.verify {
            files.db.set_len(0).map_err(wrap)?;
        }
        files.db.set_permissions(Permissions::from_mode(header.mode & 0o777 | 0o600)).map_err(wrap)
    }

    pub(super) fn digest(&self, part: u32, offset: u64, len: usize) -> Result<Bytes> {
        let using = self.enter()?;
        let header = self.state().received()?.header;
        let at = place(&header, part, offset)?;
        if len > DIGEST_BYTES_MAX {
            return Err(Error::Misuse(format!("a digest of {len} bytes was asked for")));
        }
        let len = (header.part_bytes - offset).min(len as u64) as usize;
        let mut bytes = vec![0; len];
        let have = read_up_to(&using.files()?.db, &mut bytes, at)?;
        Ok(Digest::of(&bytes[..have], header.page_size).encode())
    }

    pub(super) fn chunk(
        self: &Arc<Self>,
        part: u32,
        offset: u64,
        payload: &Bytes,
        next_offset: u64,
        last: bool,
    ) -> Result<()> {
        let using = self.enter()?;
        let (header, held) = {
            let state = self.state();
            let received = state.received()?;
            (received.header, received.parts.get(&part).copied().unwrap_or_default())
        };
        let at = place(&header, part, offset)?;
        if held.done || (next_offset <= held.bytes && !last) {
            return Ok(());
        }
        if offset > held.bytes {
            return Err(Error::Gap {
                expected: format!("part {part} offset {}", held.bytes),
                got: format!("part {part} offset {offset}"),
            });
        }
        let chunk = ChunkPayload::decode(payload, header.page_size)?;
        let range = match &chunk.body {
            Body::Full(bytes) => bytes.len() as u64,
            Body::Sparse { range_bytes, .. } => u64::from(*range_bytes),
        };
        let end = next_offset.max(offset + range);
        if next_offset < offset || end > header.part_bytes || range > next_offset - offset {
            return Err(Error::Corrupt(format!("a chunk of part {part} does not fit its place")));
        }
        self.store.check()?;
        let db = &using.files()?.db;
        let wrap = |e| Error::io("write to the replica", e);
        let mut written = 0;
        match &chunk.body {
            Body::Full(bytes) => {
                db.write_all_at(bytes, at).map_err(wrap)?;
                written = bytes.len();
            }
            Body::Sparse { pages, .. } => {
                for (index, page) in pages {
                    db.write_all_at(page, at + u64::from(*index) * u64::from(header.page_size)).map_err(wrap)?;
                    written += page.len();
                }
            }
        }
        {
            let mut state = self.state();
            let received = state.received_mut()?;
            let held = received.parts.entry(part).or_default();
            held.bytes = held.bytes.max(next_offset);
            held.done |= last;
            if chunk.file_bytes.is_some() {
                received.file_bytes = chunk.file_bytes;
            }
        }
        self.wrote(written as u64);
        Ok(())
    }

    pub(super) fn seed_done(self: &Arc<Self>) -> Result<()> {
        drop(self.enter()?);
        if let Some(part) = self.state().received()?.missing_part() {
            return Err(Error::Gap { expected: format!("part {part}"), got: "the end of the seed".to_owned() });
        }
        // Chunks that come from here on are skipped; this waits for those that are being written.
        drop(self.files.write().unwrap_or_else(PoisonError::into_inner));
        let using = self.enter()?;
        let files = using.files()?;
        let _log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.state().received()?.clone();
        if next.seeded {
            return self.store.check().map(|_| ());
        }
        self.store.check()?;
        let bytes = next.file_bytes.unwrap_or(next.header.file_bytes);
        files.db.set_len(bytes).map_err(|e| Error::io("resize the replica", e))?;
        {
            let syncing = self.syncing();
            self.flush_db(&files.db, &syncing)?;
            self.flush(&files.spool, &syncing)?;
            next.bound = next.bound.max(Point::parse(next.log_end())?.seq());
            self.record(next.clone(), &syncing)?;
        }
        spool::replay(&files.spool, next.spool_bytes, |payload| {
            apply::apply(&files.db, &Log::decode(payload)?)?;
            self.wrote(payload.len() as u64);
            Ok(())
        })?;
        {
            let syncing = self.syncing();
            self.flush(&files.db, &syncing)?;
            (next.seeded, next.spool_bytes) = (true, 0);
            self.record(next.clone(), &syncing)?;
            self.state().received = Some(next);
        }
        files.spool.set_len(0).map_err(|e| Error::io("empty the log spool", e))
    }
}

/// Where an offset of a part lies in the file.
fn place(header: &SeedHeader, part: u32, offset: u64) -> Result<u64> {
    if part >= header.parts() || offset > header.part_bytes || !offset.is_multiple_of(u64::from(header.page_size)) {
        return Err(Error::Corrupt(format!("part {part} offset {offset} is not a place of this plan")));
    }
    Ok(u64::from(part) * header.part_bytes + offset)
}

fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> Result<usize> {
    let mut have = 0;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], at + have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read the replica", e)),
        }
    }
    Ok(have)
}
