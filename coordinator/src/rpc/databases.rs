//! The databases of an instance, as its agents see them.

use std::collections::HashMap;

use handover::DatabaseName;
use proto::{convert, v1};

use super::{
    error::Error,
    fields::{Fields, checked},
    instances::registered,
};
use crate::{
    agents::{DatabaseInfo, Half},
    auth::{Caller, Reader},
    core::Core,
    store::InstanceRecord,
};

pub(super) async fn list(
    core: &Core,
    caller: &Caller,
    request: v1::ListDatabasesRequest,
) -> Result<v1::ListDatabasesResponse, Error> {
    let mut fields = Fields::default();
    let name = fields.instance("instance", &request.instance);
    fields.check()?;
    let name = checked(name, "instance")?;
    caller.may_look_into(core, &name).await?;
    let instance = registered(core, &name).await?;
    let mut reader = Reader::new(caller);
    let mut databases = Vec::new();
    for database in ask(core, &instance).await? {
        // A name that is none here, because an engine allows more than we do, falls under the rights of its instance.
        match DatabaseName::parse(&database.name) {
            Ok(name) if !reader.reads(core, &instance.name, &name).await? => reader.hides(),
            _ => databases.push(database),
        }
    }
    let busy: HashMap<String, String> = core
        .records
        .busy_at(&instance.name)
        .await?
        .into_iter()
        .map(|(database, operation)| (database.to_string(), operation.to_string()))
        .collect();
    let databases = databases
        .into_iter()
        .map(|database| v1::Database {
            operation: busy.get(&database.name).cloned().unwrap_or_default(),
            name: database.name,
            size_bytes: database.size_bytes,
            state: database.state,
            findings: database.findings.iter().map(convert::finding_to_wire).collect(),
        })
        .collect();
    Ok(v1::ListDatabasesResponse { databases })
}

/// Ask the source agent, and if there is none or it does not answer, the destination agent.
async fn ask(core: &Core, instance: &InstanceRecord) -> Result<Vec<DatabaseInfo>, Error> {
    let first = match instance.source_agent.is_empty() {
        true => None,
        false => Some(async { core.agents.source(instance)?.databases().await }.await),
    };
    match first {
        Some(Ok(databases)) => Ok(databases),
        Some(Err(error)) if instance.dest_agent.is_empty() || !error.unreachable() => Err(error.into()),
        Some(Err(_)) | None => Ok(core.agents.dest(instance)?.databases().await?),
    }
}

pub(super) async fn purge(
    core: &Core,
    caller: &Caller,
    request: v1::PurgeDatabaseRequest,
) -> Result<v1::PurgeDatabaseResponse, Error> {
    let mut fields = Fields::default();
    let instance = fields.instance("instance", &request.instance);
    let database = fields.take(convert::database_name("database", &request.database));
    fields.check()?;
    let (instance, database) = (checked(instance, "instance")?, checked(database, "database")?);
    caller.may_purge(core, &instance, &database).await?;
    let instance = registered(core, &instance).await?;
    if instance.dest_agent.is_empty() {
        return Err(Error::NoAgent { instance: instance.name, half: Half::Dest });
    }
    if let Some(operation) = core.records.busy_with(&instance.name, &database).await? {
        let (instance, database) = (instance.name, database.to_string());
        return Err(Error::DatabaseBusy { instance, database, operation });
    }
    core.agents.dest(&instance)?.purge(&database).await?;
    tracing::info!(instance = %instance.name, %database, by = %caller, "tombstone removed");
    Ok(v1::PurgeDatabaseResponse {})
}
