//! Our revisions over etcd's: etcd counts its own changes, and ours must be able to leap ahead of that count.
//!
//! A revision of ours is etcd's plus a base. A commit whose revision has to be greater than etcd would make it writes a new
//! base, in the same transaction, which holds from that commit on. The keys `base/0`, `base/1`, ... are that history: etcd
//! remembers at which of its revisions each was put.

use super::super::Revision;

/// From which of etcd's revisions which base holds, ascending. The base before the first is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Versions {
    steps: Vec<(i64, u64)>,
}

impl Versions {
    /// The bases as read, in the order of their keys, each with the revision at which it was put.
    pub(super) fn new(steps: Vec<(i64, u64)>) -> Self {
        Self { steps }
    }

    /// How many bases there are.
    pub(super) fn count(&self) -> usize {
        self.steps.len()
    }

    /// A base as its put is seen; one that is known already changes nothing.
    pub(super) fn step(&mut self, at: i64, base: u64) {
        if self.steps.last().is_none_or(|(last, _)| *last < at) {
            self.steps.push((at, base));
        }
    }

    /// Our revision for one of etcd's.
    pub(super) fn ours(&self, theirs: i64) -> Revision {
        let base = self.steps.iter().rev().find(|(at, _)| *at <= theirs).map_or(0, |(_, base)| *base);
        Revision(u64::try_from(theirs).unwrap_or(0).saturating_add(base))
    }

    /// etcd's revision for one of ours; nothing if ours never was.
    pub(super) fn theirs(&self, ours: Revision) -> Option<i64> {
        let mut until = i64::MAX;
        for (at, base) in self.steps.iter().rev() {
            if let Some(theirs) = ours.0.checked_sub(*base).and_then(|theirs| i64::try_from(theirs).ok())
                && theirs >= *at
            {
                return (theirs < until).then_some(theirs);
            }
            until = *at;
        }
        i64::try_from(ours.0).ok().filter(|theirs| *theirs < until)
    }

    /// The base that a commit after etcd's revision `last` needs for its revision to be greater than `above`; nothing if it is
    /// as things are.
    pub(super) fn needed(&self, last: i64, above: Revision) -> Option<u64> {
        let next = self.ours(last.saturating_add(1));
        (next <= above).then(|| above.0.saturating_sub(u64::try_from(last).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_go_there_and_back_over_every_step() {
        let mut versions = Versions::default();
        assert_eq!((versions.ours(7), versions.theirs(Revision(7))), (Revision(7), Some(7)));
        // At 10 a commit had to be above 1000.
        let base = versions.needed(9, Revision(1000)).expect("a base");
        versions.step(10, base);
        versions.step(10, base);
        assert_eq!(versions.count(), 1);
        assert_eq!((versions.ours(9), versions.ours(10)), (Revision(9), Revision(1001)));
        assert_eq!(versions.needed(12, Revision(1000)), None);
        versions.step(20, versions.needed(19, Revision(5000)).expect("a base"));
        for theirs in [1, 9, 10, 11, 19, 20, 21, 1000] {
            assert_eq!(versions.theirs(versions.ours(theirs)), Some(theirs), "{theirs}");
        }
        // What lies in a leap never was.
        for ours in [10, 999, 1000, 1011, 4999, 5000] {
            assert_eq!(versions.theirs(Revision(ours)), None, "{ours}");
        }
        assert!(versions.ours(10) > versions.ours(9) && versions.ours(20) > Revision(5000));
    }
}
