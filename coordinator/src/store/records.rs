//! The typed layer over the store: which keys there are and what changes together.
//!
//! | key | value |
//! |---|---|
//! | `op/<id>` | an operation |
//! | `busy/<instance>/<database>` | id of the operation that has it; one key at each end, gone when the operation ends |
//! | `batch/<id>` | ids of the operations of one start |
//! | `request/<id>` | a start request that carried an id |
//! | `instance/<name>` | a registered instance |

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt as _, stream::BoxStream};
use handover::{CommandVersion, DatabaseName, InstanceName, OperationId, operation::Operation};

use super::{Error, InstanceRecord, Page, Record, RequestRecord, Revision, Sieve, Store, Stored, Txn, codec};

/// Entries read from the store at once.
const PAGE: usize = 256;

pub(super) const OPERATIONS: &str = "op/";
const INSTANCES: &str = "instance/";
const REQUESTS: &str = "request/";

/// The records of one store. Cloning is cheap.
#[derive(Clone)]
pub struct Records {
    store: Arc<dyn Store>,
}

/// All that one start writes.
#[derive(Clone, Debug)]
pub struct Creation {
    /// The operations, all of one batch.
    pub records: Vec<Record>,
    /// The request's id and record, if it carried one.
    pub request: Option<(String, RequestRecord)>,
    /// Their version shall be greater than this: instances may know commands of an earlier store.
    pub above: CommandVersion,
}

/// Operations read through a sieve.
#[derive(Clone, Debug)]
pub struct Sifted {
    /// Those that came through, the newest first.
    pub found: Vec<Stored>,
    /// The last one looked at, if there may be more below it.
    pub more_below: Option<OperationId>,
}

/// The operations that one commit changed.
pub type OperationChanges = Result<Vec<Stored>, Error>;

fn operation_key(id: &OperationId) -> String {
    format!("{OPERATIONS}{id}")
}

fn operation_id(key: &str) -> Result<OperationId, Error> {
    OperationId::parse(&key[OPERATIONS.len()..])
        .map_err(|error| Error::Value { key: key.to_owned(), reason: error.to_string() })
}

fn busy_prefix(instance: &InstanceName) -> String {
    format!("busy/{instance}/")
}

fn busy_keys(operation: &Operation) -> [String; 2] {
    let key = |instance| format!("{}{}", busy_prefix(instance), operation.database);
    [key(&operation.source), key(&operation.destination)]
}

fn instance_key(name: &InstanceName) -> String {
    format!("{INSTANCES}{name}")
}

impl Records {
    /// The records of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// One operation.
    pub async fn operation(&self, id: &OperationId) -> Result<Option<Stored>, Error> {
        let key = operation_key(id);
        let Some(found) = self.store.get(&key).await? else {
            return Ok(None);
        };
        Ok(Some(Stored { version: CommandVersion(found.version.0), record: codec::decode(&key, &found.value)? }))
    }

    /// Up to `limit` operations from the newest down, starting below `before`.
    pub async fn newest(&self, before: Option<&OperationId>, limit: usize) -> Result<Vec<Stored>, Error> {
        Ok(self.newest_through(&Sieve::default(), before, limit).await?.found)
    }

    /// The same without most of those that a filter does not take.
    pub async fn newest_through(
        &self,
        sieve: &Sieve,
        before: Option<&OperationId>,
        limit: usize,
    ) -> Result<Sifted, Error> {
        let page = Page { after: before.map(operation_key), limit, descending: true };
        let entries = self.store.list(OPERATIONS, page).await?;
        let last = match entries.last().filter(|_| entries.len() == limit) {
            Some(last) => Some(operation_id(&last.key)?),
            None => None,
        };
        let found = entries.into_iter().filter(|entry| sieve.lets_through(&entry.versioned.value)).map(|entry| {
            let record = codec::decode(&entry.key, &entry.versioned.value)?;
            Ok(Stored { version: CommandVersion(entry.versioned.version.0), record })
        });
        Ok(Sifted { found: found.collect::<Result<_, Error>>()?, more_below: last })
    }

    /// Every operation that has not ended, oldest first. They are those that hold a busy key.
    pub async fn active(&self) -> Result<Vec<Stored>, Error> {
        let mut ids: Vec<OperationId> = self.busy("busy/").await?.into_iter().map(|(_, id)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut active = Vec::with_capacity(ids.len());
        for id in ids {
            // One that ends in between is gone from the list, not damaged.
            active.extend(self.operation(&id).await?.filter(|stored| !stored.operation().state.ended()));
        }
        Ok(active)
    }

    /// Which operation has each busy database of an instance.
    pub async fn busy_at(&self, instance: &InstanceName) -> Result<Vec<(DatabaseName, OperationId)>, Error> {
        let prefix = busy_prefix(instance);
        let busy = self.busy(&prefix).await?;
        busy.into_iter()
            .map(|(key, id)| {
                let name = DatabaseName::parse(&key[prefix.len()..])
                    .map_err(|error| Error::Value { key: key.clone(), reason: error.to_string() })?;
                Ok((name, id))
            })
            .collect()
    }

    /// Which operation has a database of an instance.
    pub async fn busy_with(
        &self,
        instance: &InstanceName,
        database: &DatabaseName,
    ) -> Result<Option<OperationId>, Error> {
        let key = format!("{}{database}", busy_prefix(instance));
        self.read(&key).await
    }

    async fn busy(&self, prefix: &str) -> Result<Vec<(String, OperationId)>, Error> {
        let mut all = Vec::new();
        let mut page = Page::first(PAGE);
        loop {
            let entries = self.store.list(prefix, page.clone()).await?;
            let full = entries.len() == PAGE;
            for entry in entries {
                let id = codec::decode(&entry.key, &entry.versioned.value)?;
                page.after = Some(entry.key.clone());
                all.push((entry.key, id));
            }
            if !full {
                return Ok(all);
            }
        }
    }

    /// Write all of a start, or nothing: [`Error::Busy`] if a database is taken, [`Error::Conflict`] if the request's id is.
    pub async fn create(&self, creation: &Creation) -> Result<CommandVersion, Error> {
        let mut txn = Txn { above: Revision(creation.above.0), ..Txn::default() };
        let mut ids = Vec::new();
        for record in &creation.records {
            let operation = &record.operation;
            let key = operation_key(&operation.id);
            txn = txn.absent(&key).put(&key, codec::encode(&key, record)?);
            for busy in busy_keys(operation) {
                txn = txn.absent(&busy).put(&busy, codec::encode(&busy, &operation.id)?);
            }
            ids.push(&operation.id);
        }
        if let Some(first) = creation.records.first() {
            let key = format!("batch/{}", first.operation.batch);
            txn = txn.absent(&key).put(&key, codec::encode(&key, &ids)?);
        }
        if let Some((id, request)) = &creation.request {
            let key = format!("{REQUESTS}{id}");
            txn = txn.absent(&key).put(&key, codec::encode(&key, request)?);
        }
        let error = match self.store.commit(txn).await {
            Ok(revision) => return Ok(CommandVersion(revision.0)),
            Err(error) => error,
        };
        if let Error::Conflict { key } = &error {
            for record in &creation.records {
                let operation = &record.operation;
                for (busy, instance) in busy_keys(operation).iter().zip([&operation.source, &operation.destination]) {
                    if busy == key
                        && let Some(by) = self.busy_with(instance, &operation.database).await?
                    {
                        let (instance, database) = (instance.clone(), operation.database.clone());
                        return Err(Error::Busy { instance, database, operation: by });
                    }
                }
            }
        }
        Err(error)
    }

    /// Replace operations, all or none, if each still has the version it was read with. One that ends frees its databases
    /// in the same commit.
    pub async fn update(&self, changes: &[(&Stored, &Record)]) -> Result<CommandVersion, Error> {
        self.update_above(changes, CommandVersion(0)).await
    }

    /// Write an operation as it is, so that its version is greater than `above` and than all before.
    pub async fn raise(&self, stored: &Stored, above: CommandVersion) -> Result<CommandVersion, Error> {
        self.update_above(&[(stored, &stored.record)], above).await
    }

    async fn update_above(
        &self,
        changes: &[(&Stored, &Record)],
        above: CommandVersion,
    ) -> Result<CommandVersion, Error> {
        let mut txn = Txn { above: Revision(above.0), ..Txn::default() };
        for (before, after) in changes {
            let key = operation_key(before.id());
            txn = txn.check(&key, Revision(before.version.0)).put(&key, codec::encode(&key, after)?);
            if after.operation.state.ended() && !before.operation().state.ended() {
                for busy in busy_keys(&after.operation) {
                    txn = txn.delete(busy);
                }
            }
        }
        Ok(CommandVersion(self.store.commit(txn).await?.0))
    }

    /// Remove an operation that ended, and its place in its batch. With the last one of a batch the batch goes, and the
    /// request that started it, if that carried an id.
    pub async fn forget(&self, stored: &Stored, request: Option<&String>) -> Result<(), Error> {
        let key = operation_key(stored.id());
        let mut txn = Txn::default().check(&key, Revision(stored.version.0)).delete(&key);
        let batch = format!("batch/{}", stored.operation().batch);
        if let Some(found) = self.store.get(&batch).await? {
            let mut ids: Vec<OperationId> = codec::decode(&batch, &found.value)?;
            ids.retain(|id| id != stored.id());
            txn = txn.check(&batch, found.version);
            txn = match ids.is_empty() {
                false => txn.put(&batch, codec::encode(&batch, &ids)?),
                true => request.into_iter().fold(txn.delete(&batch), |txn, id| txn.delete(format!("{REQUESTS}{id}"))),
            };
        }
        self.store.commit(txn).await.map(drop)
    }

    /// The ids of the requests that carried one, by the batch each started.
    pub async fn requests(&self) -> Result<HashMap<String, String>, Error> {
        let mut all = HashMap::new();
        let mut page = Page::first(PAGE);
        loop {
            let entries = self.store.list(REQUESTS, page.clone()).await?;
            let full = entries.len() == PAGE;
            for entry in entries {
                let request: RequestRecord = codec::decode(&entry.key, &entry.versioned.value)?;
                all.insert(request.batch, entry.key[REQUESTS.len()..].to_owned());
                page.after = Some(entry.key);
            }
            if !full {
                return Ok(all);
            }
        }
    }

    /// The operations of a batch in the order of the request; empty if it is unknown.
    pub async fn batch(&self, batch: &str) -> Result<Vec<OperationId>, Error> {
        Ok(self.read(&format!("batch/{batch}")).await?.unwrap_or_default())
    }

    /// A request that carried this id.
    pub async fn request(&self, id: &str) -> Result<Option<RequestRecord>, Error> {
        self.read(&format!("{REQUESTS}{id}")).await
    }

    /// A registered instance and the version of its record.
    pub async fn instance(&self, name: &InstanceName) -> Result<Option<(InstanceRecord, u64)>, Error> {
        let key = instance_key(name);
        let Some(found) = self.store.get(&key).await? else {
            return Ok(None);
        };
        Ok(Some((codec::decode(&key, &found.value)?, found.version.0)))
    }

    /// All registered instances by name.
    pub async fn instances(&self) -> Result<Vec<(InstanceRecord, u64)>, Error> {
        let mut all = Vec::new();
        let mut page = Page::first(PAGE);
        loop {
            let entries = self.store.list(INSTANCES, page.clone()).await?;
            let full = entries.len() == PAGE;
            for entry in entries {
                all.push((codec::decode(&entry.key, &entry.versioned.value)?, entry.versioned.version.0));
                page.after = Some(entry.key);
            }
            if !full {
                return Ok(all);
            }
        }
    }

    /// Register or replace an instance.
    pub async fn put_instance(&self, instance: &InstanceRecord) -> Result<u64, Error> {
        let key = instance_key(&instance.name);
        let value = codec::encode(&key, instance)?;
        Ok(self.store.commit(Txn::default().put(key, value)).await?.0)
    }

    /// Forget an instance.
    pub async fn remove_instance(&self, name: &InstanceName) -> Result<(), Error> {
        self.store.commit(Txn::default().delete(instance_key(name))).await?;
        Ok(())
    }

    /// Every change of operations from now on, those of one commit together.
    pub fn changes(&self) -> BoxStream<'static, OperationChanges> {
        self.store
            .watch(OPERATIONS)
            .filter_map(|commit| {
                let stored = commit.and_then(|commit| {
                    // Only operations that ended are removed; whoever followed one was told its end.
                    let put =
                        commit.into_iter().filter_map(|change| Some((change.key, change.revision, change.value?)));
                    put.map(|(key, revision, value)| {
                        let record = codec::decode(&key, &value)?;
                        Ok(Stored { version: CommandVersion(revision.0), record })
                    })
                    .collect::<OperationChanges>()
                });
                std::future::ready(Some(stored).filter(|stored| !matches!(stored, Ok(none) if none.is_empty())))
            })
            .boxed()
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        match self.store.get(key).await? {
            Some(found) => Ok(Some(codec::decode(key, &found.value)?)),
            None => Ok(None),
        }
    }
}
