//! Registering, listing and removing instances.

use handover::{InstanceName, OperationId};
use proto::v1;

use super::{
    error::Error,
    fields::{Fields, checked},
    wire,
};
use crate::{
    auth::{Caller, Reader},
    core::Core,
    instances::{Known, violations},
    store::InstanceRecord,
};

pub(super) async fn register(
    core: &Core,
    caller: &Caller,
    request: v1::RegisterInstanceRequest,
) -> Result<v1::RegisterInstanceResponse, Error> {
    let record = read(request.instance)?;
    let _gate = core.gate.lock().await;
    caller.may_register(core, &record).await?;
    if core.instances.configured(&record.name) {
        return Err(Error::InstanceFromConfig(record.name));
    }
    let known = core.records.instance(&record.name).await?;
    let version = match known {
        // Registering what is registered is no change, also while it is in use.
        Some((same, version)) if same == record => version,
        Some(_) => {
            unused(core, &record.name).await?;
            core.records.put_instance(&record).await?
        }
        None => core.records.put_instance(&record).await?,
    };
    tracing::info!(instance = %record.name, by = %caller, "instance registered");
    let known = Known { record, version, from_config: false };
    Ok(v1::RegisterInstanceResponse { instance: Some(wire::instance(&known)) })
}

/// An instance that has to be known.
pub(super) async fn registered(core: &Core, name: &InstanceName) -> Result<InstanceRecord, Error> {
    match core.instances.get(name).await? {
        Some(known) => Ok(known.record),
        None => Err(Error::InstanceNotFound(name.clone())),
    }
}

pub(super) async fn list(core: &Core, caller: &Caller) -> Result<v1::ListInstancesResponse, Error> {
    let reader = Reader::new(caller);
    let all = core.instances.all().await?;
    let instances = all.iter().filter(|known| reader.sees_instance(&known.record)).map(wire::instance).collect();
    Ok(v1::ListInstancesResponse { instances })
}

pub(super) async fn remove(
    core: &Core,
    caller: &Caller,
    request: v1::RemoveInstanceRequest,
) -> Result<v1::RemoveInstanceResponse, Error> {
    let mut fields = Fields::default();
    let name = fields.instance("name", &request.name);
    fields.check()?;
    let name = checked(name, "name")?;
    let _gate = core.gate.lock().await;
    caller.may_remove(core, &name).await?;
    if core.instances.configured(&name) {
        return Err(Error::InstanceFromConfig(name));
    }
    if core.records.instance(&name).await?.is_none() {
        return Err(Error::InstanceNotFound(name));
    }
    unused(core, &name).await?;
    core.records.remove_instance(&name).await?;
    tracing::info!(instance = %name, by = %caller, "instance removed");
    Ok(v1::RemoveInstanceResponse {})
}

async fn unused(core: &Core, name: &InstanceName) -> Result<(), Error> {
    let busy = core.records.busy_at(name).await?;
    if busy.is_empty() {
        return Ok(());
    }
    let operations: Vec<OperationId> = busy.into_iter().map(|(_, id)| id).collect();
    Err(Error::InstanceInUse { instance: name.clone(), operations })
}

fn read(instance: Option<v1::Instance>) -> Result<InstanceRecord, Error> {
    let mut fields = Fields::default();
    let Some(wire) = instance else {
        fields.wrong("instance", "it is missing");
        fields.check()?;
        return checked(None, "instance");
    };
    let name = fields.instance("instance.name", &wire.name);
    // The other fields are judged whatever the name is.
    let stand_in = InstanceName::parse("unnamed").ok();
    let record = InstanceRecord {
        name: checked(name.or(stand_in), "instance.name")?,
        engine: wire.engine,
        source_agent: wire.source_agent,
        dest_agent: wire.dest_agent,
        transfer_address: wire.transfer_address,
        subscription: wire.subscription,
        resource_group: wire.resource_group,
        region: wire.region,
        failover_group: wire.failover_group,
        source_identity: wire.source_identity,
        dest_identity: wire.dest_identity,
    };
    for (field, problem) in violations(&record) {
        fields.wrong(&format!("instance.{field}"), problem);
    }
    fields.check()?;
    Ok(record)
}
