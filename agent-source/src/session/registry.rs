//! The operations this agent knows.

use super::{Error, Session, Shared};
use crate::config::Settings;
use engines::source::SourceEngine;
use handover::{CommandVersion, Epoch, OperationId, source_role::SourceRole};
use service::{Env, dial::Dialer};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex},
};
use tokio::sync::Mutex;

/// All sessions of an agent. Cloning is cheap.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    sessions: Arc<StdMutex<HashMap<OperationId, Arc<Session>>>>,
    /// Begin and Cleanup go one at a time, so that one database is never in two operations.
    entering: Arc<Mutex<()>>,
}

impl Registry {
    pub fn new(env: Env, engine: Arc<dyn SourceEngine>, dialer: Dialer, settings: Settings, epoch: Epoch) -> Self {
        let shared = Arc::new(Shared { env, engine, dialer, settings, epoch });
        Self { shared, sessions: Arc::default(), entering: Arc::default() }
    }

    /// What the sessions share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes up every operation that the instance knows.
    pub async fn take_up(&self) -> engines::Result<()> {
        for role in self.shared.engine.roles().await? {
            tracing::info!(operation = %role.operation, phase = role.phase.as_str(), "take up an operation");
            let session = Session::new(self.shared.clone(), role);
            self.insert(session.clone());
            session.start();
        }
        Ok(())
    }

    /// The session of an operation.
    pub fn get(&self, operation: &OperationId) -> Result<Arc<Session>, Error> {
        self.lock().get(operation).cloned().ok_or_else(|| Error::Unknown(operation.clone()))
    }

    /// All sessions, by operation.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| a.operation.cmp(&b.operation));
        all
    }

    /// Begins an operation; `role` is as the coordinator's command describes it, but for the incarnation.
    pub async fn begin(&self, role: SourceRole) -> Result<(), Error> {
        let _alone = self.entering.lock().await;
        if let Ok(session) = self.get(&role.operation) {
            return session.begin_again(&role).await;
        }
        let engine = &self.shared.engine;
        let watermark = engine.watermark().await?;
        if role.version <= watermark {
            return Err(Error::Late { given: role.version, watermark });
        }
        for other in self.all() {
            let known = other.role().await;
            if known.database == role.database {
                return Err(Error::Taken { database: role.database, other: known.operation });
            }
        }
        let facts = engine.preflight(&role.database, role.kind, Some(&role.operation)).await?;
        if facts.findings.iter().any(|f| f.severity == handover::Severity::Error) {
            return Err(Error::Findings(facts.findings));
        }
        let role = SourceRole { incarnation: facts.incarnation, ..role };
        engine.begin(&role).await?;
        tracing::info!(operation = %role.operation, database = %role.database, kind = %role.kind, "operation begun");
        let session = Session::new(self.shared.clone(), role);
        self.insert(session.clone());
        session.start();
        Ok(())
    }

    /// Removes every trace of an operation.
    pub async fn cleanup(&self, operation: &OperationId, version: CommandVersion) -> Result<(), Error> {
        let _alone = self.entering.lock().await;
        match self.get(operation) {
            Ok(session) => {
                session.cleanup(version).await?;
                self.lock().remove(operation);
                tracing::info!(%operation, "operation cleaned up");
                Ok(())
            }
            // It may be that Begin never came; should it come yet, it is late.
            Err(_) => Ok(self.shared.engine.remove_role(operation, version).await?),
        }
    }

    /// Stops all sessions when the agent ends; what they know is durable.
    pub async fn close(&self) {
        let all = self.all();
        for session in &all {
            session.stop();
        }
        for session in &all {
            session.close_stream().await;
        }
    }

    /// Stops all sessions at once, when the lock is lost.
    pub fn abandon(&self) {
        for session in self.all() {
            session.stop();
        }
    }

    fn insert(&self, session: Arc<Session>) {
        self.lock().insert(session.operation.clone(), session);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OperationId, Arc<Session>>> {
        self.sessions.lock().expect("no code panics while it holds this lock")
    }
}
