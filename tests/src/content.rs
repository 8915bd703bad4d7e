//! Databases to move: the Chinook sample and databases of a given size.

use ledger::FillOptions;
use std::{fs, path::Path};

/// The Chinook sample, which lies in the repository (1 MB; see `tests/data/README.md`).
pub const CHINOOK: &[u8] = include_bytes!("../data/chinook.sqlite");

/// Puts the Chinook sample at `path`.
pub fn chinook(path: &Path) {
    fs::write(path, CHINOOK).expect("write the sample");
}

/// Makes a database of `mb` million bytes with the ledger's tables.
pub fn filled(path: &Path, mb: u64) {
    filled_as(FillOptions::new(path, mb));
}

/// Makes a database by particular options.
pub fn filled_as(options: FillOptions) {
    ledger::fill(&options).unwrap_or_else(|e| panic!("make {}: {e:?}", options.db.display()));
}
