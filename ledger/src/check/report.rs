//! What a check found, for people and for machines.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{driver, history::History, summary::moves_of};

/// What a check found. It passed if there is no problem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Transactions in the database.
    pub transactions: u64,
    /// Transactions acknowledged to the writers.
    pub acknowledged: u64,
    /// Of those, how many are in the database.
    pub found: u64,
    /// Acknowledged transactions that should be there and are not.
    pub lost: u64,
    /// Acknowledged transactions that a copy rightly lacks, because it ended before them.
    pub behind: u64,
    /// Transactions in the database that nobody attempted.
    pub invented: u64,
    /// Transactions in the database that were attempted but not acknowledged: the writer was killed, or refused,
    /// between.
    pub unknown_present: u64,
    /// Transactions the writers were refused by a fence.
    pub fenced: u64,
    /// Lines of the histories torn by a kill.
    pub torn_lines: u64,
    /// Hash over the content of all tables and the schema, if asked for.
    pub content_hash: Option<String>,
    /// The same of the other database.
    pub other_content_hash: Option<String>,
    /// Pages compared, if asked for.
    pub pages_compared: Option<u64>,
    /// What the engine's own check of the file said, if it was asked for.
    pub integrity: Option<String>,
    /// Every problem as a sentence that begins with its kind: `lost`, `invented`, `reordered`, `half-applied`,
    /// `wrong-content`, `hole`, `unknown`, `torn`, `two-primaries`, `corrupt`, `unreadable` or `differs`. Of each kind
    /// the first few.
    pub problems: Vec<String>,
    /// How many problems of each kind there are.
    pub problem_counts: BTreeMap<String, u64>,
}

impl Report {
    /// Whether the check passed.
    pub fn is_ok(&self) -> bool {
        self.problem_counts.is_empty()
    }

    /// Whether there is a problem of this kind.
    pub fn has(&self, kind: &str) -> bool {
        self.problem_counts.contains_key(kind)
    }

    pub(super) fn add(&mut self, kind: &str, text: String) {
        /// Enough to see a pattern; a lost database would otherwise list every row.
        const SHOWN_MAX: u64 = 5;
        let count = self.problem_counts.entry(kind.to_owned()).or_default();
        *count += 1;
        if *count <= SHOWN_MAX {
            self.problems.push(format!("{kind}: {text}"));
        }
    }

    pub(super) fn unreadable(&mut self, error: &driver::Error) {
        self.add("unreadable", error.in_one_line());
    }

    /// Takes over what the histories say by themselves.
    pub(super) fn attempted(&mut self, history: &History, due_us: u64) {
        let due = |us: u64| us > 0 && us <= due_us;
        self.acknowledged = history.writers.values().flatten().filter(|k| due(k.acknowledged_us)).count() as u64;
        self.fenced = history.fenced;
        self.torn_lines = history.torn_lines;
        for noticed in &history.noticed {
            let (kind, text) = noticed.split_once(": ").unwrap_or(("torn", noticed));
            self.add(kind, text.to_owned());
        }
        for reigns in &history.reigns {
            for (i, a) in reigns.iter().enumerate() {
                let overlaps = |b: &&_| overlap(a, b);
                if let Some(b) = reigns.iter().skip(i + 1).find(overlaps) {
                    let text = format!(
                        "{} acknowledged writer {} from {} to {} us, {} writer {} from {} to {} us",
                        a.place, a.writer, a.first_us, a.last_us, b.place, b.writer, b.first_us, b.last_us
                    );
                    self.add("two-primaries", text);
                }
            }
        }
    }
}

/// Whether two places acknowledged transactions at the same time.
fn overlap(a: &crate::summary::Reign, b: &crate::summary::Reign) -> bool {
    a.place != b.place && a.first_us <= b.last_us && b.first_us <= a.last_us
}

impl History {
    /// The freeze of the last move in these histories as the writers saw it, over all of them, in milliseconds.
    pub fn freeze_ms(&self) -> Option<f64> {
        self.reigns.iter().rev().find_map(|reigns| moves_of(reigns).last().map(|m| m.freeze_ms))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transactions, acknowledged, found, lost, behind, invented, unknown_present, .. } = self;
        write!(f, "{transactions} transactions; acknowledged {acknowledged}, found {found}, lost {lost}")?;
        write!(f, ", invented {invented}, of unknown outcome and there {unknown_present}")?;
        if *behind > 0 {
            write!(f, ", after the end of the copy {behind}")?;
        }
        if let Some(integrity) = &self.integrity {
            write!(f, "\nintegrity: {integrity}")?;
        }
        if let Some(hash) = &self.content_hash {
            write!(f, "\ncontent: {hash}")?;
        }
        if let Some(hash) = &self.other_content_hash {
            write!(f, "\nother:   {hash}")?;
        }
        if let Some(pages) = self.pages_compared {
            write!(f, "\npages compared: {pages}")?;
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\nPROBLEM {problem}"))?;
        for (kind, count) in &self.problem_counts {
            write!(f, "\n{kind}: {count}")?;
        }
        write!(f, "\n{}", if self.is_ok() { "OK" } else { "FAILED" })
    }
}
