//! A position in the log of a SQLite database, as text.

use crate::{Error, Result};
use handover::Position;
use std::{cmp::Ordering, fmt};

/// A point in the log.
///
/// The text is `<seq>.<salt1>.<salt2>.<frame>.<ck1>.<ck2>` with salts and checksums as hexadecimal digits for a WAL, and
/// `r<pass>.<seq>` for a rollback journal. `seq` counts records since the operation began and never goes back, so it
/// orders points; the rest tells whether a WAL found later is the very one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// After a frame of a WAL.
    Wal {
        /// Frames since the operation began.
        seq: u64,
        /// Both salts of the WAL, as in its header.
        salt: [u32; 2],
        /// The frame's number in its WAL, counted from 1; 0 is the start of it.
        frame: u32,
        /// The running checksum after the frame.
        checksum: [u32; 2],
    },
    /// After a record of a pass over a database with a rollback journal.
    Rollback {
        /// The pass.
        pass: u32,
        /// Records since the operation began.
        seq: u64,
    },
}

impl Point {
    /// Records since the operation began.
    pub fn seq(&self) -> u64 {
        match self {
            Point::Wal { seq, .. } | Point::Rollback { seq, .. } => *seq,
        }
    }

    /// Reads a position; only the exact text that [`Point::position`] makes is one.
    pub fn parse(position: &Position) -> Result<Self> {
        let text = position.as_str();
        let point = match text.strip_prefix('r') {
            Some(rest) => Self::parse_rollback(rest),
            None => Self::parse_wal(text),
        };
        point
            .filter(|p| p.to_string() == text)
            .ok_or_else(|| Error::Corrupt(format!("{text:?} is not a position of the SQLite engine")))
    }

    fn parse_wal(text: &str) -> Option<Self> {
        let mut fields = text.split('.');
        let mut next = || fields.next();
        let seq = next()?.parse().ok()?;
        let salt = [hex(next()?)?, hex(next()?)?];
        let frame = next()?.parse().ok()?;
        let checksum = [hex(next()?)?, hex(next()?)?];
        next().is_none().then_some(Point::Wal { seq, salt, frame, checksum })
    }

    fn parse_rollback(text: &str) -> Option<Self> {
        let (pass, seq) = text.split_once('.')?;
        Some(Point::Rollback { pass: pass.parse().ok()?, seq: seq.parse().ok()? })
    }

    /// The position that others carry.
    pub fn position(&self) -> Position {
        // At most 20 + 8 + 8 + 10 + 8 + 8 characters and 5 points, all of them printable.
        Position::parse(&self.to_string()).unwrap_or_default()
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Wal { seq, salt: [s1, s2], frame, checksum: [c1, c2] } => {
                write!(f, "{seq}.{s1:08x}.{s2:08x}.{frame}.{c1:08x}.{c2:08x}")
            }
            Point::Rollback { pass, seq } => write!(f, "r{pass}.{seq}"),
        }
    }
}

/// By `seq`; two different points with the same one cannot be ordered.
impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.seq().cmp(&other.seq()) {
            Ordering::Equal if self != other => None,
            order => Some(order),
        }
    }
}

fn hex(text: &str) -> Option<u32> {
    if text.len() == 8 { u32::from_str_radix(text, 16).ok() } else { None }
}
