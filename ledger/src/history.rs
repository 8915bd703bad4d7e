//! The history of a writer: an append-only text file, one event a line, each line one write(2).
//!
//! A transaction's `A` line is written before its COMMIT and its `C` line after COMMIT returned, so whatever kills the
//! process, a transaction in the database has an `A`, and one without a `C` was never acknowledged. Lines are
//! `LETTER writer seq t_us [rest]`, with the time in microseconds since the Unix epoch.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::summary::Reign;

/// Microseconds since the Unix epoch.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `A`: about to commit, as the item at this position of its list; the outcome is unknown from here on.
    Attempt(i64),
    /// `C`: acknowledged, COMMIT returned success.
    Commit,
    /// `K`: found committed by a writer that did not know the outcome; from here on as good as acknowledged.
    Learned,
    /// `E`: failed; unless at commit, without effect.
    Error(String),
    /// `F`: refused because the database is read-only.
    Fenced(String),
    /// `M`: works at this place from here on.
    At(String),
    /// `S`: took longer than the stall limit; milliseconds.
    Stall(u64),
    /// `L`: found its chain row at this seq although it was acknowledged more (the line's seq): a loss.
    Behind(u64),
    /// `T`: a reader (its number stands for the writer) saw a state that no prefix of the ledger has.
    Torn(String),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who.
    pub writer: u32,
    /// Which transaction.
    pub seq: u64,
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// What.
    pub event: Event,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writer, seq, at_us, event } = self;
        match event {
            Event::Attempt(position) => write!(f, "A {writer} {seq} {at_us} {position}"),
            Event::Commit => write!(f, "C {writer} {seq} {at_us}"),
            Event::Learned => write!(f, "K {writer} {seq} {at_us}"),
            Event::Error(text) => write!(f, "E {writer} {seq} {at_us} {text}"),
            Event::Fenced(text) => write!(f, "F {writer} {seq} {at_us} {text}"),
            Event::At(place) => write!(f, "M {writer} {seq} {at_us} {place}"),
            Event::Stall(ms) => write!(f, "S {writer} {seq} {at_us} {ms}"),
            Event::Behind(found) => write!(f, "L {writer} {seq} {at_us} {found}"),
            Event::Torn(text) => write!(f, "T {writer} {seq} {at_us} {text}"),
        }
    }
}

impl Line {
    /// Reads a line, without its newline; `None` for one that was torn by a kill.
    pub fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(5, ' ');
        let letter = parts.next()?;
        let writer = parts.next()?.parse().ok()?;
        let seq = parts.next()?.parse().ok()?;
        let at_us = parts.next()?.parse().ok()?;
        let rest = parts.next();
        let event = match (letter, rest) {
            ("A", Some(position)) => Event::Attempt(position.parse().ok()?),
            ("C", None) => Event::Commit,
            ("K", None) => Event::Learned,
            ("E", Some(text)) => Event::Error(text.to_owned()),
            ("F", Some(text)) => Event::Fenced(text.to_owned()),
            ("M", Some(place)) => Event::At(place.to_owned()),
            ("S", Some(ms)) => Event::Stall(ms.parse().ok()?),
            ("L", Some(found)) => Event::Behind(found.parse().ok()?),
            ("T", Some(text)) => Event::Torn(text.to_owned()),
            _ => return None,
        };
        Some(Self { writer, seq, at_us, event })
    }
}

/// The end of a history to which events are appended; shared by the threads of a process, the file by processes.
#[derive(Debug)]
pub struct Appender(File);

impl Appender {
    /// Opens or creates the file. A last line torn by a kill is closed, so that it spoils no line but itself.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let len = file.metadata()?.len();
        if len > 0 {
            file.seek(SeekFrom::Start(len - 1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self(file))
    }

    /// Appends an event with one write(2) and says when it was.
    pub fn append(&self, writer: u32, seq: u64, event: Event) -> io::Result<u64> {
        let at_us = now_us();
        let line = format!("{}\n", Line { writer, seq, at_us, event });
        (&self.0).write_all(line.as_bytes())?;
        Ok(at_us)
    }
}

/// What is known of one transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// When its last attempt began to commit; 0 if it was never attempted.
    pub attempted_us: u64,
    /// When it was acknowledged, or found committed; 0 if it was not.
    pub acknowledged_us: u64,
    /// The position in its list it committed at, by its last attempt.
    pub position: i64,
    /// Which of the files read said so.
    pub file: usize,
}

/// One or several histories, read.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Per writer what is known of transactions 1, 2, ... (index 0 is transaction 1).
    pub writers: BTreeMap<u32, Vec<Known>>,
    /// Per file, who was acknowledged at which place from when to when.
    pub reigns: Vec<Vec<Reign>>,
    /// Losses and torn states that writers and readers noticed by themselves, in sentences.
    pub noticed: Vec<String>,
    /// Failed transactions.
    pub errors: u64,
    /// Refusals by a fence.
    pub fenced: u64,
    /// Lines that a kill tore.
    pub torn_lines: u64,
    files: usize,
}

impl History {
    /// Reads the files in the order given: a later one continues an earlier one.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> io::Result<Self> {
        let mut history = Self::default();
        for path in paths {
            history.read_file(path.as_ref())?;
        }
        Ok(history)
    }

    /// The last acknowledged transaction of a writer; 0 for none.
    pub fn acknowledged_last(&self, writer: u32) -> u64 {
        let known = self.writers.get(&writer).map_or(&[][..], Vec::as_slice);
        known.iter().rposition(|k| k.acknowledged_us > 0).map_or(0, |i| i as u64 + 1)
    }

    /// How many transactions were acknowledged in all.
    pub fn acknowledged(&self) -> u64 {
        self.writers.values().flatten().filter(|k| k.acknowledged_us > 0).count() as u64
    }

    /// How many files were read.
    pub fn files(&self) -> usize {
        self.files
    }

    /// Reads one more file, which continues those before.
    pub fn read_file(&mut self, path: &Path) -> io::Result<()> {
        let text = fs::read(path)?;
        let mut current: BTreeMap<u32, Reign> = BTreeMap::new();
        let mut done: Vec<Reign> = Vec::new();
        for line in text.split_inclusive(|b| *b == b'\n') {
            let Some((b'\n', line)) = line.split_last() else { continue };
            if line.is_empty() {
                continue;
            }
            match std::str::from_utf8(line).ok().and_then(Line::parse) {
                Some(line) => self.take(line, &mut current, &mut done),
                None => self.torn_lines += 1,
            }
        }
        done.extend(current.into_values());
        done.retain(|reign| reign.committed > 0);
        self.reigns.push(done);
        self.files += 1;
        Ok(())
    }

    fn take(&mut self, line: Line, current: &mut BTreeMap<u32, Reign>, done: &mut Vec<Reign>) {
        let Line { writer, seq, at_us, event } = line;
        match event {
            Event::Attempt(position) => {
                let file = self.files;
                let Some(known) = self.known(writer, seq) else { return };
                let again = known.acknowledged_us > 0;
                *known = Known { attempted_us: at_us, position, file, ..*known };
                if again {
                    self.noticed.push(format!("lost: writer {writer} found transaction {seq} gone and wrote it again"));
                }
            }
            Event::Commit => {
                let file = self.files;
                let Some(known) = self.known(writer, seq) else { return };
                *known = Known { acknowledged_us: at_us, file, ..*known };
                current.entry(writer).or_insert_with(|| Reign::new(writer, "")).acknowledge(at_us);
            }
            Event::Learned => {
                let file = self.files;
                let Some(known) = self.known(writer, seq) else { return };
                *known = Known { acknowledged_us: at_us, file, ..*known };
            }
            Event::At(place) => {
                done.extend(current.insert(writer, Reign::new(writer, &place)));
            }
            Event::Behind(found) => self
                .noticed
                .push(format!("lost: writer {writer} was acknowledged up to {seq} and found the database at {found}")),
            Event::Torn(text) => self.noticed.push(format!("torn: reader {writer}: {text}")),
            Event::Error(_) => self.errors += 1,
            Event::Fenced(_) => self.fenced += 1,
            Event::Stall(_) => {}
        }
    }

    /// The entry of a transaction. A number beyond any real one would only exhaust memory and counts as a torn line.
    fn known(&mut self, writer: u32, seq: u64) -> Option<&mut Known> {
        const SEQ_MAX: u64 = 100_000_000;
        let index = match seq {
            1..=SEQ_MAX => usize::try_from(seq - 1).ok()?,
            _ => {
                self.torn_lines += 1;
                return None;
            }
        };
        let known = self.writers.entry(writer).or_default();
        if known.len() <= index {
            known.resize(index + 1, Known::default());
        }
        known.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_the_way_through_its_line() {
        let events = [
            Event::Attempt(5),
            Event::Commit,
            Event::Learned,
            Event::Error("commit: disk is full".into()),
            Event::Fenced("write: read-only".into()),
            Event::At("/a path/db".into()),
            Event::Stall(70),
            Event::Behind(3),
            Event::Torn("the balances sum to 7".into()),
        ];
        for event in events {
            let line = Line { writer: 2, seq: 9, at_us: 1_700_000_000_000_000, event };
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
    }

    #[test]
    fn a_torn_line_is_counted_and_spoils_no_other() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("h");
        fs::write(&path, "A 0 1 100 1\nC 0 1 110\nA 0 2 1")?;
        Appender::open(&path)?.append(0, 2, Event::Commit)?;
        let history = History::read(&[&path])?;
        assert_eq!((history.acknowledged(), history.torn_lines), (2, 1));
        for broken in
            ["", "A", "A 0 1", "A x 1 2 3", "Z 0 1 2", "C 0 1 2 3", "A 0 -1 2 3", "C 0 18446744073709551616 2"]
        {
            assert_eq!(Line::parse(broken), None, "{broken}");
        }
        fs::write(&path, "C 0 18446744073709551615 2\nC 0 0 2\n")?;
        assert_eq!(History::read(&[&path])?.torn_lines, 2);
        Ok(())
    }

    #[test]
    fn writing_an_acknowledged_transaction_again_is_a_loss() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("h");
        fs::write(&path, "A 0 1 100 1\nC 0 1 110\nA 0 1 120 1\n")?;
        assert!(History::read(&[&path])?.noticed[0].starts_with("lost: "));
        Ok(())
    }
}
