//! What a coordinator process does: `coordinator/src/driver` without its waiting.
//!
//! It performs the actions of the record it remembers, and steps on the record in the store: an event that meets a changed
//! record is tried on what it has become (`driver/task.rs`). A crash is a reload: nothing in memory matters.

use crate::{
    Mutation,
    message::{Message, Reply, ToDest, ToSource, attempt, nth},
    rules::Rules,
    world::{DEADLINE_MS, NOW_MS, Stored, World, reason},
};
use handover::{
    Attempt, Kind, Side,
    dest_role::Phase,
    operation::{Action, CompletionStep, Event, Observation, Operation, State},
    source_role::DestAnswer,
};

/// Which coordinator process.
pub type Which = usize;

impl World {
    /// Loads the record: after a start, and when somebody else has changed it.
    pub fn reload(&mut self, rules: Rules, c: Which) {
        if self.coordinators[c].is_some() {
            self.coordinators[c] = Some(self.store.clone());
            self.send_commands(rules, c);
        }
    }

    /// Steps on what is stored, stores what follows, and only then acts on it.
    pub fn happens(&mut self, rules: Rules, c: Which, event: &Event) {
        let Some(next) = rules.operation(&self.store.operation, event) else { return self.reload(rules, c) };
        let next = self.store.followed_by(next);
        if rules.broken(Mutation::ActBeforeStore) {
            // What would be stored is remembered, and stored later or never.
            self.coordinators[c] = Some(next);
            return self.send_commands(rules, c);
        }
        self.store = next;
        self.reload(rules, c);
    }

    /// The store takes what a coordinator acted on already: only with [`Mutation::ActBeforeStore`].
    pub fn store_late(&mut self, c: Which) {
        if let Some(memory) = &self.coordinators[c]
            && memory.version == self.store.version + 1
        {
            self.store = memory.clone();
        }
    }

    /// A user's or the clock's event, stepped on the store by whoever serves the call.
    pub fn decided(&mut self, rules: Rules, event: &Event) {
        if rules.broken(Mutation::ActBeforeStore) {
            return self.happens(rules, 0, event);
        }
        if let Some(next) = rules.operation(&self.store.operation, event) {
            self.store = self.store.followed_by(next);
        }
    }

    /// Whether a performer of the first or second coordinator waits for the reply, or would after a reload.
    pub fn is_awaited(&self, rules: Rules, reply: Reply) -> bool {
        let waits = |stored: &Stored| rules.actions(&stored.operation).iter().any(|action| reply.is_for(action));
        self.coordinators.iter().flatten().chain([&self.store]).any(waits)
    }

    /// Sends the commands of the actions that a coordinator remembers. Repeating them changes nothing: the network keeps
    /// all that was ever sent.
    pub fn send_commands(&mut self, rules: Rules, c: Which) {
        let Some(memory) = self.coordinators[c].clone() else { return };
        self.command(rules, &memory.operation, memory.version);
    }

    /// The old command under the newest version: what a performer sends when an agent told it that its version is stale.
    pub fn adopt(&mut self, rules: Rules, c: Which) {
        let Some(memory) = self.coordinators[c].clone() else { return };
        if rules.broken(Mutation::AdoptAnyVersion) || memory.operation.state == self.store.operation.state {
            self.command(rules, &memory.operation, self.store.version);
        }
    }

    fn command(&mut self, rules: Rules, operation: &Operation, v: u8) {
        for action in rules.actions(operation) {
            match action {
                Action::Prepare => self.net.send(Message::ToDest(ToDest::Prepare(v))),
                Action::CutOver(n) => {
                    let n = nth(n);
                    let close = match operation.kind {
                        Kind::Move => ToSource::Fence(v, n),
                        Kind::Copy => ToSource::Mark(v, n),
                    };
                    self.net.send(Message::ToSource(close));
                    self.net.send(Message::ToDest(ToDest::Promote(v, n)));
                }
                Action::AbortDest(n) => self.net.send(Message::ToDest(ToDest::Abort(v, nth(n)))),
                Action::Unfence(n) => self.net.send(Message::ToSource(ToSource::Unfence(v, nth(n)))),
                // Asked each time before the source is dropped: the destination may have been lost since the flip.
                Action::Release(_)
                    if operation.kind == Kind::Move
                        && !rules.broken(Mutation::ReleaseUnasked)
                        && !rules.broken(Mutation::ReleaseAtCutover) =>
                {
                    self.net.send(Message::ToDest(ToDest::GetStatus));
                }
                Action::Release(n) => self.net.send(Message::ToSource(ToSource::Release(v, nth(n)))),
                Action::Finish => self.net.send(Message::ToDest(ToDest::Finish(v))),
                Action::Discard => self.net.send(Message::ToDest(ToDest::Discard(v))),
                Action::CleanSource => self.net.send(Message::ToSource(ToSource::Cleanup(v))),
                Action::ForgetDest => {
                    if matches!(operation.state, State::Cancelling(_)) {
                        // A Prepare that was long on its way came after the Discard: once more (`driver/ending.rs`).
                        self.net.send(Message::ToDest(ToDest::Discard(v)));
                    }
                    self.net.send(Message::ToDest(ToDest::Forget(v)));
                }
                Action::AwaitPlace | Action::Observe => {}
            }
        }
    }

    /// An answer arrives. Whoever does not perform the action any more hears nothing.
    pub fn hear(&mut self, rules: Rules, c: Which, reply: Reply) {
        let Some(memory) = self.coordinators[c].clone() else { return };
        if !rules.actions(&memory.operation).iter().any(|action| reply.is_for(action)) {
            return;
        }
        let event = match reply {
            Reply::Prepared => {
                self.net.send(Message::ToSource(ToSource::Begin(memory.version)));
                return;
            }
            Reply::StillPrimary => {
                for action in rules.actions(&memory.operation) {
                    if let Action::Release(n) = action {
                        self.net.send(Message::ToSource(ToSource::Release(memory.version, nth(n))));
                    }
                }
                return;
            }
            Reply::Begun => Event::Begun { findings: vec![] },
            Reply::Promoted(n) => Event::Promoted { attempt: attempt(n), freeze_ms: 0 },
            Reply::Stale(n) => Event::CutoverFailed { attempt: attempt(n), reason: reason(), again: true },
            Reply::Decided(n, DestAnswer::Unknown) if rules.broken(Mutation::UnknownMeansAborted) => {
                Event::DestDecided(attempt(n), DestAnswer::Aborted)
            }
            // It goes on asking (`driver/ending.rs`).
            Reply::Decided(_, DestAnswer::Unknown | DestAnswer::Prepared) => return,
            Reply::Decided(n, answer) => Event::DestDecided(attempt(n), answer),
            Reply::Discarded(answer) => Event::Discarded(answer),
            Reply::Unfenced(n) => Event::Unfenced(attempt(n)),
            Reply::Released => Event::Released,
            Reply::Finished => Event::Finished(None),
            Reply::Clean => Event::SourceClean,
            Reply::Forgotten => Event::Forgotten { now_ms: NOW_MS },
        };
        self.happens(rules, c, &event);
    }

    /// The freeze lasts too long, would, or an agent refuses for good: the attempt is given up.
    pub fn give_up(&mut self, rules: Rules, c: Which) {
        let Some(memory) = &self.coordinators[c] else { return };
        if let Some(n) = cutting_over(&memory.operation) {
            let event = Event::CutoverFailed { attempt: attempt(n), reason: reason(), again: false };
            self.happens(rules, c, &event);
        }
    }

    /// Both agents are asked how far they are.
    pub fn observe(&mut self, rules: Rules, c: Which, behind: bool) {
        if self.lost.is_some() {
            // An agent that does not answer is waited for.
            return self.reload(rules, c);
        }
        let event = match (&self.source.role, &self.dest.role) {
            (Some(_), Some(dest)) => {
                let seeded = matches!(dest.phase, Phase::Replica | Phase::Prepared { .. } | Phase::Primary { .. });
                let observation = Observation { seeded, ready: seeded && !behind, behind };
                Event::Observed { observation, now_ms: NOW_MS }
            }
            // An instance has no record any more (`driver/observe.rs`).
            _ => Event::Fail { reason: reason(), now_ms: NOW_MS },
        };
        self.happens(rules, c, &event);
    }
}

impl Stored {
    /// The record after a change.
    pub fn followed_by(&self, next: Operation) -> Self {
        Self { version: self.version + 1, operation: crate::record::Record::new(next) }
    }
}

/// What an operator may do about a side that is lost, or knows nothing any more: `coordinator/src/rpc/overrides.rs`.
pub fn overrides(world: &World, rules: Rules) -> impl Iterator<Item = Override> {
    let no_dest = world.lost == Some(Side::Dest) || (world.history.restored && world.dest.role.is_none());
    let no_source = world.lost == Some(Side::Source);
    [
        (Override::ForgetDest, no_dest),
        (Override::ForgetSource, no_source),
        (Override::Unfence, no_dest),
        (Override::Promote, no_source),
    ]
    .into_iter()
    .filter(move |(what, visible)| {
        // Only what the state machine takes, and what changes something.
        let next = rules.operation(&world.store.operation, &what.event(&world.store.operation));
        *visible && next.is_some_and(|next| next.state != world.store.operation.state)
    })
    .map(|(what, _)| what)
}

/// An operator's override.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Override {
    /// The destination is gone for ever.
    ForgetDest,
    /// The source is gone for ever.
    ForgetSource,
    /// Reopen the source without the destination's answer.
    Unfence,
    /// Open the destination without a marker.
    Promote,
}

impl Override {
    fn event(self, operation: &Operation) -> Event {
        match self {
            Override::ForgetDest => Event::ForgetDest { now_ms: NOW_MS },
            Override::ForgetSource => Event::ForgetSource { now_ms: NOW_MS },
            Override::Unfence => Event::ForcedUnfence { now_ms: NOW_MS },
            Override::Promote => Event::ForcedPromote { attempt: operation.attempt.max(Attempt(1)), now_ms: NOW_MS },
        }
    }
}

impl World {
    /// The first half of an override: at the agent, for those that go there.
    pub fn forced(&mut self, rules: Rules, what: Override) {
        match what {
            Override::Unfence => self.source_is_forced(rules),
            Override::Promote => self.dest_is_forced(rules),
            Override::ForgetDest | Override::ForgetSource => self.record_override(rules, what),
        }
    }

    /// The second half: on the operation.
    pub fn record_override(&mut self, rules: Rules, what: Override) {
        let event = what.event(&self.store.operation);
        self.decided(rules, &event);
        self.history.unfenced &= what != Override::Unfence;
        self.history.promoted &= what != Override::Promote;
    }
}

/// The attempt that is being cut over.
pub fn cutting_over(operation: &Operation) -> Option<u8> {
    match &operation.state {
        State::Completing(completing) if completing.step == CompletionStep::Cutover => Some(nth(completing.attempt)),
        _ => None,
    }
}

/// Whether the driver looks at both agents in this state.
pub fn observed(operation: &Operation) -> bool {
    matches!(operation.state, State::Seeding | State::CatchingUp | State::Ready)
}

/// A moment after the end of the window.
pub fn too_late() -> Event {
    Event::Tick { now_ms: DEADLINE_MS }
}
