//! The destination half: a database made from `template0`, loaded without indexes, kept up with the log by net changes, and
//! opened by one transaction in the maintenance database.
//!
//! `prepare` records the role, which reserves the name among operations; the database itself is made by the plan, which brings
//! its encoding and locale, under a name of ours, and gets the user's name in one transaction with the memo (see
//! [`database`]). Until the flip its connection limit is 0, so only superusers could come in.

mod arming;
mod build;
mod database;
mod entries;
mod extras;
mod flip;
mod large_objects;
mod live;
mod load;
mod log;
mod marker;
mod memo;
mod order;
mod preflight;
mod records;
mod replica;
mod roles;
mod schema;
mod sessions;
mod views;

#[cfg(test)]
mod tests;

use super::{
    config::PostgresConfig,
    sql::{Sql, failed},
    store::{Half, Store},
};
use crate::{
    Error, Result,
    dest::{DestEngine, DestReplica},
    host::Host,
    source::DatabaseInfo,
};
use async_trait::async_trait;
use bytes::Bytes;
use handover::{
    CommandVersion, DatabaseName, Epoch, Finding, OperationId,
    dest_role::{DestRole, Phase},
};
use memo::Memo;
use replica::Replica;
use sessions::Sessions;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// Seed lanes that a source opens by default, and sessions for records, the store and small work.
const OTHER_CONNECTIONS: usize = 10;

/// Sessions with the maintenance database are for this.
const PURPOSE: &str = "dest database";

/// The destination half of the PostgreSQL engine for one server.
pub struct PostgresDest {
    shared: Arc<Shared>,
    /// The replica that is open for an operation, so that the next one can end it.
    open: Mutex<HashMap<OperationId, Replica>>,
}

/// What everything of one server shares.
struct Shared {
    config: PostgresConfig,
    store: Store,
    /// Sessions with the maintenance database that were made before they are needed in a hurry.
    hurried: Sessions,
}

/// Connections that one operation uses at its peak.
fn connections_max(config: &PostgresConfig) -> usize {
    config.apply_connections() * 2 + OTHER_CONNECTIONS
}

impl Shared {
    /// A session with the maintenance database.
    async fn maintenance(&self) -> Result<Sql> {
        Sql::connect(&self.config, self.config.maintenance(), PURPOSE).await
    }

    /// Makes one for whoever is in a hurry later.
    async fn connect_ahead(&self) -> Result<()> {
        self.hurried.give_back(self.hurried.take().await?);
        Ok(())
    }
}

impl PostgresDest {
    /// The destination half for the server of `config`. Touches nothing yet.
    pub fn new(config: PostgresConfig, _: Arc<dyn Host>) -> Self {
        let store = Store::new(config.clone(), Half::Dest);
        let hurried = Sessions::new(&config, config.maintenance(), PURPOSE, String::new());
        Self { shared: Arc::new(Shared { config, store, hurried }), open: Mutex::default() }
    }

    fn take_open(&self, operation: &OperationId) -> Option<Replica> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(operation)
    }
}

#[async_trait]
impl DestEngine for PostgresDest {
    fn name(&self) -> &'static str {
        super::NAME
    }

    async fn take_over(&self) -> Result<Epoch> {
        self.shared.store.take_over().await
    }

    async fn heartbeat(&self) -> Result<()> {
        self.shared.store.heartbeat().await
    }

    async fn databases(&self) -> Result<Vec<DatabaseInfo>> {
        let mut incoming = HashSet::new();
        for role in self.shared.store.roles::<DestRole>().await? {
            let memo: Option<Memo> = self.shared.store.memo(&role.operation).await?;
            incoming.extend(memo.filter(|memo| !memo.opened).and_then(|memo| memo.oid));
        }
        let sql = self.shared.maintenance().await?;
        let list = "SELECT oid, datname::text, pg_database_size(oid), datallowconn FROM pg_database
             WHERE NOT datistemplate AND datname <> current_database() AND datname <> 'postgres'
               AND NOT starts_with(datname::text, 'causeway ') ORDER BY datname";
        let rows = sql.query(list, &[]).await.map_err(|error| failed("list the databases", &error))?;
        let infos = rows.iter().filter_map(|row| {
            // A name that Causeway cannot carry cannot be moved either.
            let name = DatabaseName::parse(row.get(1)).ok()?;
            let state = match (incoming.contains(&row.get(0)), row.get(3)) {
                (true, _) => "incoming",
                (false, true) => "online",
                (false, false) => "closed",
            };
            let size_bytes = u64::try_from(row.get::<_, i64>(2)).unwrap_or(0);
            Some(DatabaseInfo { name, size_bytes, state: state.to_owned(), findings: vec![] })
        });
        Ok(infos.collect())
    }

    async fn purge(&self, database: &DatabaseName) -> Result<()> {
        let sql = self.shared.maintenance().await?;
        match database::oid_of(&sql, database.as_str()).await? {
            None => Err(Error::NoDatabase(database.to_string())),
            Some(_) => Err(Error::Unsupported {
                code: "NOT_A_TOMBSTONE",
                message: format!("{database} is a database, and a move leaves nothing behind in this engine"),
                remedy: "drop it yourself, if nobody needs it".to_owned(),
            }),
        }
    }

    async fn preflight(
        &self,
        database: &DatabaseName,
        requirements: &Bytes,
        operation: Option<&OperationId>,
    ) -> Result<Vec<Finding>> {
        preflight::preflight(&self.shared, database, requirements, operation).await
    }

    async fn roles(&self) -> Result<Vec<DestRole>> {
        self.shared.store.roles().await
    }

    async fn put_role(&self, role: &DestRole) -> Result<()> {
        self.shared.store.put_role(&role.operation, role).await
    }

    async fn remove_role(&self, operation: &OperationId, version: CommandVersion) -> Result<()> {
        self.shared.store.remove_role(operation, version).await
    }

    async fn watermark(&self) -> Result<CommandVersion> {
        self.shared.store.watermark().await
    }

    async fn prepare(&self, role: &DestRole) -> Result<()> {
        let taken = || Error::NameTaken(role.database.to_string());
        let tx = self.shared.store.transaction("prepare an operation").await?;
        if preflight::other_of(&tx.roles().await?, &role.database, Some(&role.operation)).is_some() {
            return Err(taken());
        }
        if role.database.as_str().len() > database::NAME_BYTES_MAX {
            return Err(taken());
        }
        if let Some(oid) = database::oid_of(&tx, role.database.as_str()).await? {
            let memo: Option<Memo> = tx.memo(&role.operation).await?;
            if memo.is_none_or(|memo| memo.oid != Some(oid)) {
                return Err(taken());
            }
        }
        tx.put_role(&role.operation, role).await?;
        tx.commit().await
    }

    async fn open(&self, role: &DestRole) -> Result<Arc<dyn DestReplica>> {
        match role.phase {
            Phase::Seeding | Phase::Replica | Phase::Prepared { .. } => {}
            Phase::Primary { .. } | Phase::Discarding | Phase::Discarded => {
                return Err(Error::Misuse(format!("a destination that is {} has no replica", role.phase.as_str())));
            }
        }
        if let Some(before) = self.take_open(&role.operation) {
            before.end().await;
        }
        let replica = Replica::open(&self.shared, role).await?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(role.operation.clone(), replica.clone());
        Ok(Arc::new(replica))
    }

    async fn promote(&self, role: &DestRole) -> Result<()> {
        flip::promote(&self.shared, role).await
    }

    async fn finish(&self, role: &DestRole) -> Result<()> {
        if let Some(replica) = self.take_open(&role.operation) {
            replica.end().await;
        }
        flip::finish(&self.shared, role).await
    }

    async fn discard(&self, role: &DestRole) -> Result<()> {
        self.shared.store.check().await?;
        if let Some(replica) = self.take_open(&role.operation) {
            replica.end().await;
        }
        flip::discard(&self.shared, role).await
    }
}
