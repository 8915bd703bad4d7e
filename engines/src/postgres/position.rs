//! Where the log is: an LSN, and how many changes of the transaction after it.

use crate::{Error, Result};
use handover::Position;
use std::{fmt, str::FromStr};

/// A place in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lsn(pub(crate) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let half = |part: &str| {
            let plain = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = halves.ok_or_else(|| Error::Corrupt(format!("{text:?} is not an LSN")))?;
        Ok(Lsn(high << 32 | low))
    }
}

/// A point in the stream of changes.
///
/// `index` 0 is the boundary between two transactions: everything that committed at or before `lsn` (the end of its commit
/// record) is before the point. A larger `index` lies inside the transaction that follows, after so many of its changes
/// (rows, truncations, messages; what describes relations and types does not count), so that a huge transaction can be cut and
/// resumed. After a fence or at a mark, records that the log does not carry follow `lsn` with `index` from
/// [`Point::EXTRAS`] on; [`Point::end`] is behind the last of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Point {
    pub(crate) lsn: Lsn,
    pub(crate) index: u64,
}

impl Point {
    /// The index of the first extra; no transaction has so many changes.
    pub(crate) const EXTRAS: u64 = 1 << 48;

    /// The boundary at an LSN.
    pub(crate) fn at(lsn: Lsn) -> Self {
        Point { lsn, index: 0 }
    }

    /// The point behind all extras of a marker at `lsn`: where an attempt ends.
    pub(crate) fn end(lsn: Lsn) -> Self {
        Point { lsn, index: u64::MAX }
    }

    /// Whether it lies among the extras of a marker, or behind them. The log goes on from its LSN.
    pub(crate) fn in_extras(self) -> bool {
        self.index >= Self::EXTRAS
    }

    /// As the rest of Causeway carries it.
    pub(crate) fn position(self) -> Position {
        let text = match self.index {
            0 => self.lsn.to_string(),
            u64::MAX => format!("{}+end", self.lsn),
            index => format!("{}+{index}", self.lsn),
        };
        Position::parse(&text).expect("digits and signs are printable and few")
    }

    /// Reads what [`Point::position`] wrote, and nothing else: agents compare positions as texts, so one point has one text.
    pub(crate) fn read(position: &Position) -> Result<Self> {
        let text = position.as_str();
        let bad = || Error::Corrupt(format!("{text:?} is not a position of this engine"));
        let (lsn, index) = match text.split_once('+') {
            None => (text, 0),
            Some((lsn, "end")) => (lsn, u64::MAX),
            Some((lsn, index)) => match index.parse() {
                Ok(index) if index != 0 && index != u64::MAX => (lsn, index),
                _ => return Err(bad()),
            },
        };
        let point = Point { lsn: lsn.parse().map_err(|_| bad())?, index };
        if point.position() == *position { Ok(point) } else { Err(bad()) }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.position(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_as_they_were_written_and_ordered() {
        let lsn = Lsn(0x1_0000_00ff);
        assert_eq!(lsn.to_string(), "1/FF");
        let points = [Point::at(lsn), Point { lsn, index: 7 }, Point { lsn, index: Point::EXTRAS }, Point::end(lsn)];
        for point in points {
            assert_eq!(Point::read(&point.position()).expect("a point"), point);
        }
        assert!(points.windows(2).all(|w| w[0] < w[1]));
        assert!(Point::end(lsn) < Point::at(Lsn(lsn.0 + 1)));
    }

    #[test]
    fn what_is_no_point_is_refused() {
        for text in [
            "",
            "1",
            "1/",
            "/1",
            "1/123456789",
            "1/0+",
            "1/0+0",
            "1/0+x",
            "1/0+18446744073709551615",
            "+1/0",
            "1/-1",
            "1/ff",
            "01/FF",
            "1/00FF",
            "1/FF+07",
            "1/FF++7",
        ] {
            let position = Position::parse(text).expect("printable");
            assert!(matches!(Point::read(&position), Err(Error::Corrupt(_))), "{text:?}");
        }
    }
}
