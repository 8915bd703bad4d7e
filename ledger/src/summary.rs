//! What a writer says of its run at the end, and how long the move kept it waiting.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stretch of time in which one writer was acknowledged at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// Who.
    pub writer: u32,
    /// Where.
    pub place: String,
    /// When the first of them was acknowledged, in microseconds since the epoch; 0 if none was.
    pub first_us: u64,
    /// When the last was.
    pub last_us: u64,
    /// How many were.
    pub committed: u64,
}

impl Reign {
    pub(crate) fn new(writer: u32, place: &str) -> Self {
        Self { writer, place: place.to_owned(), first_us: 0, last_us: 0, committed: 0 }
    }

    pub(crate) fn acknowledge(&mut self, at_us: u64) {
        if self.first_us == 0 {
            self.first_us = at_us;
        }
        self.last_us = at_us;
        self.committed += 1;
    }
}

/// A change of place, as the application saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// The place left.
    pub from: String,
    /// The place found.
    pub to: String,
    /// The last acknowledgement at the old place, in microseconds since the epoch.
    pub last_us: u64,
    /// The first at the new one.
    pub first_us: u64,
    /// From the one to the other. Negative if both places acknowledged at once: two primaries.
    pub freeze_ms: f64,
}

/// How long transactions took from BEGIN to the acknowledgement, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half were at most this.
    pub median_ms: f64,
    /// 99 of 100 were at most this.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// One writer's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriterSummary {
    /// Which.
    pub writer: u32,
    /// Its last acknowledged transaction.
    pub seq: u64,
    /// Where it was acknowledged when, in order.
    pub reigns: Vec<Reign>,
    /// Its changes of place.
    pub moves: Vec<Move>,
}

/// A run of `write`; printed as one line of JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Transactions acknowledged in this run.
    pub committed: u64,
    /// Transactions that failed (busy, for instance); a fence is not an error.
    pub errors: u64,
    /// Chores that failed: VACUUM, checkpoints, reopening.
    pub chore_errors: u64,
    /// The longest chore.
    pub chore_ms_max: f64,
    /// Refusals by a fence: one for each time a writer ran into it, not one for each retry.
    pub fenced: u64,
    /// Transactions that took longer than the stall limit.
    pub stalls: u64,
    /// How long the run took.
    pub elapsed_s: f64,
    /// Acknowledged transactions a second.
    pub txn_per_s: f64,
    /// From the last acknowledgement at the old place to the first at the new one, over all writers, for the last
    /// change of place; absent if there was none.
    pub freeze_ms: Option<f64>,
    /// Every change of place, over all writers.
    pub moves: Vec<Move>,
    /// The longest a fence that was taken back kept one writer waiting: last acknowledgement before it to the first
    /// after it, at the same place.
    pub aborted_freeze_ms_max: Option<f64>,
    /// Times a writer found acknowledged transactions missing.
    pub losses_noticed: u64,
    /// Snapshots that readers held.
    pub snapshots: u64,
    /// Snapshots in which a reader saw a state that never was.
    pub torn: u64,
    /// How long transactions took. With several processes: the worst of them.
    pub latency: Latency,
    /// What `latency` is made of, in microseconds; known within one process only.
    #[serde(skip)]
    pub(crate) latencies_us: Vec<u32>,
    /// The first few different errors.
    pub first_errors: Vec<String>,
    /// Each writer's part.
    pub writers: Vec<WriterSummary>,
}

/// The changes of place in a set of reigns: reigns at one place merge into one era.
pub fn moves_of(reigns: &[Reign]) -> Vec<Move> {
    let mut sorted: Vec<&Reign> = reigns.iter().filter(|r| r.committed > 0).collect();
    sorted.sort_by_key(|r| r.first_us);
    let mut moves = Vec::new();
    let mut era: Option<Reign> = None;
    for reign in sorted {
        match &mut era {
            Some(era) if era.place == reign.place => era.last_us = era.last_us.max(reign.last_us),
            _ => {
                if let Some(old) = era.replace(reign.clone()) {
                    let (last_us, first_us) = (old.last_us, reign.first_us);
                    let freeze_ms = (first_us as f64 - last_us as f64) / 1000.0;
                    moves.push(Move { from: old.place, to: reign.place.clone(), last_us, first_us, freeze_ms });
                }
            }
        }
    }
    moves
}

impl Summary {
    /// Fills in what follows from the rest: rates, changes of place, the freeze.
    pub(crate) fn conclude(mut self, elapsed_s: f64) -> Self {
        self.elapsed_s = elapsed_s;
        self.txn_per_s = if elapsed_s > 0.0 { self.committed as f64 / elapsed_s } else { 0.0 };
        let reigns: Vec<Reign> = self.writers.iter().flat_map(|w| w.reigns.clone()).collect();
        self.moves = moves_of(&reigns);
        self.freeze_ms = self.moves.last().map(|m| m.freeze_ms);
        if !self.latencies_us.is_empty() {
            self.latency = Latency::of(std::mem::take(&mut self.latencies_us));
        }
        self
    }

    /// Adds another part of the same run; [`Summary::conclude`] follows.
    pub(crate) fn add(&mut self, part: Self) {
        /// Enough to see what went wrong; the history has them all.
        const FIRST_ERRORS_MAX: usize = 8;
        self.committed += part.committed;
        self.errors += part.errors;
        self.chore_errors += part.chore_errors;
        self.chore_ms_max = self.chore_ms_max.max(part.chore_ms_max);
        self.fenced += part.fenced;
        self.stalls += part.stalls;
        self.losses_noticed += part.losses_noticed;
        self.snapshots += part.snapshots;
        self.torn += part.torn;
        self.aborted_freeze_ms_max = match (self.aborted_freeze_ms_max, part.aborted_freeze_ms_max) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.latency = Latency {
            median_ms: self.latency.median_ms.max(part.latency.median_ms),
            p99_ms: self.latency.p99_ms.max(part.latency.p99_ms),
            max_ms: self.latency.max_ms.max(part.latency.max_ms),
        };
        self.latencies_us.extend(part.latencies_us);
        for error in part.first_errors {
            if self.first_errors.len() < FIRST_ERRORS_MAX && !self.first_errors.contains(&error) {
                self.first_errors.push(error);
            }
        }
        self.writers.extend(part.writers);
    }
}

impl Latency {
    /// From single transactions, in microseconds.
    pub(crate) fn of(mut us: Vec<u32>) -> Self {
        us.sort_unstable();
        let at = |share: f64| {
            let index = (us.len() as f64 * share) as usize;
            us.get(index.min(us.len().saturating_sub(1))).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        Self { median_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s: committed {} ({:.0}/s)", self.elapsed_s, self.committed, self.txn_per_s)?;
        write!(f, ", errors {}, refused by a fence {}, stalls {}", self.errors, self.fenced, self.stalls)?;
        match self.freeze_ms {
            Some(freeze_ms) => write!(f, ", freeze {freeze_ms:.1} ms"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reign(writer: u32, place: &str, first_us: u64, last_us: u64) -> Reign {
        Reign { writer, place: place.to_owned(), first_us, last_us, committed: 1 }
    }

    #[test]
    fn a_freeze_is_from_the_last_of_all_to_the_first_of_all() {
        let reigns = [
            reign(0, "west", 10, 5000),
            reign(1, "west", 20, 6000),
            reign(0, "east", 9000, 9500),
            reign(1, "east", 8500, 9900),
        ];
        let moves = moves_of(&reigns);
        assert_eq!(moves.len(), 1);
        assert_eq!((moves[0].last_us, moves[0].first_us, moves[0].freeze_ms), (6000, 8500, 2.5));
    }

    #[test]
    fn two_primaries_show_as_a_negative_freeze() {
        let moves = moves_of(&[reign(0, "west", 10, 9000), reign(1, "east", 8000, 9900)]);
        assert_eq!(moves[0].freeze_ms, -1.0);
    }

    #[test]
    fn there_and_back_again_are_two_moves() {
        let moves = moves_of(&[reign(0, "west", 1, 2), reign(0, "east", 3, 4), reign(0, "west", 6, 7)]);
        assert_eq!(moves.iter().map(|m| m.to.as_str()).collect::<Vec<_>>(), ["east", "west"]);
    }
}
