//! Follows a history that is being written.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::history::{Event, Line};

/// A reader that reads only what is new.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
    place_of: BTreeMap<u32, String>,
    /// Acknowledged since the tail began, by place.
    pub acknowledged: BTreeMap<String, u64>,
    /// Refusals by a fence since the tail began.
    pub fenced: u64,
}

impl Tail {
    /// Begins at the present end of the file, which need not exist yet.
    pub fn from_end(path: &Path) -> Self {
        let offset = fs::metadata(path).map_or(0, |m| m.len());
        let path = path.to_owned();
        Self { path, offset, partial: vec![], place_of: BTreeMap::new(), acknowledged: BTreeMap::new(), fenced: 0 }
    }

    /// Reads what was appended since.
    pub fn catch_up(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut self.partial)? as u64;
        let whole = self.partial.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let rest = self.partial.split_off(whole);
        for line in std::mem::replace(&mut self.partial, rest).split(|b| *b == b'\n') {
            let Some(line) = std::str::from_utf8(line).ok().and_then(Line::parse) else { continue };
            match line.event {
                Event::At(place) => {
                    self.place_of.insert(line.writer, place);
                }
                Event::Commit => {
                    let place = self.place_of.get(&line.writer).cloned().unwrap_or_default();
                    *self.acknowledged.entry(place).or_default() += 1;
                }
                Event::Fenced(_) => self.fenced += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Acknowledged since the tail began, anywhere.
    pub fn acknowledged_anywhere(&self) -> u64 {
        self.acknowledged.values().sum()
    }
}
