//! The loop of one operation: load, perform, step, commit.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, select_all};
use handover::{
    OperationId,
    operation::{Action, CompletionStep, Event, Operation, State, actions, step},
};
use service::Backoff;
use tokio::sync::watch;

use super::{
    View, Waiter,
    perform::{Performed, Performer},
};
use crate::{
    core::Core,
    store::{Error, Stored},
};

/// How often the wall clock is looked at while waiting for a deadline, because it may be set meanwhile.
const CLOCK_LOOK: Duration = Duration::from_secs(30);
/// How long to wait after an event that changed nothing, before the action that gave it is repeated.
const AFTER_ILLEGAL: Duration = Duration::from_secs(1);

/// Drive one operation until it has ended.
pub(super) async fn drive(core: Arc<Core>, id: OperationId) {
    let Some(view) = core.hub.subscribe(&id) else {
        return;
    };
    let Some(stored) = load(&core, &id).await else {
        return;
    };
    let performer = Arc::new(Performer::new(core.clone(), &stored));
    let mut task = Task { core, id, view, performer, stored, illegal: String::new(), running: Vec::new() };
    while !task.stored.operation().state.ended() {
        task.turn().await;
    }
}

struct Task {
    core: Arc<Core>,
    id: OperationId,
    view: watch::Receiver<View>,
    performer: Arc<Performer>,
    stored: Stored,
    /// The last refusal that was logged.
    illegal: String,
    /// What is being performed. An action that stays wanted over a change of the operation goes on undisturbed.
    running: Vec<(Action, BoxFuture<'static, Performed>)>,
}

enum Happened {
    Changed,
    Performed(Performed),
    Deadline,
}

impl Task {
    async fn turn(&mut self) {
        let wanted = actions(self.stored.operation());
        let (keep, leave): (Vec<_>, Vec<_>) = self.running.drain(..).partition(|(action, _)| wanted.contains(action));
        self.running = keep;
        for (action, future) in leave {
            // Everything else is safe to leave: its attempt is closed by what follows.
            if action == Action::Prepare {
                self.performer.wind_down(future).await;
            }
        }
        for action in wanted {
            if !self.running.iter().any(|(running, _)| *running == action) {
                let performer = self.performer.clone();
                let (stored, what) = (self.stored.clone(), action.clone());
                self.running.push((action, async move { performer.perform(what, stored).await }.boxed()));
            }
        }
        let version = self.stored.version;
        let (performer, operation) = (self.performer.clone(), self.stored.operation().clone());
        let onlooker = match operation.state {
            State::Completing(_) => async move { performer.look_on(&operation).await }.boxed(),
            // Observed by an action, or not at all.
            _ => std::future::pending().boxed(),
        };
        let happened = tokio::select! {
            biased;
            _ = self.view.wait_for(|view| view.stored.version > version) => Happened::Changed,
            () = deadline(&self.core, self.stored.operation()) => Happened::Deadline,
            (performed, at, _) = select_all(self.running.iter_mut().map(|(_, future)| future)) => {
                drop(self.running.remove(at));
                Happened::Performed(performed)
            }
            never = onlooker => match never {},
        };
        match happened {
            Happened::Changed | Happened::Performed(Performed::Changed) => self.reload().await,
            Happened::Performed(Performed::Event(event)) => self.apply(event).await,
            Happened::Deadline => self.apply(Event::Tick { now_ms: self.core.now_ms() }).await,
        }
        self.performer.set_present(&self.stored);
    }

    async fn reload(&mut self) {
        if let Some(stored) = load(&self.core, &self.id).await {
            self.stored = stored;
        }
    }

    /// Step and commit. If somebody else was first, the same event is tried on what they made of it.
    async fn apply(&mut self, event: Event) {
        let mut backoff = Backoff::default();
        loop {
            let next = match step(self.stored.operation(), &event) {
                Ok(next) => next,
                Err(illegal) => return self.refused(illegal.to_string()).await,
            };
            if next == *self.stored.operation() {
                return;
            }
            let mut record = self.stored.record.advanced(next, self.core.now_ms());
            if let Some(progress) = self.core.hub.view(&self.id).and_then(|view| view.progress) {
                record.progress = progress;
            }
            match self.core.records.update(&[(&self.stored, &record)]).await {
                Ok(version) => {
                    log(self.stored.operation(), &record.operation);
                    self.stored = Stored { version, record };
                    self.core.hub.set_waiting(&self.id, Waiter::Store, None, self.core.now_ms());
                    return;
                }
                Err(Error::Conflict { .. }) => {}
                Err(error) => {
                    let why = Some(error.to_string());
                    self.core.hub.set_waiting(&self.id, Waiter::Store, why, self.core.now_ms());
                    tracing::error!(operation = %self.id, %error, "store the operation, trying again");
                    backoff.wait(&self.core.env).await;
                }
            }
            self.reload().await;
            if self.stored.operation().state.ended() {
                return;
            }
        }
    }

    async fn refused(&mut self, illegal: String) {
        if self.illegal != illegal {
            tracing::warn!(operation = %self.id, reason = illegal, "an event changes nothing");
            self.illegal = illegal;
        }
        let version = self.stored.version;
        let changed = self.view.wait_for(|view| view.stored.version > version);
        // Either way the next turn loads or repeats.
        let _ = self.core.env.timeout(AFTER_ILLEGAL, changed).await;
    }
}

/// The record, as soon as the store can be read. Nothing if there is none, which cannot be for an operation in the hub.
async fn load(core: &Core, id: &OperationId) -> Option<Stored> {
    let mut backoff = Backoff::default();
    loop {
        match core.records.operation(id).await {
            Ok(stored) => return stored,
            Err(error) => {
                core.hub.set_waiting(id, Waiter::Store, Some(error.to_string()), core.now_ms());
                tracing::error!(operation = %id, %error, "load the operation, trying again");
            }
        }
        backoff.wait(&core.env).await;
    }
}

/// Completes when the operation's window is over, where that means something.
async fn deadline(core: &Core, operation: &Operation) {
    let waits = matches!(operation.state, State::Seeding | State::CatchingUp | State::Ready);
    let Some(deadline_ms) = operation.times.deadline_ms.filter(|_| waits) else {
        return std::future::pending().await;
    };
    loop {
        let left_ms = deadline_ms.saturating_sub(core.now_ms());
        let Some(left) = u64::try_from(left_ms).ok().filter(|left| *left > 0) else {
            return;
        };
        core.env.sleep(Duration::from_millis(left).min(CLOCK_LOOK)).await;
    }
}

fn log(before: &Operation, after: &Operation) {
    let reason = after.reason.as_ref().map_or("", |reason| reason.code.as_str());
    tracing::info!(
        operation = %after.id,
        kind = %after.kind,
        database = %after.database,
        source = %after.source,
        destination = %after.destination,
        from = %describe(before),
        to = %describe(after),
        attempt = after.attempt.0,
        reason,
        "operation goes on"
    );
}

/// State and step, as shown in logs.
fn describe(operation: &Operation) -> String {
    let state = operation.state.as_str();
    match &operation.state {
        State::Completing(completing) => {
            let step = match &completing.step {
                CompletionStep::Cutover => "cutover",
                CompletionStep::Aborting { .. } => "aborting",
                CompletionStep::Unfencing { .. } => "unfencing",
                CompletionStep::Flipped { .. } => "flipped",
                CompletionStep::Forgetting { .. } => "forgetting",
            };
            format!("{state}/{step}")
        }
        State::Cancelling(cancelling) => format!("{state}/{:?}", cancelling.step).to_lowercase(),
        _ => state.to_owned(),
    }
}
