//! An engine as an agent sees it: one that never returns once another agent holds its lock.
//!
//! A process that lost its lock must neither answer nor write. Instead of trusting every call site to look for
//! [`Error::Superseded`], the guards tell [`Lost`] and let the caller wait for ever; the agent then ends the process. The
//! guards also know which calls are steps of the protocol, and tell an [`Onlooker`] if there is one.

mod dest;
mod source;

pub use dest::{GuardedDest, STEPS as DEST_STEPS};
pub use source::{GuardedSource, STEPS as SOURCE_STEPS};

use crate::{Error, Result};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Where the loss of the lock is told. Clones share it.
#[derive(Clone, Default)]
pub struct Lost {
    shared: Arc<(Mutex<Option<Error>>, Notify)>,
}

impl Lost {
    fn tell(&self, error: Error) {
        let (cause, told) = &*self.shared;
        cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        told.notify_one();
    }

    /// Completes when the lock is lost. One waits, once: the agent, which then ends.
    pub async fn wait(&self) -> Error {
        let (cause, told) = &*self.shared;
        loop {
            if let Some(error) = cause.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return error;
            }
            told.notified().await;
        }
    }

    /// The result of a call, unless it says that the lock is lost.
    async fn pass<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(error @ Error::Superseded { .. }) => {
                self.tell(error);
                std::future::pending().await
            }
            result => result,
        }
    }
}

/// Somebody who is told before and after each step that makes something durable, and whom the engine waits for: tests that
/// hurt a process at a certain point.
#[async_trait]
pub trait Onlooker: Send + Sync {
    /// The step is about to begin.
    async fn before(&self, step: &'static str);
    /// It is durable; the caller does not know yet.
    async fn after(&self, step: &'static str);
}

/// What the guards share: who is told what.
#[derive(Clone)]
struct Watch {
    lost: Lost,
    onlooker: Option<Arc<dyn Onlooker>>,
}

impl Watch {
    /// A call that is no step of the protocol.
    async fn pass<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.lost.pass(call.await).await
    }

    /// A call that is a step.
    async fn step<T>(&self, step: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(onlooker) = &self.onlooker else { return self.pass(call).await };
        onlooker.before(step).await;
        let result = call.await;
        if result.is_ok() {
            onlooker.after(step).await;
        }
        self.lost.pass(result).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::RealHost,
        memory::{MemoryInstance, MemorySource},
        source::SourceEngine,
    };
    use std::time::Duration;

    #[tokio::test]
    async fn a_lost_lock_is_told_and_never_answered() {
        let instance = MemoryInstance::new();
        let lost = Lost::default();
        let inner = Arc::new(MemorySource::new(instance.clone(), Arc::new(RealHost)));
        let engine = Arc::new(GuardedSource::new(inner, lost.clone(), None));
        engine.take_over().await.expect("the lock");
        instance.fail_next("heartbeat", Error::Busy("another matter".to_owned()));
        assert!(matches!(engine.heartbeat().await, Err(Error::Busy(_))), "other errors are the caller's");

        MemorySource::new(instance, Arc::new(RealHost)).take_over().await.expect("the lock again");
        let call = tokio::spawn({
            let engine = engine.clone();
            async move { engine.heartbeat().await }
        });
        let told = tokio::time::timeout(Duration::from_secs(10), lost.wait()).await.expect("told");
        assert!(matches!(told, Error::Superseded { ours: 1, newer: 2 }), "{told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!call.is_finished(), "the caller hears nothing any more");
        call.abort();
    }
}
