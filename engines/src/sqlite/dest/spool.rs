//! Log that arrives before the seed is whole, kept on the destination's own disk.
//!
//! Records follow each other as `[length u32][crc32c u32][payload]`. How much of the file counts is said by the progress
//! record, so a torn tail needs no search for it.

use crate::{Error, Result};
use std::{fs::File, os::unix::fs::FileExt};

const HEAD: usize = 8;

/// No record is longer; a batch has about 1 MiB.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// Writes a record at `at` and answers where the next one goes. A record that fails half-way is overwritten by the next.
pub(super) fn append(file: &File, at: u64, payload: &[u8]) -> Result<u64> {
    let wrap = |e| Error::io("write to the log spool", e);
    let len = u32::try_from(payload.len()).ok().filter(|len| *len as usize <= RECORD_BYTES_MAX);
    let len = len.ok_or_else(|| Error::Corrupt(format!("a piece of log has {} bytes", payload.len())))?;
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    file.write_all_at(&head, at).map_err(wrap)?;
    file.write_all_at(payload, at + HEAD as u64).map_err(wrap)?;
    Ok(at + HEAD as u64 + u64::from(len))
}

/// Calls `each` with every record of the first `bytes`, one in memory at a time.
pub(super) fn replay(file: &File, bytes: u64, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let wrap = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::Corrupt("the log spool is shorter than recorded".to_owned()),
        _ => Error::io("read the log spool", e),
    };
    let (mut at, mut payload) = (0, vec![]);
    while at < bytes {
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, at).map_err(wrap)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len > RECORD_BYTES_MAX {
            return Err(Error::Corrupt("a record of the log spool has an impossible length".to_owned()));
        }
        payload.resize(len, 0);
        file.read_exact_at(&mut payload, at + HEAD as u64).map_err(wrap)?;
        if crc32c::crc32c(&payload) != crc {
            return Err(Error::Corrupt("a record of the log spool fails its checksum".to_owned()));
        }
        each(&payload)?;
        at += (HEAD + len) as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damage_is_found() {
        let file = tempfile::tempfile().expect("a file");
        let mut at = 0;
        for payload in [&b"one"[..], b"", b"three"] {
            at = append(&file, at, payload).expect("written");
        }
        append(&file, at, b"not counted").expect("written");
        let mut seen = vec![];
        replay(&file, at, |p| {
            seen.push(p.to_vec());
            Ok(())
        })
        .expect("read");
        assert_eq!(seen, [&b"one"[..], b"", b"three"]);

        let quiet = |_: &[u8]| Ok(());
        assert!(matches!(replay(&file, at + 500, quiet), Err(Error::Corrupt(_))), "a short spool");
        file.write_all_at(b"X", 8).expect("written");
        assert!(matches!(replay(&file, at, quiet), Err(Error::Corrupt(_))), "a flipped byte");
        file.write_all_at(&[255; 4], 0).expect("written");
        assert!(matches!(replay(&file, at, quiet), Err(Error::Corrupt(_))), "an absurd length");
    }
}
