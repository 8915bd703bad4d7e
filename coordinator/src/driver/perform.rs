//! Performing an action: who does what, and how commands are repeated until they are obeyed.

use std::collections::HashMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use handover::{
    CommandVersion, InstanceName, OperationId,
    operation::{Action, Event, State, step},
};
use service::Backoff;
use tokio::sync::watch;

use super::{Waiter, rate::Rate};
use crate::{
    agents::{self, DestAgent, Half, Party, SourceAgent},
    core::Core,
    store::{self, InstanceRecord, Stored},
};

/// What came of performing an action.
pub(super) enum Performed {
    /// An event for the state machine.
    Event(Event),
    /// The operation was changed already: load it.
    Changed,
}

/// Performs the actions of one operation.
pub(super) struct Performer {
    pub(super) core: Arc<Core>,
    pub(super) id: OperationId,
    /// The newest version known; every command carries it as it is when the command leaves.
    version: AtomicU64,
    /// The state for which actions are performed.
    state: Mutex<State>,
    /// The two instances once they were found: they cannot change while an operation uses them.
    found: Mutex<HashMap<InstanceName, InstanceRecord>>,
    /// Set while an action that is not wanted any more is let come to the end of its call.
    winding_down: watch::Sender<bool>,
    pub(super) watching: Mutex<Watching>,
}

/// What observing remembers from one look to the next.
pub(super) struct Watching {
    pub(super) next_at: Duration,
    pub(super) backoff: Backoff,
    pub(super) rate: Rate,
}

/// How a call that failed is taken.
pub(super) enum Verdict {
    /// Show it and call again.
    Again,
    /// It is the answer.
    GiveUp,
}

impl Performer {
    pub(super) fn new(core: Arc<Core>, stored: &Stored) -> Self {
        let backoff = Backoff::new(core.limits.observe_every, core.limits.observe_every.max(Duration::from_secs(2)));
        let watching = Watching { next_at: Duration::ZERO, backoff, rate: Rate::default() };
        Self {
            core,
            id: stored.id().clone(),
            version: AtomicU64::new(stored.version.0),
            state: Mutex::new(stored.operation().state.clone()),
            found: Mutex::default(),
            winding_down: watch::Sender::new(false),
            watching: Mutex::new(watching),
        }
    }

    /// Take note of what the operation has become.
    pub(super) fn set_present(&self, stored: &Stored) {
        self.set_version(stored.version);
        self.state.lock().expect("no holder of this lock panics").clone_from(&stored.operation().state);
    }

    fn set_version(&self, version: CommandVersion) {
        self.version.fetch_max(version.0, Ordering::SeqCst);
    }

    /// Let `action` end the call that is under way, and begin no other: a command that is still on its way must not come
    /// after those that undo it. Agents refuse such a latecomer too, by its version; this spares them.
    pub(super) async fn wind_down(&self, action: impl Future<Output = Performed>) {
        self.winding_down.send_replace(true);
        if self.core.env.timeout(WIND_DOWN, action).await.is_err() {
            tracing::warn!(operation = %self.id, "go on although a command is still unanswered");
        }
        self.winding_down.send_replace(false);
    }

    /// Whether no further call is to begin.
    pub(super) fn winding_down(&self) -> bool {
        *self.winding_down.borrow()
    }

    /// Pause before the next try, or break off if there is to be none.
    pub(super) async fn rest(&self, backoff: &mut Backoff) -> ControlFlow<()> {
        let mut winding_down = self.winding_down.subscribe();
        tokio::select! {
            biased;
            _ = winding_down.wait_for(|set| *set) => ControlFlow::Break(()),
            () = backoff.wait(&self.core.env) => ControlFlow::Continue(()),
        }
    }

    pub(super) fn version(&self) -> CommandVersion {
        CommandVersion(self.version.load(Ordering::SeqCst))
    }

    pub(super) async fn perform(&self, action: Action, stored: Stored) -> Performed {
        let operation = stored.operation();
        // Thousands of operations wait or are observed; what the others take of memory is taken while they happen.
        match action {
            Action::AwaitPlace => self.await_place(&stored).await,
            Action::Observe => Performed::Event(self.observe(operation).await),
            Action::Prepare => Performed::Event(self.prepare(operation).boxed().await),
            Action::CutOver(attempt) => Performed::Event(self.cut_over(&stored.record, attempt).boxed().await),
            Action::AbortDest(attempt) => Performed::Event(self.abort_dest(operation, attempt).boxed().await),
            Action::Unfence(attempt) => Performed::Event(self.unfence(operation, attempt).boxed().await),
            Action::Release(attempt) => Performed::Event(self.release(operation, attempt).boxed().await),
            Action::Finish => Performed::Event(self.finish(operation).boxed().await),
            Action::Discard => Performed::Event(self.discard(operation).boxed().await),
            Action::CleanSource => Performed::Event(self.clean_source(operation).boxed().await),
            Action::ForgetDest => Performed::Event(self.forget_dest(operation).boxed().await),
        }
    }

    /// Wait for the operation's turn and take the place in one step, so that no more than the limit get one.
    async fn await_place(&self, stored: &Stored) -> Performed {
        let core = &self.core;
        let source = &stored.operation().source;
        let queue = core.hub.queue(source);
        let mut turns = queue.turns();
        loop {
            turns.mark_unchanged();
            {
                let _gate = queue.gate.lock().await;
                let free = core.hub.running_at(source) < core.limits.running_per_source;
                if free && core.hub.place(stored) == 1 {
                    match self.admit().await {
                        Ok(()) => return Performed::Changed,
                        Err(error) => {
                            tracing::error!(operation = %self.id, %error, "take the operation out of the queue");
                            core.hub.set_waiting(&self.id, Waiter::Store, Some(error.to_string()), core.now_ms());
                        }
                    }
                }
            }
            // A turn may also be missed by an error of the store: look again at leisure.
            let _ = core.env.timeout(Duration::from_secs(2), turns.changed()).await;
        }
    }

    async fn admit(&self) -> Result<(), store::Error> {
        let core = &self.core;
        let Some(stored) = core.records.operation(&self.id).await? else {
            return Ok(());
        };
        if stored.operation().state != State::Queued {
            return Ok(());
        }
        let now_ms = core.now_ms();
        if let Ok(next) = step(stored.operation(), &Event::Admitted { now_ms }) {
            let record = stored.record.advanced(next, now_ms);
            match core.records.update(&[(&stored, &record)]).await {
                // The count must be right for whoever comes through the gate next.
                Ok(version) => core.caught_up(version).await,
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// An instance of this operation.
    pub(super) async fn instance(&self, half: Half, name: &InstanceName) -> Result<InstanceRecord, agents::Error> {
        if let Some(record) = self.found.lock().expect("no holder of this lock panics").get(name) {
            return Ok(record.clone());
        }
        let party = || Party { half, instance: name.clone(), address: String::new() };
        match self.core.instances.get(name).await {
            Ok(Some(known)) => {
                let mut found = self.found.lock().expect("no holder of this lock panics");
                found.insert(name.clone(), known.record.clone());
                Ok(known.record)
            }
            Ok(None) => {
                let message = format!("instance {name} is not known any more");
                let remedy = format!("register instance {name} again");
                Err(agents::Error::Misconfigured { party: party(), message, remedy })
            }
            Err(error) => {
                let (message, remedy) = (error.to_string(), String::new());
                Err(agents::Error::Unreachable { party: party(), message, remedy })
            }
        }
    }

    pub(super) async fn source(&self, name: &InstanceName) -> Result<SourceAgent, agents::Error> {
        self.core.agents.source(&self.instance(Half::Source, name).await?)
    }

    pub(super) async fn dest(&self, name: &InstanceName) -> Result<DestAgent, agents::Error> {
        self.core.agents.dest(&self.instance(Half::Dest, name).await?)
    }

    /// Show for which agent the operation waits, or that it waits no more.
    pub(super) fn waiting(&self, half: Half, why: Option<String>) {
        self.core.hub.set_waiting(&self.id, Waiter::Agent(half), why, self.core.now_ms());
    }

    /// Give a command until it is obeyed or `judge` gives up. Each call gets the version to carry.
    ///
    /// `STALE_VERSION` is cured here: the record is written again, which raises its version.
    pub(super) async fn insist<T, F, Fut>(
        &self,
        half: Half,
        mut backoff: Backoff,
        judge: fn(&agents::Error) -> Verdict,
        mut call: F,
    ) -> Result<T, agents::Error>
    where
        F: FnMut(CommandVersion) -> Fut,
        Fut: Future<Output = Result<T, agents::Error>>,
    {
        let mut stale = 0;
        loop {
            self.core.mandate.require(&self.core.env).await;
            let version = self.version();
            let error = match call(version).await {
                Ok(answer) => {
                    self.waiting(half, None);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if error.is("STALE_VERSION") {
                let raised = self.raise(version, &error, stale).await;
                stale += 1;
                if raised && stale <= STALE_AT_ONCE && !self.winding_down() {
                    continue;
                }
            } else if let Verdict::GiveUp = judge(&error) {
                return Err(error);
            }
            self.waiting(half, Some(text(&error)));
            if self.rest(&mut backoff).await.is_break() {
                return Err(error);
            }
        }
    }

    /// Make the operation's version greater than what an agent knows. Whether the command may be given again at once: not
    /// if somebody else has changed the operation meanwhile.
    async fn raise(&self, sent: CommandVersion, error: &agents::Error, tries: u32) -> bool {
        let known = match error {
            agents::Error::Refused { known: Some(known), .. } => *known,
            // Instances that obeyed an earlier store may be far ahead: the steps double, so that a few reach any version.
            _ => CommandVersion(sent.0.saturating_add((1u64 << (4 * tries).min(40)) - 1)),
        };
        let records = &self.core.records;
        let stored = match records.operation(&self.id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(operation = %self.id, %error, "raise the version of commands");
                return false;
            }
        };
        let cure = cure(&self.state.lock().expect("no holder of this lock panics"), &stored, sent.max(known));
        let raised = match cure {
            Cure::Adopt => Ok(stored.version),
            Cure::Write => records.raise(&stored, known).await,
            Cure::None => {
                tracing::info!(operation = %self.id, version = sent.0, "a command came too late: the operation has changed");
                return false;
            }
        };
        match raised {
            Ok(version) => {
                tracing::info!(operation = %self.id, from = sent.0, to = version.0, "raise the version of commands");
                self.set_version(version);
            }
            Err(store::Error::Conflict { .. }) => {}
            Err(error) => tracing::error!(operation = %self.id, %error, "raise the version of commands"),
        }
        true
    }
}

/// What is to be done about a command that was refused because its version is stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cure {
    /// Give it again under the version that the record has now.
    Adopt,
    /// Write the record once more, which raises its version.
    Write,
    /// Nothing: the command is of an earlier state. Given under a newer version it would be obeyed, and bring back what
    /// was removed since, or undo what was done. The model (`AdoptAnyVersion`) shows how.
    None,
}

/// The cure for a command of `state`, when the record is `stored` and an agent knows `known`.
fn cure(state: &State, stored: &Stored, known: CommandVersion) -> Cure {
    if stored.operation().state != *state {
        Cure::None
    } else if stored.version > known {
        Cure::Adopt
    } else {
        Cure::Write
    }
}

/// How long a cancel waits for a command that is under way. Agents answer within milliseconds, or they are gone.
const WIND_DOWN: Duration = Duration::from_secs(5);
/// Raises of the version that follow one another without a pause: their steps reach 2^40.
const STALE_AT_ONCE: u32 = 11;

/// An error as shown in `waiting_for`: who, and what.
pub(super) fn text(error: &agents::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::store::Record;
    use handover::Kind;

    fn stored(version: u64, state: State) -> Stored {
        let operation = fixture::operation(Kind::Move, state);
        Stored { version: CommandVersion(version), record: Record::new(operation) }
    }

    #[test]
    fn a_stale_command_is_given_again_only_while_the_operation_is_what_it_was() {
        let known = CommandVersion(7);
        assert_eq!(cure(&State::Preparing, &stored(5, State::Preparing), known), Cure::Write);
        assert_eq!(cure(&State::Preparing, &stored(7, State::Preparing), known), Cure::Write);
        assert_eq!(cure(&State::Preparing, &stored(8, State::Preparing), known), Cure::Adopt);
        // Another coordinator cancelled the operation to its end while this one slept: a Prepare under the newest version
        // would be above the watermark, and make a record that nobody removes.
        assert_eq!(cure(&State::Preparing, &stored(8, State::Cancelled), known), Cure::None);
        assert_eq!(cure(&State::Preparing, &stored(5, State::Seeding), known), Cure::None);
    }
}
