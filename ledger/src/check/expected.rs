//! What the histories and the ledger itself say the rest of the database must be.

use std::collections::BTreeMap;

use super::{CheckOptions, report::Report};
use crate::{
    driver::{LedgerRow, ListItem},
    history::{History, Known},
    transaction::{ACCOUNTS, Chain, LISTS, Transaction},
};

/// What was seen of one writer in the database.
#[derive(Debug, Default)]
struct Seen {
    chain: Chain,
    /// By seq - 1: there is a row, there is a list item.
    rows: Vec<bool>,
    items: Vec<bool>,
}

/// The ledger as it is read, and all that follows from it.
pub(super) struct Ledger<'a> {
    history: &'a History,
    options: &'a CheckOptions,
    due_us: u64,
    seen: BTreeMap<u32, Seen>,
    balances: Vec<i64>,
    /// The list being read and how many of its items were.
    list: (i64, i64),
}

/// A number beyond any real one; it would only exhaust memory.
const SEQ_MAX: u64 = 100_000_000;

impl<'a> Ledger<'a> {
    pub(super) fn new(history: &'a History, options: &'a CheckOptions, due_us: u64) -> Self {
        let seen = history.writers.keys().map(|writer| (*writer, Seen::default())).collect();
        Self { history, options, due_us, seen, balances: vec![0; ACCOUNTS as usize], list: (-1, 0) }
    }

    /// Takes one ledger row, in order of writer and seq.
    pub(super) fn row(&mut self, row: LedgerRow, report: &mut Report) {
        let (writer, seq) = (row.writer, row.seq);
        report.transactions += 1;
        let Some((writer, seq)) = identify(writer, seq) else {
            report.invented += 1;
            return report.add("invented", format!("writer {writer} seq {seq} is no transaction's name"));
        };
        let known = self.known(writer, seq);
        if known.attempted_us == 0 {
            report.invented += 1;
            report.add("invented", format!("writer {writer} seq {seq} was never attempted"));
        } else if known.acknowledged_us == 0 {
            report.unknown_present += 1;
        }
        let t = Transaction::of(writer, seq, row.note.len());
        if (t.src, t.dst, t.amount) != row.transfer || t.note != row.note {
            report.add("wrong-content", format!("writer {writer} seq {seq}"));
        }
        let (src, dst, amount) = row.transfer;
        for (account, change) in [(src, amount.checked_neg()), (dst, Some(amount))] {
            let slot = usize::try_from(account).ok().and_then(|i| self.balances.get_mut(i));
            if let (Some(balance), Some(change)) = (slot, change) {
                *balance = balance.wrapping_add(change);
            }
        }
        let seen = self.seen.entry(writer).or_default();
        seen.chain = seen.chain.after_row(writer, seq, &row.note);
        mark(&mut seen.rows, seq);
    }

    /// Takes one list item, in order of list and position.
    pub(super) fn item(&mut self, item: ListItem, report: &mut Report) {
        let ListItem { list, position, writer, seq } = item;
        if self.list.0 != list {
            self.list = (list, 0);
        }
        self.list.1 += 1;
        if position != self.list.1 {
            report.add("hole", format!("list {list} has position {position} where {} was due", self.list.1));
            self.list.1 = position;
        }
        let Some((writer, seq)) = identify(writer, seq) else {
            return report
                .add("invented", format!("list {list} names writer {writer} seq {seq}, no transaction's name"));
        };
        let known = self.known(writer, seq);
        let place = format!("list {list} position {position} holds writer {writer} seq {seq}");
        if Transaction::of(writer, seq, 0).list != list || !(0..LISTS).contains(&list) {
            report.add("wrong-content", format!("{place}, which belongs to another list"));
        } else if known.attempted_us > 0 && known.position != position {
            report.add("reordered", format!("{place}, which was appended at {}", known.position));
        }
        let seen = self.seen.entry(writer).or_default();
        if !seen.rows.get(seq as usize - 1).is_some_and(|there| *there) {
            report.add("half-applied", format!("{place}, which the ledger lacks"));
        }
        if mark(&mut seen.items, seq) {
            report.add("reordered", format!("{place} a second time"));
        }
    }

    /// After all rows and items: whether each transaction that must be there is, wholly.
    pub(super) fn completeness(&self, report: &mut Report) {
        let must_have = self.must_have();
        for (writer, seen) in &self.seen {
            let rows = seen.rows.len();
            let there = |i: usize| seen.rows.get(i).is_some_and(|there| *there);
            let holes: Vec<usize> = (0..rows).filter(|i| !there(*i)).map(|i| i + 1).collect();
            if let (Some(first), n) = (holes.first(), holes.len()) {
                report.add("hole", format!("writer {writer} lacks {n} transactions below its last, the first {first}"));
            }
            for seq in (0..rows).filter(|i| there(*i) && !seen.items.get(*i).is_some_and(|x| *x)) {
                report
                    .add("half-applied", format!("writer {writer} seq {} is in the ledger, not in its list", seq + 1));
            }
            let known = self.history.writers.get(writer).map_or(&[][..], Vec::as_slice);
            let (mut lost, mut last_acknowledged) = (Vec::new(), 0);
            for (i, k) in known.iter().enumerate().filter(|(_, k)| k.acknowledged_us > 0) {
                last_acknowledged = i + 1;
                let due = k.acknowledged_us <= self.due_us;
                if there(i) {
                    report.found += u64::from(due);
                } else if i < rows || self.is_due(k, &must_have) {
                    lost.push(i + 1);
                } else {
                    report.behind += u64::from(due);
                }
            }
            if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
                report.lost += lost.len() as u64;
                let n = lost.len();
                report
                    .add("lost", format!("writer {writer}: {n} acknowledged transactions, first {first} last {last}"));
            }
            let open = rows.saturating_sub(last_acknowledged);
            if open > 1 {
                report
                    .add("unknown", format!("writer {writer} has {open} transactions after its last acknowledged one"));
            }
        }
    }

    /// The chain rows say the same transactions in the same order, and were committed with them.
    pub(super) fn chains(&self, chains: &[(i64, i64, Vec<u8>)], report: &mut Report) {
        let mut found: BTreeMap<i64, (i64, &[u8])> = BTreeMap::new();
        for (writer, seq, digest) in chains {
            found.insert(*writer, (*seq, digest));
        }
        for (writer, seen) in &self.seen {
            let (seq, digest) = found.remove(&i64::from(*writer)).unwrap_or((0, &[]));
            let Chain { seq: last, digest: expected } = &seen.chain;
            if u64::try_from(seq) != Ok(*last) {
                report.add("half-applied", format!("writer {writer}: the chain ends at {seq}, the ledger at {last}"));
            } else if digest != expected {
                report.add("reordered", format!("writer {writer}: the chain is not the hash over its transactions"));
            }
        }
        for (writer, (seq, _)) in found.into_iter().filter(|(_, (seq, _))| *seq != 0) {
            report.add("half-applied", format!("writer {writer}: the chain ends at {seq}, the ledger has none"));
        }
    }

    /// The balances are what the ledger's transfers make them.
    pub(super) fn balances(&self, balances: &[(i64, i64)], report: &mut Report) {
        let sum = balances.iter().fold(0i128, |sum, (_, balance)| sum + i128::from(*balance));
        if sum != 0 {
            report.add("half-applied", format!("the balances sum to {sum}, not to 0"));
        }
        if balances.len() != self.balances.len() {
            report.add("half-applied", format!("there are {} accounts, not {}", balances.len(), self.balances.len()));
        }
        for (id, balance) in balances {
            let expected = usize::try_from(*id).ok().and_then(|i| self.balances.get(i));
            if expected != Some(balance) {
                let expected = expected.map_or("no such account".to_owned(), i64::to_string);
                report.add("half-applied", format!("account {id} has {balance}, the ledger says {expected}"));
            }
        }
    }

    /// By file: what was acknowledged before this moment must be there.
    ///
    /// A copy ends at one moment for all writers. The newest attempt it holds began to commit after everything
    /// acknowledged before it, so all that must be there too.
    fn must_have(&self) -> Vec<u64> {
        let mut newest = vec![self.options.acknowledged_before.unwrap_or(0); self.history.files()];
        for (writer, seen) in &self.seen {
            for (k, _) in self.history.writers.get(writer).into_iter().flatten().zip(&seen.rows).filter(|(_, t)| **t) {
                if let Some(newest) = newest.get_mut(k.file) {
                    *newest = k.attempted_us.max(*newest);
                }
            }
        }
        newest
    }

    fn is_due(&self, known: &Known, must_have: &[u64]) -> bool {
        match self.options.prefix {
            true => must_have.get(known.file).is_some_and(|before| known.acknowledged_us < *before),
            false => known.acknowledged_us <= self.due_us,
        }
    }

    fn known(&self, writer: u32, seq: u64) -> Known {
        let known = self.history.writers.get(&writer).and_then(|known| known.get(seq as usize - 1));
        known.copied().unwrap_or_default()
    }
}

fn identify(writer: i64, seq: i64) -> Option<(u32, u64)> {
    let seq = u64::try_from(seq).ok().filter(|seq| (1..=SEQ_MAX).contains(seq))?;
    Some((u32::try_from(writer).ok()?, seq))
}

/// Marks a transaction; says whether it was marked before.
fn mark(marks: &mut Vec<bool>, seq: u64) -> bool {
    let index = seq as usize - 1;
    if marks.len() <= index {
        marks.resize(index + 1, false);
    }
    std::mem::replace(&mut marks[index], true)
}
