//! What the status of an operation shows: how much arrived, and what keeps it from going on.

use super::error::Error;
use engines::{
    dest::Durable,
    source::{Held, Plan},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Something that keeps the operation from going on now.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) error: Error,
    pub(crate) fatal: bool,
}

/// Figures of one operation at this side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) generation: u64,
    pub(crate) seed_bytes_done: u64,
    pub(crate) seed_bytes_total: u64,
    pub(crate) objects_done: u32,
    pub(crate) objects_total: u32,
    pub(crate) rows: u64,
    pub(crate) log_bytes: u64,
    pub(crate) transactions: u64,
    pub(crate) seeded: bool,
}

#[derive(Default)]
pub(super) struct Meter {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    figures: Figures,
    /// The parts of the present plan and their sizes; empty until lane 0 told it to this process.
    parts: BTreeMap<u32, u64>,
    trouble: Option<Trouble>,
}

impl Meter {
    pub(super) fn figures(&self) -> Figures {
        self.lock().figures.clone()
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.lock().trouble.clone()
    }

    pub(super) fn planned(&self, plan: &Plan) {
        let mut inner = self.lock();
        if inner.figures.generation != plan.generation {
            inner.figures = Figures { log_bytes: inner.figures.log_bytes, ..Figures::default() };
        }
        inner.parts = plan.parts.iter().map(|part| (part.part, part.bytes)).collect();
        inner.figures.generation = plan.generation;
        inner.figures.seed_bytes_total = plan.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes));
        inner.figures.objects_total = u32::try_from(plan.parts.len()).unwrap_or(u32::MAX);
    }

    /// Whether the plan has such a part; nothing if this process has not been told the plan yet.
    pub(super) fn has_part(&self, part: u32) -> Option<bool> {
        let inner = self.lock();
        (!inner.parts.is_empty()).then(|| inner.parts.contains_key(&part))
    }

    pub(super) fn durable(&self, durable: &Durable) {
        let mut inner = self.lock();
        let Held { generation, parts, seeded, .. } = &durable.held;
        inner.figures.generation = *generation;
        inner.figures.seeded = *seeded;
        inner.figures.objects_done = u32::try_from(parts.iter().filter(|part| part.done).count()).unwrap_or(u32::MAX);
        // A part that is done counts with its planned size: where data were only compared, less was sent.
        inner.figures.seed_bytes_done = parts.iter().fold(0, |sum: u64, part| {
            let bytes =
                if part.done { inner.parts.get(&part.part).copied().unwrap_or(part.durable) } else { part.durable };
            sum.saturating_add(bytes)
        });
    }

    pub(super) fn logged(&self, bytes: usize, transactions: u64) {
        let mut inner = self.lock();
        inner.figures.log_bytes = inner.figures.log_bytes.saturating_add(bytes as u64);
        inner.figures.transactions = inner.figures.transactions.saturating_add(transactions);
    }

    pub(super) fn rows(&self, rows: u64) {
        let mut inner = self.lock();
        inner.figures.rows = inner.figures.rows.saturating_add(rows);
    }

    /// Remembers an error that keeps the operation from going on.
    pub(super) fn failed(&self, error: &Error) {
        if error.is_trouble() {
            self.lock().trouble = Some(Trouble { error: error.clone(), fatal: error.fatal() });
        }
    }

    /// What was received is durable: what kept it from that is over.
    pub(super) fn went_on(&self) {
        self.lock().trouble = None;
    }

    /// The right source agent spoke: a wrong one that did before is no trouble any more.
    pub(super) fn welcomed(&self) {
        self.lock().trouble.take_if(|trouble| !matches!(trouble.error, Error::Engine(_) | Error::BadCrc(_)));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
