//! One operation at this side: its role, its replica, its lanes, and the only way in which the role changes.

mod commands;
mod error;
mod finish;
mod hello;
mod lane;
mod lanes;
mod log;
mod marker;
mod meter;
mod plan;
mod registry;
mod replica;
mod seed;
mod sync;

use engines::dest::DestEngine;
use handover::{
    CommandVersion, OperationId,
    dest_role::{Action, Answer, DestRole, Event, Phase, step},
};
use lanes::Lanes;
use meter::Meter;
use replica::Slot;
use service::Env;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::{Mutex, watch};

pub(crate) use commands::Asker;
pub(crate) use error::{Error, Result};
pub(crate) use lane::run as run_lane;
pub(crate) use meter::{Figures, Trouble};
pub(crate) use registry::Registry;

/// One operation. Every change of its role goes through [`Session::decide`] or [`Session::amend`]: decided, recorded
/// durably, then acted upon, then answered.
pub(crate) struct Session {
    env: Env,
    engine: Arc<dyn DestEngine>,
    operation: OperationId,
    held: Mutex<Held>,
    /// What is durable, for those who only look or wait; written by the holder of `held`.
    view: watch::Sender<View>,
    lanes: Lanes,
    slot: Slot,
    meter: Arc<Meter>,
    /// Held by the commands that take long after they are recorded: discard, finish, forget.
    acting: Mutex<()>,
    hook_runs: AtomicBool,
    online_unix_us: AtomicU64,
}

/// The role as this process knows it.
struct Held {
    role: DestRole,
    /// Set while a change is being recorded, and left set when that failed: the record may be the old or the new one.
    doubt: bool,
}

/// What is durable.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) role: Arc<DestRole>,
    /// The record is removed.
    pub(crate) gone: bool,
}

/// A step that took effect.
pub(crate) struct Decided {
    pub(crate) role: DestRole,
    pub(crate) actions: Vec<Action>,
    pub(crate) answer: Answer,
}

impl Session {
    fn new(env: Env, engine: Arc<dyn DestEngine>, role: DestRole) -> Arc<Self> {
        let view = View { role: Arc::new(role.clone()), gone: false };
        Arc::new(Self {
            env,
            engine,
            operation: role.operation.clone(),
            held: Mutex::new(Held { role, doubt: false }),
            view: watch::Sender::new(view),
            lanes: Lanes::default(),
            slot: Slot::default(),
            meter: Arc::default(),
            acting: Mutex::new(()),
            hook_runs: AtomicBool::new(false),
            online_unix_us: AtomicU64::new(0),
        })
    }

    /// What is durable now.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub(crate) fn figures(&self) -> Figures {
        self.meter.figures()
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.meter.trouble()
    }

    pub(crate) fn hook_runs(&self) -> bool {
        self.hook_runs.load(Ordering::Relaxed)
    }

    /// Lets an event happen: `step` decides, the engine records, and only then is the answer known. Opening the database
    /// and removing the record belong to the recording; what else is to be done is left to the caller.
    ///
    /// Run it in a task of its own where the caller may be dropped: the record's fate would not be known.
    async fn decide(&self, event: &Event) -> Result<Decided> {
        let mut held = self.held.lock().await;
        self.clear_doubt(&mut held).await?;
        let step = step(&held.role, event)?;
        if step.actions.contains(&Action::RemoveRecord) {
            self.remove(&mut held, step.next.version).await?;
        } else if step.actions.contains(&Action::Open) {
            self.open_database(&mut held, step.next.clone()).await?;
        } else {
            self.record(&mut held, step.next.clone()).await?;
        }
        Ok(Decided { role: step.next, actions: step.actions, answer: step.answer })
    }

    /// Changes what is no decision about the operation: what Hello told, and the outcome of the hook.
    async fn amend<T>(&self, change: impl FnOnce(&mut DestRole) -> Result<T>) -> Result<T> {
        let mut held = self.held.lock().await;
        self.clear_doubt(&mut held).await?;
        let mut next = held.role.clone();
        let answer = change(&mut next)?;
        self.record(&mut held, next).await?;
        Ok(answer)
    }

    /// What the present role answers about something, once no change is in doubt.
    async fn ask<T>(&self, question: impl FnOnce(&DestRole) -> T) -> Result<T> {
        let mut held = self.held.lock().await;
        self.clear_doubt(&mut held).await?;
        Ok(question(&held.role))
    }

    async fn record(&self, held: &mut Held, next: DestRole) -> Result<()> {
        if next == held.role {
            return Ok(());
        }
        held.doubt = true;
        self.engine.put_role(&next).await?;
        self.took_effect(held, next);
        Ok(())
    }

    /// **The flip**, and its repetition.
    async fn open_database(&self, held: &mut Held, next: DestRole) -> Result<()> {
        let first = next != held.role;
        // A sync of the replica would come in the engine's way while it opens the file.
        let _paused = self.slot.pause().await;
        held.doubt = true;
        self.engine.promote(&next).await?;
        self.slot.retire();
        if first {
            let now = u64::try_from(self.env.now().as_millis()).unwrap_or(0);
            self.online_unix_us.store(now.saturating_mul(1000), Ordering::Relaxed);
            tracing::info!(operation = %next.operation, database = %next.database, "opened the database to clients");
        }
        self.took_effect(held, next);
        Ok(())
    }

    async fn remove(&self, held: &mut Held, version: CommandVersion) -> Result<()> {
        held.doubt = true;
        self.engine.remove_role(&self.operation, version).await?;
        held.doubt = false;
        self.view.send_modify(|view| view.gone = true);
        Ok(())
    }

    fn took_effect(&self, held: &mut Held, role: DestRole) {
        if held.role.phase != role.phase || held.role.floor != role.floor {
            tracing::info!(
                operation = %role.operation,
                phase = role.phase.as_str(),
                floor = role.floor.0,
                version = role.version.0,
                "recorded the role"
            );
        }
        held.role = role;
        held.doubt = false;
        self.view.send_modify(|view| view.role = Arc::new(held.role.clone()));
    }

    /// A change that failed may have been recorded all the same: nothing is decided before that is known.
    async fn clear_doubt(&self, held: &mut Held) -> Result<()> {
        if self.view.borrow().gone {
            return Err(Error::Unknown(self.operation.clone()));
        }
        if !held.doubt {
            return Ok(());
        }
        let found = self.engine.roles().await?.into_iter().find(|role| role.operation == self.operation);
        let Some(found) = found else {
            held.doubt = false;
            self.view.send_modify(|view| view.gone = true);
            return Err(Error::Unknown(self.operation.clone()));
        };
        if let Phase::Primary { .. } = found.phase {
            // Recorded, but perhaps not opened.
            let _paused = self.slot.pause().await;
            self.engine.promote(&found).await?;
            self.slot.retire();
        } else if found != held.role {
            // To be seen is not yet to be durable: recorded once more.
            self.engine.put_role(&found).await?;
        }
        self.took_effect(held, found);
        Ok(())
    }
}
