//! One reader: holds snapshot after snapshot and compares each with what every state of the ledger has in common.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crate::{
    driver::{Error, Session, Snapshot},
    history::Event,
    summary::Summary,
    transaction::LISTS,
    write::Run,
};

pub(crate) struct Reader<'a> {
    run: &'a Run<'a>,
    id: u32,
    place: usize,
    session: Option<Box<dyn Session>>,
    /// What each list began with when last seen: lists only grow, also by a move.
    seen: BTreeMap<i64, Vec<(i64, i64)>>,
    part: Summary,
}

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(10);

impl<'a> Reader<'a> {
    pub(crate) fn new(run: &'a Run<'a>, id: u32) -> Self {
        Self { run, id, place: 0, session: None, seen: BTreeMap::new(), part: Summary::default() }
    }

    /// Reads until the run is over. Fails only if the history cannot be written.
    pub(crate) fn run(mut self) -> Result<Summary, Error> {
        let hold = Duration::from_millis(self.run.options.reader_hold_ms);
        let pause = Duration::from_millis(self.run.options.reader_pause_ms);
        while !self.run.is_over() {
            self.follow();
            let list = ((self.part.snapshots + u64::from(self.id)) % LISTS.unsigned_abs()) as i64;
            match self.session.as_mut().map(|session| session.snapshot(list, hold)) {
                Some(Ok(snapshot)) => {
                    self.judge(list, snapshot)?;
                    self.run.sleep_until(Instant::now() + pause);
                }
                // Busy, or the file was replaced: an application connects anew.
                Some(Err(_)) | None => {
                    self.session = None;
                    thread::sleep(RETRY);
                }
            }
        }
        Ok(self.part)
    }

    /// Leaves a fenced database for the place it moved to, if it is there; reads on at the old one until then.
    fn follow(&mut self) {
        let fenced = match &self.session {
            Some(session) => session.is_fenced().unwrap_or(true),
            None => true,
        };
        if !fenced {
            return;
        }
        let driver = self.run.driver;
        for step in 1..driver.places() {
            let place = (self.place + step) % driver.places();
            let Ok(mut session) = driver.connect(place) else { continue };
            if session.chain(0).is_ok() && session.is_fenced().is_ok_and(|fenced| !fenced) {
                (self.place, self.session) = (place, Some(session));
                return;
            }
        }
        if let Ok(session) = driver.connect(self.place) {
            self.session = Some(session);
        }
    }

    fn judge(&mut self, list: i64, snapshot: Snapshot) -> Result<(), Error> {
        self.part.snapshots += 1;
        let Snapshot { sum_first, sum_last, items } = snapshot;
        if (sum_first, sum_last) != (0, 0) {
            self.report(format!("the balances sum to {sum_first}, then {sum_last}"))?;
        }
        let seen = self.seen.entry(list).or_default();
        if !items.starts_with(seen) {
            let (now, before) = (items.len(), seen.len());
            self.report(format!("list {list} has {now} items that do not begin with the {before} seen before"))?;
        }
        self.seen.insert(list, items);
        Ok(())
    }

    fn report(&mut self, text: String) -> Result<(), Error> {
        self.part.torn += 1;
        self.run.history.append(self.id, self.part.snapshots, Event::Torn(text))?;
        Ok(())
    }
}
