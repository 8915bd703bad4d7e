//! The destination half: a replica made page by page in `.causeway/dest/staging/`, renamed into place by the flip.
//!
//! Nobody opens the replica with SQLite before it stands at a marker, so pages are written raw; see
//! `docs/decisions/2026-11-22-sqlite-raw-apply.md`.

mod apply;
mod check;
mod listing;
mod name;
mod preflight;
mod progress;
mod promote;
mod replica;
mod spool;
mod staging;

#[cfg(test)]
mod tests;

use super::{
    config::SqliteConfig,
    store::{Half, Store},
};
use crate::{
    Error, Result,
    dest::{DestEngine, DestReplica},
    host::{Host, blocking},
    source::DatabaseInfo,
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{
    CommandVersion, DatabaseName, Epoch, Finding, OperationId,
    dest_role::{DestRole, Phase},
};
use replica::Replica;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The destination half of the SQLite engine for one directory.
pub struct SqliteDest {
    inner: Arc<Inner>,
}

/// What jobs on blocking threads share.
struct Inner {
    config: SqliteConfig,
    host: Arc<dyn Host>,
    store: Arc<Store>,
    /// The replica that is open for an operation, so that the next one can end it.
    open: Mutex<HashMap<OperationId, Replica>>,
    /// Held while a name is judged and reserved, and while an operation's staging changes hands.
    names: Mutex<()>,
}

impl SqliteDest {
    /// The destination half for `config.dir`. Touches nothing yet.
    pub fn new(config: SqliteConfig, host: Arc<dyn Host>) -> Self {
        let store = Arc::new(Store::new(&config.dir, Half::Dest, config.takeover_after, host.clone()));
        let inner = Inner { config, host, store, open: Mutex::default(), names: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    async fn job<T: Send + 'static>(&self, job: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.inner.clone();
        blocking(&self.inner.host, move || job(&inner)).await
    }
}

#[async_trait]
impl DestEngine for SqliteDest {
    fn name(&self) -> &'static str {
        super::NAME
    }

    async fn take_over(&self) -> Result<Epoch> {
        let epoch = self.inner.store.take_over().await?;
        self.job(Inner::sweep).await?;
        Ok(epoch)
    }

    async fn heartbeat(&self) -> Result<()> {
        self.job(|inner| inner.store.beat()).await
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        self.job(listing::databases).await
    }

    async fn purge(&self, database: &DatabaseName) -> Result<()> {
        let database = database.clone();
        self.job(move |inner| listing::purge(inner, &database)).await
    }

    async fn preflight(
        &self,
        database: &DatabaseName,
        requirements: &Bytes,
        operation: Option<&OperationId>,
    ) -> Result<Vec<Finding>> {
        let (database, requirements, operation) = (database.clone(), requirements.clone(), operation.cloned());
        self.job(move |inner| preflight::preflight(inner, &database, &requirements, operation.as_ref())).await
    }

    async fn roles(&self) -> Result<Vec<DestRole>> {
        self.job(|inner| inner.store.records()).await
    }

    async fn put_role(&self, role: &DestRole) -> Result<()> {
        let role = role.clone();
        self.job(move |inner| inner.store.put(&role.operation, &role)).await
    }

    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        let operation = operation.clone();
        self.job(move |inner| inner.store.remove(&operation, version)).await
    }

    async fn watermark(&self) -> Result<CommandVersion> {
        self.job(|inner| inner.store.watermark()).await
    }

    async fn prepare(&self, role: &DestRole) -> Result<()> {
        let role = role.clone();
        self.job(move |inner| inner.prepare(&role)).await
    }

    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>> {
        let role = role.clone();
        let replica = self.job(move |inner| inner.open(&role)).await?;
        Ok(Arc::new(replica))
    }

    async fn promote(&self, role: &DestRole) -> Result<()> {
        let role = role.clone();
        self.job(move |inner| promote::promote(inner, &role)).await
    }

    async fn finish(&self, role: &DestRole) -> Result<()> {
        let role = role.clone();
        self.job(move |inner| promote::finish(inner, &role)).await
    }

    async fn discard(&self, role: &DestRole) -> Result<()> {
        let role = role.clone();
        self.job(move |inner| inner.discard(&role)).await
    }
}

impl Inner {
    fn prepare(&self, role: &DestRole) -> Result<()> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = || Error::NameTaken(role.database.to_string());
        name::check(&role.database)?;
        if self.others_of(&role.database, Some(&role.operation))?.is_some() {
            return Err(taken());
        }
        match name::occupant(&self.config, &role.database)? {
            name::Occupant::Nobody => {}
            // A drop that was interrupted at its last step may have left these; nobody can be writing them.
            name::Occupant::Tombstone(_) => name::remove_side_files(&self.store, &self.config, &role.database)?,
            name::Occupant::File | name::Occupant::SideFile => return Err(taken()),
        }
        self.store.put(&role.operation, role)
    }

    fn open(&self, role: &DestRole) -> Result<Replica> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match role.phase {
            Phase::Seeding | Phase::Replica | Phase::Prepared { .. } => {}
            Phase::Primary { .. } | Phase::Discarding | Phase::Discarded => {
                return Err(Error::Misuse(format!("a destination that is {} has no replica", role.phase.as_str())));
            }
        }
        if let Some(before) = self.take_open(&role.operation) {
            before.end();
        }
        let dir = match staging::adopt(&self.store, &role.operation)? {
            Some(dir) => dir,
            None => staging::create(&self.store, &role.operation)?,
        };
        let replica = Replica::open(self.config.clone(), self.host.clone(), self.store.clone(), dir)?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(role.operation.clone(), replica.clone());
        Ok(replica)
    }

    fn discard(&self, role: &DestRole) -> Result<()> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(DestRole { phase: Phase::Primary { .. }, .. }) = self.store.record(&role.operation)? {
            return Err(Error::Misuse("a destination that is primary is never discarded".to_owned()));
        }
        if let Some(replica) = self.take_open(&role.operation) {
            replica.end();
        }
        staging::remove(&self.store, &role.operation)
    }

    fn take_open(&self, operation: &OperationId) -> Option<Replica> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(operation)
    }

    /// The operation other than `operation` that makes or made a database of this name, if there is one.
    fn others_of(&self, database: &DatabaseName, operation: Option<&OperationId>) -> Result<Option<OperationId>> {
        let roles: Vec<DestRole> = self.store.records()?;
        let other = roles
            .into_iter()
            .find(|r| r.database == *database && Some(&r.operation) != operation && r.phase != Phase::Discarded);
        Ok(other.map(|r| r.operation))
    }

    /// Removes what operations left that have no record any more.
    fn sweep(&self) -> Result<()> {
        let roles: Vec<DestRole> = self.store.records()?;
        let known: Vec<OperationId> = roles.into_iter().map(|r| r.operation).collect();
        staging::sweep(&self.store, &known)
    }
}
