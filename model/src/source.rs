//! What a source agent does: `agent-source/src/session`, with its order of recording and acting.

use crate::{
    Mutation,
    message::{At, Message, N, Reply, ToSource, attempt, nth, small, version},
    record::Record,
    rules::Rules,
    world::{Asleep, World, at, position, source_role},
};
use handover::{
    Kind, Side,
    source_role::{Action, Event, Phase, Refusal, SourceRole},
};

/// Which of an instance's agent processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Process {
    /// The one that holds the lock.
    Present,
    /// The one that lost it while it slept.
    Asleep,
}

impl World {
    /// A coordinator's command, or the destination's answer to a question of this agent, arrives.
    pub fn source_hears(&mut self, rules: Rules, kind: Kind, process: Process, message: Message) {
        if self.lost == Some(Side::Source) {
            return;
        }
        if process == Process::Asleep {
            return self.asleep_source_hears(rules, message);
        }
        if self.source.fencing {
            // The role's lock is held until the fence is done.
            return;
        }
        let event = match message {
            Message::ToSource(ToSource::Begin(v)) => return self.begins(rules, kind, v),
            Message::ToSource(command) => command.event(),
            Message::Answered(n, answer) => Some(Event::DestAnswered(attempt(n), answer)),
            _ => None,
        };
        let Some(event) = event else { return };
        match self.source.role.clone() {
            Some(role) => self.source_obeys(rules, &role, message, &event),
            None => self.source_knows_nothing(message),
        }
    }

    fn begins(&mut self, rules: Rules, kind: Kind, v: u8) {
        match &self.source.role {
            None if v <= self.source.watermark && !rules.broken(Mutation::WatermarkIgnored) => return,
            None if self.source.dropped => return,
            None => self.source.role = Some(Record::new(source_role(kind, version(v)))),
            Some(role) if version(v) > role.version => {
                self.record_source(SourceRole { version: version(v), ..(**role).clone() });
            }
            Some(_) => {}
        }
        self.net.send(Message::Reply(Reply::Begun));
    }

    fn source_knows_nothing(&mut self, message: Message) {
        match message {
            Message::ToSource(ToSource::Cleanup(v)) => {
                self.source.watermark = self.source.watermark.max(v);
                self.net.send(Message::Reply(Reply::Clean));
            }
            // Without a record there is no fence to be lifted (`driver/ending.rs`).
            Message::ToSource(ToSource::Unfence(_, n)) => self.net.send(Message::Reply(Reply::Unfenced(n))),
            _ => {}
        }
    }

    fn source_obeys(&mut self, rules: Rules, role: &SourceRole, message: Message, event: &Event) {
        let step = match rules.source(role, event) {
            Ok(step) => step,
            Err(Refusal::StaleAttempt { given, .. }) => {
                return self.net.send(Message::Reply(Reply::Stale(nth(given))));
            }
            Err(_) => return,
        };
        if let Message::Answered(..) = message
            && step.actions.is_empty()
        {
            return;
        }
        match step.actions.as_slice() {
            [Action::Close(_)] => {
                // The engine records Fencing, and what it saves, before the first client is refused.
                let Phase::Fencing { attempt: n, .. } = step.next.phase else { return };
                let phase = Phase::Fencing { attempt: n, saved: "s".to_owned() };
                self.record_source(SourceRole { phase, ..step.next });
                self.source.fencing = true;
                self.source.lifted = false;
                if rules.broken(Mutation::MarkerBeforeFence) {
                    self.net.send(Message::Marker(nth(n), self.source.written));
                }
            }
            [Action::AnnounceFenced(n, to)] => {
                let (n, to) = (nth(*n), at(to));
                self.record_source(step.next);
                self.announces(n, to);
            }
            [Action::TakeMark(n)] => {
                let n = nth(*n);
                self.record_source(step.next);
                let again = self.source.halt.filter(|(of, _)| *of == n).map(|(_, to)| to);
                self.announces(n, again.unwrap_or(self.source.written));
            }
            [Action::Reopen(n)] => {
                let Ok(reopened) = rules.source(&step.next, &Event::Reopened(*n)) else { return };
                self.record_source(reopened.next);
                self.source.lifted = false;
                self.source.halt = None;
            }
            [Action::ResumeStream(_)] => {
                self.record_source(step.next);
                self.source.halt = None;
            }
            [Action::Release(_)] => {
                self.record_source(step.next);
                self.source.halt = None;
                // Answered when it is done.
                return;
            }
            [Action::RemoveAll] => {
                self.source.halt = None;
                self.record_source(step.next);
                if let Some(Phase::Released { .. }) = self.source.role.as_ref().map(|role| &role.phase) {
                    self.source_removed();
                }
                return;
            }
            _ => self.record_source(step.next),
        }
        match message {
            Message::ToSource(ToSource::Unfence(_, n)) => self.net.send(Message::Reply(Reply::Unfenced(n))),
            Message::ToSource(ToSource::Release(..)) => self.net.send(Message::Reply(Reply::Released)),
            _ => {}
        }
    }

    /// An engine without transactions reopens the database first and records it then; here it dies between.
    pub fn dies_between_reopening_and_record(&mut self, rules: Rules, message: Message) {
        let Some(role) = self.source.role.clone() else { return };
        let event = match message {
            Message::ToSource(command) => command.event(),
            Message::Answered(n, answer) => Some(Event::DestAnswered(attempt(n), answer)),
            _ => None,
        };
        let Some(Ok(step)) = event.map(|event| rules.source(&role, &event)) else { return };
        if let [Action::Reopen(_)] = step.actions.as_slice()
            && !self.source.fencing
        {
            self.source.lifted = true;
            self.source.halt = None;
        }
    }

    /// It sends log up to the position, and the marker after it.
    fn announces(&mut self, n: N, to: At) {
        self.source.halt = Some((n, to));
        self.net.send(Message::Marker(n, to));
    }

    fn record_source(&mut self, next: SourceRole) {
        if self.source.role.as_deref() != Some(&next) {
            self.source.role = Some(Record::new(next));
        }
    }

    /// The engine's fence is durable: no client writes any more.
    pub fn fence_done(&mut self, rules: Rules) {
        let Some((role, n)) = self.fencing_now() else { return };
        let event = Event::FenceDurable(n, position(self.source.written));
        if let Ok(step) = rules.source(&role, &event) {
            self.source.fencing = false;
            self.record_source(step.next);
            if !rules.broken(Mutation::MarkerBeforeFence) {
                self.announces(nth(n), self.source.written);
            }
        }
    }

    /// The engine cannot end a writer and has left the database open.
    pub fn fence_busy(&mut self, rules: Rules) {
        let Some((role, n)) = self.fencing_now() else { return };
        if let Ok(step) = rules.source(&role, &Event::FenceGaveUp(n)) {
            self.source.fencing = false;
            self.record_source(step.next);
        }
    }

    fn fencing_now(&self) -> Option<(Record<SourceRole>, handover::Attempt)> {
        let role = self.source.role.clone().filter(|_| self.source.fencing)?;
        let Phase::Fencing { attempt, .. } = role.phase else { return None };
        Some((role, attempt))
    }

    /// The drop (move) or the end of retention (copy) is done.
    pub fn release_done(&mut self, rules: Rules) {
        let Some(role) = self.source.role.clone() else { return };
        let Ok(step) = rules.source(&role, &Event::ReleaseDone) else { return };
        if role.kind == Kind::Move {
            self.source.dropped = true;
            self.history.dropped_early |= self.history.opened == 0 && !self.history.undone;
        }
        self.record_source(step.next);
        self.net.send(Message::Reply(Reply::Released));
    }

    /// Fence, retention and helpers are gone, and then the record.
    pub fn source_removed(&mut self) {
        let Some(role) = self.source.role.take() else { return };
        self.source.watermark = self.source.watermark.max(small(role.version));
        self.source.lifted = false;
        self.source.fencing = false;
        self.net.send(Message::Reply(Reply::Clean));
    }

    /// In doubt about a fence: after a restart, or without a word from the coordinator for the fence timeout.
    pub fn source_asks(&mut self, rules: Rules) {
        let Some(role) = self.source.role.clone().filter(|_| !self.source.fencing) else { return };
        let Some(n) = role.in_doubt() else { return };
        if rules.broken(Mutation::ReopenWithoutAsking) {
            if let Ok(step) = rules.source(&role, &Event::Reopened(n)) {
                self.record_source(step.next);
                self.source.halt = None;
            }
            return;
        }
        self.net.send(Message::Asks(nth(n)));
    }

    /// The marker once more, after a reconnect.
    pub fn announces_again(&mut self) {
        if let Some((n, to)) = self.source.halt {
            self.net.send(Message::Marker(n, to));
        }
    }

    /// The agent dies and starts again. What it has sent may still arrive.
    pub fn source_crashes(&mut self) {
        self.source.fencing = false;
        self.source.halt = None;
    }

    /// Another process takes the lock over; this one sleeps, with the role it knows.
    pub fn source_is_taken_over(&mut self) {
        self.source.asleep = Some(Asleep(self.source.role.clone()));
        self.source_crashes();
    }

    /// The instance is lost, with all it held.
    pub fn source_is_lost(&mut self) {
        self.source_crashes();
        self.source.role = None;
        self.source.asleep = None;
        self.lost = Some(Side::Source);
    }

    /// An operator's override arrives at the agent.
    pub fn source_is_forced(&mut self, rules: Rules) {
        let Some(role) = self.source.role.clone().filter(|_| !self.source.fencing) else { return };
        let event = Event::ForceUnfence(version(self.store.version));
        let Ok(step) = rules.source(&role, &event) else { return };
        if let [Action::Reopen(n)] = step.actions.as_slice() {
            let Ok(reopened) = rules.source(&step.next, &Event::Reopened(*n)) else { return };
            self.record_source(reopened.next);
            self.source.lifted = false;
            self.source.halt = None;
        } else {
            self.record_source(step.next);
        }
        self.history.unfenced = true;
    }

    /// What a process does that lost its lock: what needs no write it answers from memory; a write fails, and it ends.
    fn asleep_source_hears(&mut self, rules: Rules, message: Message) {
        let Some(Asleep(Some(role))) = self.source.asleep.clone() else { return };
        let event = match message {
            Message::ToSource(command) => command.event(),
            Message::Answered(n, answer) => Some(Event::DestAnswered(attempt(n), answer)),
            _ => None,
        };
        let Some(Ok(step)) = event.map(|event| rules.source(&role, &event)) else { return };
        if rules.broken(Mutation::EpochIgnoredAtSource) {
            // Its memory becomes the record.
            self.source.role = Some(role.clone());
            self.source.asleep = None;
            let event = match message {
                Message::ToSource(command) => command.event(),
                Message::Answered(n, answer) => Some(Event::DestAnswered(attempt(n), answer)),
                _ => None,
            };
            if let Some(event) = event {
                self.source_obeys(rules, &role, message, &event);
            }
            return;
        }
        let engine = step.actions.iter().any(|action| !matches!(action, Action::AnnounceFenced(..)));
        if step.next != *role || engine {
            self.source.asleep = None;
            return;
        }
        match message {
            Message::ToSource(ToSource::Unfence(_, n)) => self.net.send(Message::Reply(Reply::Unfenced(n))),
            Message::ToSource(ToSource::Release(..)) => self.net.send(Message::Reply(Reply::Released)),
            _ => {}
        }
    }
}
