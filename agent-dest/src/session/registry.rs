//! All operations of the instance, and what happens to them when the agent starts and ends.

use super::{
    Session, View,
    error::{Error, Result},
    finish,
    lanes::Stop,
};
use crate::config::Settings;
use engines::dest::DestEngine;
use handover::{
    DatabaseName, Epoch, InstanceName, OperationId,
    dest_role::{DestRole, Phase},
};
use service::{Env, Shutdown};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Mutex;

/// All operations of the instance. Cloning is cheap; all clones share the same ones.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) env: Env,
    pub(super) engine: Arc<dyn DestEngine>,
    pub(super) settings: Settings,
    epoch: Epoch,
    shutdown: Shutdown,
    sessions: StdMutex<BTreeMap<OperationId, Arc<Session>>>,
    /// One operation is created or removed at a time, so that two cannot take the same name.
    pub(super) creating: Mutex<()>,
    /// A preparation failed, and may have left a record all the same.
    doubt: AtomicBool,
}

impl Registry {
    pub(crate) fn new(
        env: Env,
        engine: Arc<dyn DestEngine>,
        settings: Settings,
        epoch: Epoch,
        shutdown: Shutdown,
    ) -> Self {
        let inner = Inner {
            env,
            engine,
            settings,
            epoch,
            shutdown,
            sessions: StdMutex::default(),
            creating: Mutex::new(()),
            doubt: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes up the operations that the instance knows and rolls forward what is durable.
    pub(crate) async fn take_up(&self) -> engines::Result<()> {
        for role in self.inner.engine.roles().await? {
            let session = self.insert(role);
            if let Err(error) = self.roll_forward(&session).await {
                // It is tried again with the next command or Hello; the other operations must not wait for this one.
                tracing::warn!(operation = %session.operation, %error, "roll the operation forward");
                session.meter.failed(&error);
            }
        }
        Ok(())
    }

    async fn roll_forward(&self, session: &Arc<Session>) -> Result<()> {
        let role = session.view().role;
        tracing::info!(operation = %role.operation, database = %role.database, phase = role.phase.as_str(), "take up an operation");
        match role.phase {
            Phase::Primary { .. } => self.inner.engine.promote(&role).await?,
            Phase::Discarding => finish::remove_all(session, &role).await?,
            Phase::Seeding | Phase::Replica | Phase::Prepared { .. } => {
                session.replica().await?;
            }
            Phase::Discarded => {}
        }
        Ok(())
    }

    /// Ends all lanes and lets go of all replicas.
    pub(crate) async fn close(&self) {
        for session in self.all() {
            session.interrupt_replica().await;
            session.lanes.end_all(Stop::Decided, true).await;
            session.close_replica().await;
        }
    }

    pub(crate) fn env(&self) -> Env {
        self.inner.env.clone()
    }

    pub(crate) fn engine(&self) -> &Arc<dyn DestEngine> {
        &self.inner.engine
    }

    pub(crate) fn shutdown(&self) -> Shutdown {
        self.inner.shutdown.clone()
    }

    pub(crate) fn instance(&self) -> &InstanceName {
        &self.inner.settings.instance
    }

    pub(crate) fn coordinator_identities(&self) -> &[String] {
        &self.inner.settings.coordinator_identities
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// All operations, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions().values().cloned().collect()
    }

    /// The operation, or [`Error::Unknown`].
    pub(crate) async fn find(&self, operation: &OperationId) -> Result<Arc<Session>> {
        if self.inner.doubt.load(Ordering::Acquire) {
            let _creating = self.inner.creating.lock().await;
            self.clear_doubt().await?;
        }
        self.known(operation).ok_or_else(|| Error::Unknown(operation.clone()))
    }

    /// The operation, as far as this process knows.
    pub(super) fn known(&self, operation: &OperationId) -> Option<Arc<Session>> {
        let found = self.sessions().get(operation).cloned();
        found.filter(|session| !session.view().gone)
    }

    /// The operation that holds the name of a database here, other than `operation`.
    pub(crate) fn holder(&self, database: &DatabaseName, operation: Option<&OperationId>) -> Option<OperationId> {
        self.all().into_iter().find_map(|session| {
            let View { role, gone } = session.view();
            let holds = !gone && role.database == *database && role.phase != Phase::Discarded;
            (holds && Some(&role.operation) != operation).then(|| role.operation.clone())
        })
    }

    /// Runs `work` to its end even if whoever asked for it goes away: what is half recorded helps nobody.
    pub(crate) async fn task<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.inner.env.spawn(name, work).await.unwrap_or(Err(Error::Panicked))
    }

    pub(super) fn insert(&self, role: DestRole) -> Arc<Session> {
        let session = Session::new(self.inner.env.clone(), self.inner.engine.clone(), role);
        self.sessions().insert(session.operation.clone(), session.clone());
        session
    }

    pub(super) fn remove(&self, operation: &OperationId) {
        self.sessions().remove(operation);
    }

    pub(super) fn set_doubt(&self) {
        self.inner.doubt.store(true, Ordering::Release);
    }

    /// Takes up what a failed preparation may have left. The caller holds `creating`.
    pub(super) async fn clear_doubt(&self) -> Result<()> {
        if !self.inner.doubt.load(Ordering::Acquire) {
            return Ok(());
        }
        for role in self.inner.engine.roles().await? {
            let known = self.sessions().contains_key(&role.operation);
            if !known {
                self.insert(role);
            }
        }
        self.inner.doubt.store(false, Ordering::Release);
        Ok(())
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<OperationId, Arc<Session>>> {
        self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
