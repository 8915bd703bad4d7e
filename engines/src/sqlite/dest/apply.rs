//! Writing log to the replica: full page images, so doing it twice does no harm.

use crate::{
    Error, Result,
    sqlite::wire::{Frame, Log},
};
use std::{fs::File, io::IoSlice, os::fd::AsFd, os::unix::fs::FileExt};

/// How many pages go into one call: the kernel's limit (`IOV_MAX`).
const RUN_PAGES_MAX: usize = 1024;

/// What a piece of log leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Whether a transaction ends at its end.
    pub at_commit: bool,
    /// How many pages the database has after the last commit in it, if there is one.
    pub pages: Option<u32>,
}

/// What a piece of log will lead to.
pub(super) fn outcome(log: &Log<'_>) -> Outcome {
    let last = log.frames().next_back();
    let pages = log.frames().rev().map(|f| f.commit).find(|commit| *commit != 0);
    Outcome { at_commit: last.is_some_and(|f| f.commit != 0), pages }
}

/// Applies a piece of log to a file. Of each page only the last image is written, and none that a shrinking commit cut
/// off, in the order of the file.
pub(super) fn apply(file: &File, log: &Log<'_>) -> Result<Outcome> {
    let outcome = outcome(log);
    // From the back: the first image seen of a page is its last, and `cut` is the smallest size that follows it.
    let (mut cut, mut picked) = (u32::MAX, Vec::with_capacity(log.len()));
    for frame in log.frames().rev() {
        if frame.commit != 0 {
            cut = cut.min(frame.commit);
        }
        if frame.pgno <= cut {
            picked.push(frame);
        }
    }
    picked.sort_by_key(|f| f.pgno);
    picked.dedup_by_key(|f| f.pgno);

    let page_size = u64::from(log.page_size());
    let length = |file: &File| file.metadata().map(|m| m.len()).map_err(|e| Error::io("examine the replica", e));
    let resize = |bytes: u64| file.set_len(bytes).map_err(|e| Error::io("resize the replica", e));
    if cut != u32::MAX && length(file)? > u64::from(cut) * page_size {
        resize(u64::from(cut) * page_size)?;
    }
    for run in picked.chunk_by(|a, b| a.pgno.checked_add(1) == Some(b.pgno)) {
        for run in run.chunks(RUN_PAGES_MAX) {
            write_run(file, run, page_size)?;
        }
    }
    if let Outcome { at_commit: true, pages: Some(pages) } = outcome {
        // SQLite may count pages whose content means nothing and was never written.
        let bytes = u64::from(pages) * page_size;
        if length(file)? != bytes {
            resize(bytes)?;
        }
    }
    Ok(outcome)
}

fn write_run(file: &File, run: &[Frame<'_>], page_size: u64) -> Result<()> {
    let wrap = |e| Error::io("write to the replica", e);
    let Some(first) = run.first() else { return Ok(()) };
    let at = (u64::from(first.pgno) - 1) * page_size;
    let mut written = 0;
    if run.len() > 1 {
        let slices: Vec<IoSlice<'_>> = run.iter().map(|f| IoSlice::new(f.page)).collect();
        written = rustix::io::pwritev(file.as_fd(), &slices, at).map_err(|e| wrap(e.into()))? as u64;
    }
    // Nearly always nothing is left; a short write goes on page by page and tells why it was short.
    let whole = (written / page_size) as usize;
    for (index, frame) in run.iter().enumerate().skip(whole) {
        file.write_all_at(frame.page, at + index as u64 * page_size).map_err(wrap)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::wire::{begin_log, push_frame};
    use bytes::BytesMut;
    use proptest::prelude::*;

    const SIZE: usize = 512;

    /// The same by the book: one frame after the other.
    fn by_the_book(file: &mut Vec<u8>, frames: &[(u32, u32, u8)]) {
        for (pgno, commit, fill) in frames {
            let end = *pgno as usize * SIZE;
            if file.len() < end {
                file.resize(end, 0);
            }
            file[end - SIZE..end].fill(*fill);
            if *commit != 0 {
                file.resize(*commit as usize * SIZE, 0);
            }
        }
    }

    fn encode(frames: &[(u32, u32, u8)]) -> BytesMut {
        let mut out = BytesMut::new();
        begin_log(&mut out, SIZE as u32);
        for (pgno, commit, fill) in frames {
            push_frame(&mut out, Frame { pgno: *pgno, commit: *commit, page: &[*fill; SIZE] });
        }
        out
    }

    fn frames() -> impl Strategy<Value = Vec<(u32, u32, u8)>> {
        // A commit frame is never beyond the size that it sets, and a fill of 3 would be a fence.
        let frame = (1u32..12, prop_oneof![Just(0u32), 1u32..12], 4u8..200).prop_map(|(pgno, commit, fill)| {
            if commit == 0 { (pgno, 0, fill) } else { (pgno.min(commit), commit, fill) }
        });
        prop::collection::vec(frame, 1..40)
    }

    proptest! {
        #[test]
        fn the_short_cut_leads_to_the_same_file(batches in prop::collection::vec(frames(), 1..5)) {
            let (file, mut want) = (tempfile::tempfile().expect("a file"), vec![]);
            for batch in &batches {
                let encoded = encode(batch);
                let log = Log::decode(&encoded).expect("decoded");
                let outcome = apply(&file, &log).expect("applied");
                prop_assert_eq!(apply(&file, &log).expect("applied again"), outcome);
                by_the_book(&mut want, batch);
                let mut have = vec![0; file.metadata().expect("examined").len() as usize];
                file.read_exact_at(&mut have, 0).expect("read");
                prop_assert_eq!(outcome.at_commit, batch.last().is_some_and(|f| f.1 != 0));
                if outcome.at_commit {
                    prop_assert_eq!(&have, &want);
                }
            }
        }
    }
}
