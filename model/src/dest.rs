//! What a destination agent does: `agent-dest/src/session`, where every change is decided, recorded, acted upon and then
//! answered.

use crate::{
    Mutation,
    message::{At, Message, N, Reply, ToDest, ToSource, attempt, nth, small, version},
    record::Record,
    rules::Rules,
    source::Process,
    world::{Asleep, World, at, bit, bits_to, dest_role, position},
};
use handover::{
    Attempt, Kind, Side,
    dest_role::{Action, Answer, DestRole, Event, Phase, Refusal, Step},
    source_role::{self, DestAnswer, SourceRole},
};

impl World {
    /// A command of a coordinator, or the source's own Abort, arrives.
    pub fn dest_hears(&mut self, rules: Rules, kind: Kind, process: Process, message: Message) {
        if self.lost == Some(Side::Dest) {
            return;
        }
        let known = match process {
            Process::Present => self.dest.role.clone(),
            Process::Asleep => match self.dest.asleep.clone() {
                Some(Asleep(role)) => role,
                None => return,
            },
        };
        let event = match message {
            Message::ToDest(ToDest::Prepare(v)) => {
                if process == Process::Present {
                    self.prepares(rules, kind, v);
                }
                return;
            }
            Message::ToDest(ToDest::GetStatus) => {
                if known.is_some_and(|role| matches!(role.phase, Phase::Primary { .. })) {
                    self.net.send(Message::Reply(Reply::StillPrimary));
                }
                return;
            }
            Message::ToDest(command) => command.event(),
            Message::Asks(n) => Some(Event::Abort(None, attempt(n))),
            _ => None,
        };
        match (known, event) {
            (Some(role), Some(event)) => self.dest_obeys(rules, process, &role, message, &event),
            (None, Some(_)) => self.dest_knows_nothing(process, message),
            (_, None) => {}
        }
    }

    fn prepares(&mut self, rules: Rules, kind: Kind, v: u8) {
        match &self.dest.role {
            None if v <= self.dest.watermark && !rules.broken(Mutation::WatermarkIgnored) => return,
            None => {
                self.dest.role = Some(Record::new(dest_role(kind, version(v))));
                self.dest.applied = 0;
            }
            Some(role) if version(v) < role.version => return,
            Some(role) if matches!(role.phase, Phase::Discarding | Phase::Discarded) => return,
            Some(_) => {}
        }
        self.net.send(Message::Reply(Reply::Prepared));
    }

    fn dest_knows_nothing(&mut self, process: Process, message: Message) {
        let mut remembers = |v: u8| {
            // A write: a process that lost its lock comes to its end here.
            let may = process == Process::Present;
            if may {
                self.dest.watermark = self.dest.watermark.max(v);
            } else {
                self.dest.asleep = None;
            }
            may
        };
        let reply = match message {
            Message::ToDest(ToDest::Abort(_, n)) => Message::Reply(Reply::Decided(n, DestAnswer::Unknown)),
            Message::Asks(n) => Message::Answered(n, DestAnswer::Unknown),
            Message::ToDest(ToDest::Discard(v)) if remembers(v) => {
                Message::Reply(Reply::Discarded(DestAnswer::Unknown))
            }
            Message::ToDest(ToDest::Forget(v)) if remembers(v) => Message::Reply(Reply::Forgotten),
            _ => return,
        };
        self.net.send(reply);
    }

    fn dest_obeys(&mut self, rules: Rules, process: Process, role: &DestRole, message: Message, event: &Event) {
        let step = match rules.dest(role, event) {
            Ok(step) => step,
            Err(Refusal::StaleAttempt { given, .. }) => {
                return self.net.send(Message::Reply(Reply::Stale(nth(given))));
            }
            Err(_) => return,
        };
        if process == Process::Asleep && !rules.broken(Mutation::EpochIgnoredAtDest) {
            let engine = !step.actions.is_empty();
            if step.next != *role || engine {
                // The engine refuses the write, and the process ends.
                self.dest.asleep = None;
                return;
            }
        }
        if rules.broken(Mutation::ActBeforeRecordAtDest)
            && let (Event::Promote(_, n), [Action::Open]) = (event, step.actions.as_slice())
        {
            // It opens, and answers, and dies.
            self.history.opened |= bit(*n);
            return self.net.send(Message::Reply(Reply::Promoted(nth(*n))));
        }
        if process == Process::Present || step.next != *role {
            self.takes_effect(role, step.clone());
        }
        self.dest_answers(message, &step);
    }

    fn takes_effect(&mut self, before: &DestRole, step: Step) {
        if step.actions.contains(&Action::RemoveRecord) {
            self.dest.role = None;
            self.dest.watermark = self.dest.watermark.max(small(step.next.version));
            return;
        }
        if let (Phase::Primary { attempt: n }, true) = (&step.next.phase, before.phase != step.next.phase) {
            self.history.opened |= bit(*n);
            self.history.torn |= self.is_torn(before);
        }
        if self.dest.role.as_deref() != Some(&step.next) {
            self.dest.role = Some(Record::new(step.next));
        }
    }

    /// Whether what is opened now lacks something acknowledged, or has something it should not.
    fn is_torn(&self, before: &DestRole) -> bool {
        match (before.kind, &before.phase) {
            (Kind::Move, _) => self.dest.applied != self.source.written,
            (Kind::Copy, Phase::Prepared { position, .. }) => self.dest.applied != at(position),
            (Kind::Copy, _) => true,
        }
    }

    fn dest_answers(&mut self, message: Message, step: &Step) {
        let reply = match (message, &step.answer) {
            (Message::ToDest(ToDest::Promote(_, n)), Answer::Decided(DestAnswer::Promoted)) => Reply::Promoted(n),
            (Message::ToDest(ToDest::Abort(_, n)), Answer::Decided(answer)) => {
                self.told(n, *answer);
                Reply::Decided(n, *answer)
            }
            (Message::Asks(n), Answer::Decided(answer)) => {
                self.told(n, *answer);
                return self.net.send(Message::Answered(n, *answer));
            }
            // Answered when everything is removed.
            (Message::ToDest(ToDest::Discard(_)), _) if step.actions.contains(&Action::RemoveAll) => return,
            (Message::ToDest(ToDest::Discard(_)), Answer::Decided(answer)) => Reply::Discarded(*answer),
            (Message::ToDest(ToDest::Finish(_)), _) => Reply::Finished,
            (Message::ToDest(ToDest::Forget(_)), _) => Reply::Forgotten,
            _ => return,
        };
        self.net.send(Message::Reply(reply));
    }

    fn told(&mut self, n: N, answer: DestAnswer) {
        if answer == DestAnswer::Aborted {
            self.history.closed |= bits_to(attempt(n));
        }
    }

    /// The half-made database is removed; the record stays.
    pub fn discard_done(&mut self, rules: Rules) {
        let Some(role) = self.dest.role.clone() else { return };
        let Ok(step) = rules.dest(&role, &Event::DiscardDone) else { return };
        self.dest.applied = 0;
        self.takes_effect(&role, step);
        self.net.send(Message::Reply(Reply::Discarded(DestAnswer::Aborted)));
    }

    /// A marker arrives in band. It is taken only where the replica stands exactly at its position.
    pub fn marker_arrives(&mut self, rules: Rules, n: N, to: At) {
        let Some(role) = self.dest.role.clone() else { return };
        let early = rules.broken(Mutation::MarkerBeforeLog) || rules.broken(Mutation::LogBeyondMark);
        let event = Event::Marker(attempt(n), position(to));
        let Ok(step) = rules.dest(&role, &event) else { return };
        if step.answer == Answer::Skipped || self.dest.applied == to || early {
            self.takes_effect(&role, step);
        }
    }

    /// How far the source sends log, if it sends any.
    pub fn log_until(&self, rules: Rules) -> Option<At> {
        use source_role::Phase as At;
        let role = self.source.role.as_ref()?;
        match role.phase {
            At::Replicating | At::Fencing { .. } | At::Fenced { .. } => {}
            At::Releasing { .. } | At::Released { .. } | At::CleaningUp { .. } => return None,
        }
        let free = rules.broken(Mutation::LogBeyondMark);
        Some(self.source.halt.filter(|_| !free).map_or(self.source.written, |(_, to)| to))
    }

    /// One transaction of the log arrives.
    pub fn log_arrives(&mut self, rules: Rules) {
        let mutated = rules.broken(Mutation::LogBeyondMark);
        let takes = self.dest.role.as_ref().is_some_and(|role| match role.phase {
            Phase::Replica => true,
            Phase::Prepared { .. } => mutated,
            _ => false,
        });
        if takes && self.log_until(rules).is_some_and(|until| self.dest.applied < until) {
            self.dest.applied += 1;
        }
    }

    /// The seed is loaded, and what was logged meanwhile applied.
    pub fn seed_loaded(&mut self, rules: Rules) {
        let (Some(role), Some(until)) = (self.dest.role.clone(), self.log_until(rules)) else { return };
        if role.phase == Phase::Seeding
            && let Ok(step) = rules.dest(&role, &Event::SeedLoaded)
        {
            self.dest.applied = until.max(self.dest.applied);
            self.takes_effect(&role, step);
        }
    }

    /// The source has lost its log: its next plan begins a new generation.
    pub fn seed_again(&mut self, rules: Rules) {
        let Some(role) = self.dest.role.clone() else { return };
        if self.log_until(rules).is_some()
            && let Ok(step) = rules.dest(&role, &Event::SeedAgain)
        {
            // What is compared anew counts for nothing until it is whole again.
            self.dest.applied = 0;
            self.takes_effect(&role, step);
        }
    }

    /// The agent or its instance dies and starts again: connections are gone, and what was not durable.
    pub fn dest_crashes(&mut self, rules: Rules) {
        self.net.retain(|message| !matches!(message, Message::Marker(..)));
        let safe = |role: &DestRole| match role.phase {
            Phase::Prepared { .. } => !rules.broken(Mutation::PreparedBeforeDurable),
            Phase::Primary { .. } => true,
            Phase::Seeding | Phase::Replica | Phase::Discarding | Phase::Discarded => false,
        };
        if !self.dest.role.as_ref().is_some_and(|role| safe(role)) {
            self.dest.applied = 0;
        }
    }

    /// Another process takes the lock over; this one sleeps, with the role it knows.
    pub fn dest_is_taken_over(&mut self) {
        self.net.retain(|message| !matches!(message, Message::Marker(..)));
        self.dest.asleep = Some(Asleep(self.dest.role.clone()));
    }

    /// The instance is restored from a backup that was made before the operation.
    pub fn dest_is_restored(&mut self) {
        self.is_undone();
        self.dest.watermark = 0;
        self.history.restored = true;
    }

    /// What it served since the flip is gone. A Release that is under way at this moment does not outlast it: whoever
    /// drops the source later does so in spite of the loss.
    fn is_undone(&mut self) {
        let drops =
            |message| matches!(message, Message::ToSource(ToSource::Release(..)) | Message::Reply(Reply::StillPrimary));
        self.net.retain(|message| !drops(message) && !matches!(message, Message::Marker(..)));
        let releasing = |role: &SourceRole| matches!(role.phase, source_role::Phase::Releasing { .. });
        let history = &mut self.history;
        history.beyond_help = self.source.dropped || self.source.role.as_ref().is_some_and(|role| releasing(role));
        history.undone |= history.opened != 0;
        history.opened = 0;
        self.dest.role = None;
        self.dest.applied = 0;
    }

    /// The instance is lost, with all it held.
    pub fn dest_is_lost(&mut self) {
        self.is_undone();
        self.dest.asleep = None;
        self.lost = Some(Side::Dest);
    }

    /// An operator's override arrives at the agent: what it has is opened, though it may lack what was lost.
    pub fn dest_is_forced(&mut self, rules: Rules) {
        let Some(role) = self.dest.role.clone() else { return };
        let n = self.store.operation.attempt.max(Attempt(1));
        let Ok(step) = rules.dest(&role, &Event::ForcePromote(version(self.store.version), n)) else { return };
        let torn = self.history.torn;
        self.takes_effect(&role, step);
        self.history.torn = torn;
        // An attempt that was closed is opened by an operator's word: that is what the word is for.
        self.history.closed = 0;
        self.history.promoted = true;
    }
}
