//! Commits: all that wait while one is synced to disk are synced together by the next, for that is what costs.

use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableTable as _};
use tokio::sync::oneshot;

use super::{Announced, Failure, Inner, META, RECORDS, REVISION, catch};
use crate::store::{Change, Error, Revision, Txn};

/// The commits that nobody has taken to the disk yet.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    /// Held by the one who takes them there.
    pub(super) turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    txn: Txn,
    answer: oneshot::Sender<Result<Revision, Error>>,
}

impl Queue {
    /// Where the answer comes.
    pub(super) fn push(&self, txn: Txn) -> oneshot::Receiver<Result<Revision, Error>> {
        let (answer, mine) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { txn, answer });
        mine
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    /// Commits all that wait, and answers each.
    pub(super) fn commit_waiting(&self) {
        // Poisoned by a panic of redb, it guards nothing but the order all the same.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (txns, answers): (Vec<_>, Vec<_>) =
            self.queue.take().into_iter().map(|waiting| (waiting.txn, waiting.answer)).unzip();
        if txns.is_empty() {
            return;
        }
        let results = match self.with_database("write", |database| self.commit_together(database, txns)) {
            Ok(results) => results,
            Err(error) => answers.iter().map(|_| Err(error.clone())).collect(),
        };
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever gave up waiting leaves open what became of it.
            let _ = answer.send(result);
        }
    }

    fn commit_together(&self, database: &Database, txns: Vec<Txn>) -> Result<Vec<Result<Revision, Error>>, Failure> {
        let committed = catch(|| write(database, txns));
        // Nobody may be watching.
        match &committed {
            Ok(written) => {
                for commit in &written.changed {
                    let _ = self.changes.send(Announced::Commit(commit.clone()));
                }
            }
            // Nothing was written.
            Err(Failure::Told(_)) => {}
            Err(Failure::Redb(_) | Failure::Panicked) => drop(self.changes.send(Announced::Doubt)),
        }
        committed.map(|written| written.results)
    }
}

#[derive(Default)]
struct Written {
    /// Of each transaction in turn.
    results: Vec<Result<Revision, Error>>,
    /// What each of those that were not refused has changed.
    changed: Vec<Arc<[Change]>>,
}

/// Checks and changes, one after the other, each seeing what those before it did; then all go to the disk at once.
fn write(database: &Database, txns: Vec<Txn>) -> Result<Written, Failure> {
    let writing = database.begin_write()?;
    let mut written = Written::default();
    {
        let mut records = writing.open_table(RECORDS)?;
        let mut meta = writing.open_table(META)?;
        let mut last = meta.get(REVISION)?.map_or(0, |found| found.value());
        'txns: for txn in txns {
            for (key, wanted) in &txn.checks {
                let found = records.get(key.as_str())?.map(|found| Revision(found.value().0));
                if found != *wanted {
                    // It has changed nothing so far.
                    written.results.push(Err(Error::Conflict { key: key.clone() }));
                    continue 'txns;
                }
            }
            last = last.max(txn.above.0).saturating_add(1);
            let revision = Revision(last);
            let mut changed = Vec::new();
            for key in txn.deletes {
                if records.remove(key.as_str())?.is_some() {
                    changed.push(Change { key, revision, value: None });
                }
            }
            for (key, value) in txn.puts {
                records.insert(key.as_str(), (revision.0, value.as_slice()))?;
                changed.push(Change { key, revision, value: Some(value) });
            }
            written.results.push(Ok(revision));
            written.changed.push(changed.into());
        }
        if written.changed.is_empty() {
            // The transaction of redb is dropped, and with it undone.
            return Ok(written);
        }
        meta.insert(REVISION, last)?;
    }
    // redb's default durability: the data is synced when this answers.
    writing.commit()?;
    Ok(written)
}
