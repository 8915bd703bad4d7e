//! One writer: transaction after transaction, and what an application does when its database is fenced or moves.

use std::time::{Duration, Instant};

use crate::{
    driver::{Chore, Error, Session, Work},
    history::Event,
    random::Random,
    summary::{Reign, Summary, WriterSummary, moves_of},
    transaction::{Chain, Transaction},
    write::Run,
};

/// How often a writer without a database looks for it, at most.
const RETRY: Duration = Duration::from_millis(1);
/// It looks at the old place every so many tries only: there, each look takes the locks of a database being dropped.
const OLD_PLACE_EVERY: u32 = 10;

pub(crate) struct Writer<'a> {
    run: &'a Run<'a>,
    id: u32,
    /// What it was told, or saw, to be committed; a database that holds less has lost something.
    acknowledged: u64,
    chain: Chain,
    place: usize,
    session: Option<Box<dyn Session>>,
    random: Random,
    /// Transactions tried.
    tried: u64,
    /// A fence was met and nothing acknowledged since.
    waits_since_us: Option<u64>,
    part: Summary,
    reigns: Vec<Reign>,
}

/// Whether a writer goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl<'a> Writer<'a> {
    /// A writer to which `acknowledged` transactions were acknowledged in earlier runs.
    pub(crate) fn new(run: &'a Run<'a>, id: u32, acknowledged: u64) -> Self {
        Self {
            run,
            id,
            acknowledged,
            chain: Chain::default(),
            place: 0,
            session: None,
            random: Random::new(run.options.seed.wrapping_mul(1000).wrapping_add(id.into())),
            tried: 0,
            waits_since_us: None,
            part: Summary::default(),
            reigns: Vec::new(),
        }
    }

    /// Writes until the run is over, or a fence ends it. Fails only if the history cannot be written.
    pub(crate) fn run(mut self) -> Result<Summary, Error> {
        self.write_on()?;
        let reigns: Vec<Reign> = self.reigns.into_iter().filter(|r| r.committed > 0).collect();
        let moves = moves_of(&reigns);
        let writers = vec![WriterSummary { writer: self.id, seq: self.acknowledged, reigns, moves }];
        Ok(Summary { writers, ..self.part })
    }

    fn write_on(&mut self) -> Result<(), Error> {
        let options = self.run.options;
        let period = match options.rate > 0.0 {
            true => Duration::from_secs_f64(f64::from(options.writers.max(1)) / options.rate.max(1e-6)),
            false => Duration::ZERO,
        };
        let mut due = Instant::now();
        if self.settle()? == Next::End {
            return Ok(());
        }
        while !self.run.is_over() && (options.transactions == 0 || self.part.committed < options.transactions) {
            if !period.is_zero() {
                due += period;
                self.run.sleep_until(due);
                // After a long wait it does not make up for more than a second of it.
                due = due.max(Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(due));
                if self.run.is_over() {
                    return Ok(());
                }
            }
            let next = match self.transact() {
                Ok(()) => self.keep_house()?,
                Err(error) => self.recover(&error, false)?,
            };
            if next == Next::End {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One transaction, with its lines in the history.
    fn transact(&mut self) -> Result<(), Error> {
        self.tried += 1;
        let options = self.run.options;
        let every = |n: u64| n > 0 && self.tried.is_multiple_of(n);
        let transaction = Transaction::of(self.id, self.chain.seq + 1, options.payload);
        let (id, seq, history) = (self.id, transaction.seq, self.run.history);
        let chain = self.chain.after(&transaction);
        let (big, rollback) = (every(options.big_every), every(options.rollback_every));
        let savepoints = every(options.savepoint_every);
        let linger =
            if every(options.linger_every) { Duration::from_millis(options.linger_ms) } else { Duration::ZERO };
        let sweep = (options.churn > 0 && every(10)).then_some((self.tried / 10 % 3) as u8);
        let churn_bytes = match options.churn {
            0 => 0,
            most => 1 + self.random.below(most.into()) as u32,
        };
        let work = Work { transaction, chain, churn_bytes, sweep, big, rollback, savepoints, linger };
        let started = Instant::now();
        // `recover` leaves no writer without a session unless it ends it.
        let Some(session) = &mut self.session else { return Ok(()) };
        session.transact(&work, &mut |position| history.append(id, seq, Event::Attempt(position)).map(|_| ()))?;
        if rollback {
            return Ok(());
        }
        let now_us = history.append(id, seq, Event::Commit)?;
        self.chain = work.chain;
        self.acknowledged = seq;
        self.part.committed += 1;
        if let Some(reign) = self.reigns.last_mut() {
            if let Some(since_us) = self.waits_since_us.take().filter(|_| reign.committed > 0) {
                let waited_ms = (now_us as f64 - since_us as f64) / 1000.0;
                self.part.aborted_freeze_ms_max = Some(self.part.aborted_freeze_ms_max.unwrap_or(0.0).max(waited_ms));
            }
            reign.acknowledge(now_us);
        }
        let took = started.elapsed();
        self.part.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        if took > Duration::from_millis(options.stall_ms) {
            self.part.stalls += 1;
            history.append(id, seq, Event::Stall(took.as_millis() as u64))?;
        }
        Ok(())
    }

    /// What is due besides transactions.
    fn keep_house(&mut self) -> Result<Next, Error> {
        let options = self.run.options;
        let every = |n: u64| n > 0 && self.tried.is_multiple_of(n);
        for (due, chore) in
            [(every(options.truncate_every), Chore::Truncate), (every(options.vacuum_every), Chore::Vacuum)]
        {
            let (true, Some(session)) = (due, &mut self.session) else { continue };
            let started = Instant::now();
            if let Err(error) = session.keep_house(chore) {
                return self.recover(&error, true);
            }
            let took_ms = started.elapsed().as_secs_f64() * 1000.0;
            self.part.chore_ms_max = self.part.chore_ms_max.max(took_ms);
        }
        if every(options.reopen_every) {
            self.session = None;
            return self.settle();
        }
        Ok(Next::GoOn)
    }

    /// After a failure: notes it, and connects anew wherever the database is.
    fn recover(&mut self, error: &Error, chore: bool) -> Result<Next, Error> {
        self.session = None;
        match self.note(error, chore)? {
            Next::End => Ok(Next::End),
            Next::GoOn => self.settle(),
        }
    }

    fn note(&mut self, error: &Error, chore: bool) -> Result<Next, Error> {
        let text = error.in_one_line();
        let event = match error {
            Error::History(cause) => return Err(Error::History(std::io::Error::new(cause.kind(), text))),
            Error::Fenced { .. } => Event::Fenced(text.clone()),
            Error::Failed { .. } => Event::Error(text.clone()),
        };
        self.run.history.append(self.id, self.chain.seq + 1, event)?;
        if error.is_fenced() {
            self.part.fenced += 1;
            self.waits_since_us = self.waits_since_us.or(self.reigns.last().map(|r| r.last_us));
            return Ok(if self.run.ends_at_fence() { Next::End } else { Next::GoOn });
        }
        *(if chore { &mut self.part.chore_errors } else { &mut self.part.errors }) += 1;
        let part = Summary { first_errors: vec![text], ..Summary::default() };
        self.part.add(part);
        Ok(Next::GoOn)
    }

    /// Connects to the first place that accepts writes and learns there what of the own transactions is committed:
    /// after a failed COMMIT an application does not know. Waits until there is one.
    fn settle(&mut self) -> Result<Next, Error> {
        let driver = self.run.driver;
        let mut noted = None;
        for tries in 0u32.. {
            if self.run.is_over() {
                return Ok(Next::End);
            }
            for step in 0..driver.places() {
                let place = (self.place + step) % driver.places();
                // The old place is asked at first, since most often nothing moved.
                if step == 0 && !tries.is_multiple_of(OLD_PLACE_EVERY) {
                    continue;
                }
                match look(self.run, place, self.id) {
                    Ok((session, found)) => return self.arrive(place, session, found),
                    // An absent or fenced other place is no event: the database did not move there yet.
                    Err(_) if step > 0 => {}
                    Err(error) => {
                        let text = error.in_one_line();
                        let fenced_before = self.waits_since_us.is_some() && error.is_fenced();
                        if !fenced_before && noted.as_ref() != Some(&text) && self.note(&error, false)? == Next::End {
                            return Ok(Next::End);
                        }
                        noted = Some(text);
                    }
                }
            }
            // Not all at once: what they share the pause for is that the server has time for others.
            let pause = driver.retry_pause() * self.run.options.writers;
            let jitter = pause.mul_f64(self.random.below(1000) as f64 / 1000.0);
            self.run.sleep_until(Instant::now() + RETRY.max(pause / 2 + jitter));
        }
        Ok(Next::End)
    }

    fn arrive(&mut self, place: usize, session: Box<dyn Session>, found: Chain) -> Result<Next, Error> {
        if found.seq < self.acknowledged {
            // To write on would write the missing ones again and so hide the loss.
            self.run.history.append(self.id, self.acknowledged, Event::Behind(found.seq))?;
            self.part.losses_noticed += 1;
            return Ok(Next::End);
        }
        if place != self.place || self.reigns.is_empty() {
            let name = self.run.driver.name(place).replace(['\n', '\r'], " ");
            self.run.history.append(self.id, found.seq, Event::At(name.clone()))?;
            self.reigns.push(Reign::new(self.id, &name));
            // What it waited since a fence at another place is the freeze of a move, not of an aborted attempt.
            self.waits_since_us = None;
        }
        if found.seq > self.acknowledged {
            self.run.history.append(self.id, found.seq, Event::Learned)?;
        }
        self.acknowledged = found.seq;
        self.place = place;
        self.chain = found;
        self.session = Some(session);
        Ok(Next::GoOn)
    }
}

/// Connects to a place and reads the chain there; an error if that place takes no writes.
fn look(run: &Run<'_>, place: usize, id: u32) -> Result<(Box<dyn Session>, Chain), Error> {
    let mut session = run.driver.connect(place)?;
    let found = session.chain(id);
    // First whether it is fenced: a tombstone has no chain to read either.
    if session.is_fenced()? {
        return Err(Error::Fenced { stage: "look", cause: "the database is read-only".into() });
    }
    Ok((session, found?))
}
