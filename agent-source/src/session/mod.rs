//! One operation at the source: its role, its stream, and the task that replicates it.

mod commands;
mod doubt;
mod error;
mod lane;
mod log;
mod meter;
mod pace;
mod parts;
mod registry;
mod replicate;
mod seed;
mod window;

pub use error::Error;
pub use registry::Registry;

use crate::config::Settings;
use engines::source::{SourceEngine, SourceStream};
use handover::{Attempt, Epoch, OperationId, Position, source_role::SourceRole};
use meter::Meter;
use service::{Env, dial::Dialer};
use std::{
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
};

/// What all sessions of an agent share.
pub struct Shared {
    pub env: Env,
    /// Behind the guard: none of its calls returns once the lock is lost.
    pub engine: Arc<dyn SourceEngine>,
    pub dialer: Dialer,
    pub settings: Settings,
    pub epoch: Epoch,
}

/// How far the log may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Halt {
    /// As far as there is some.
    Run,
    /// Not at all: a mark is being taken for the attempt.
    Pause(Attempt),
    /// Up to the position, where the attempt's marker follows.
    At(Attempt, Position),
}

/// One operation at the source.
pub struct Session {
    shared: Arc<Shared>,
    operation: OperationId,
    /// Commands that change the role go one at a time.
    role: Mutex<SourceRole>,
    stream: Mutex<Option<Arc<dyn SourceStream>>>,
    halt: watch::Sender<Halt>,
    /// The pause that the log sender has seen, and whether there is a log sender at all.
    sender: watch::Sender<Sender>,
    /// The log lane, while there is one; commands send `Settle` over it.
    lane: StdMutex<Option<mpsc::Sender<proto::v1::SourceFrame>>>,
    settled: watch::Sender<u64>,
    meter: Meter,
    /// When the coordinator was last heard, by the monotonic clock.
    heard: StdMutex<Duration>,
    task: StdMutex<Vec<JoinHandle<()>>>,
}

/// What the log sender is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sender {
    alive: bool,
    paused: Option<Attempt>,
}

impl Session {
    fn new(shared: Arc<Shared>, role: SourceRole) -> Arc<Self> {
        let heard = StdMutex::new(shared.env.monotonic());
        Arc::new(Self {
            operation: role.operation.clone(),
            role: Mutex::new(role),
            stream: Mutex::new(None),
            halt: watch::Sender::new(Halt::Run),
            sender: watch::Sender::new(Sender::default()),
            lane: StdMutex::new(None),
            settled: watch::Sender::new(0),
            meter: Meter::new(shared.env.clone()),
            heard,
            task: StdMutex::new(Vec::new()),
            shared,
        })
    }

    /// Starts replicating, and watching over a fence.
    fn start(self: &Arc<Self>) {
        let env = self.shared.env.clone();
        let replicate = env.spawn("replicate", self.clone().replicate());
        let watch = env.spawn("watch over the fence", self.clone().watch_fence());
        self.task.lock().expect("no code panics while it holds this lock").extend([replicate, watch]);
    }

    /// Stops the tasks; what they were doing is idempotent.
    fn stop(&self) {
        for task in self.task.lock().expect("no code panics while it holds this lock").drain(..) {
            task.abort();
        }
        self.meter.disconnected();
    }

    /// The operation's stream, opened if need be.
    async fn stream(&self) -> engines::Result<Arc<dyn SourceStream>> {
        // The role first: commands hold it while they close the stream.
        let role = self.role.lock().await.clone();
        let mut slot = self.stream.lock().await;
        if let Some(stream) = &*slot {
            return Ok(stream.clone());
        }
        let stream = self.shared.engine.open(&role).await?;
        *slot = Some(stream.clone());
        Ok(stream)
    }

    async fn close_stream(&self) {
        if let Some(stream) = self.stream.lock().await.take() {
            stream.close().await;
        }
    }

    /// Notes that the coordinator spoke.
    fn hear(&self) {
        *self.heard.lock().expect("no code panics while it holds this lock") = self.shared.env.monotonic();
    }

    /// How long nothing was heard of the coordinator.
    pub fn silence(&self) -> Duration {
        let heard = *self.heard.lock().expect("no code panics while it holds this lock");
        self.shared.env.monotonic().saturating_sub(heard)
    }
}
