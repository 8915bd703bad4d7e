//! The coordinator's own rules, each with its code, sentence and remedy.

use handover::{DatabaseName, Finding, InstanceName, OperationId, Side};

use super::Wish;
use crate::{config::Limits, store::InstanceRecord};

fn error(code: &str, message: String, remedy: String) -> Finding {
    Finding::error(Side::Coordinator, code, message, remedy)
}

/// The rules about the two instances.
pub(super) fn instances(
    limits: &Limits,
    wish: &Wish,
    source: Option<&InstanceRecord>,
    dest: Option<&InstanceRecord>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (from, to) = (&wish.source, &wish.destination);
    for (name, found, what) in [(from, source, "source"), (to, dest, "destination")] {
        if found.is_none() {
            let message = format!("the {what} instance {name} is not known");
            let remedy = "register it with `causeway instance register`, or correct the name".to_owned();
            findings.push(error("INSTANCE_UNKNOWN", message, remedy));
        }
    }
    if from == to {
        let message = format!("source and destination are the same instance, {from}");
        findings.push(error("SAME_INSTANCE", message, "choose another destination instance".to_owned()));
    }
    if let Some(source) = source
        && source.source_agent.is_empty()
    {
        let message = format!("instance {from} has no source agent, so it can only be a destination");
        let remedy = format!("run a source agent beside {from} and register its address");
        findings.push(error("NO_SOURCE_AGENT", message, remedy));
    }
    if let Some(dest) = dest
        && dest.dest_agent.is_empty()
    {
        let message = format!("instance {to} has no destination agent, so it can only be a source");
        let remedy = format!("run a destination agent beside {to} and register its address");
        findings.push(error("NO_DEST_AGENT", message, remedy));
    }
    if let (Some(source), Some(dest)) = (source, dest)
        && from != to
    {
        findings.extend(pair(limits, source, dest));
    }
    for instance in [source, dest.filter(|_| from != to)].into_iter().flatten() {
        if !instance.failover_group.is_empty() {
            let message = format!("instance {} is part of failover group {}", instance.name, instance.failover_group);
            let remedy = "take the instance out of the failover group first, or use another instance".to_owned();
            findings.push(error("IN_FAILOVER_GROUP", message, remedy));
        }
    }
    findings
}

/// What must be equal on both sides.
fn pair(limits: &Limits, source: &InstanceRecord, dest: &InstanceRecord) -> Vec<Finding> {
    let mut findings = Vec::new();
    let differ = |what: &str, a: &str, b: &str| {
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        format!("the {what} differs: {} has {}, {} has {}", source.name, shown(a), dest.name, shown(b))
    };
    if source.engine != dest.engine {
        let message = differ("engine", &source.engine, &dest.engine);
        findings.push(error("ENGINES_DIFFER", message, "choose a destination with the source's engine".to_owned()));
    }
    if source.subscription != dest.subscription && !limits.allow_cross_subscription {
        let message = differ("subscription", &source.subscription, &dest.subscription);
        let remedy =
            "choose a destination in the same subscription, or run the coordinator with --allow-cross-subscription";
        findings.push(error("SUBSCRIPTIONS_DIFFER", message, remedy.to_owned()));
    }
    if source.region != dest.region && !limits.allow_cross_region {
        let message = differ("region", &source.region, &dest.region);
        let remedy = "choose a destination in the same region, or run the coordinator with --allow-cross-region";
        findings.push(error("REGIONS_DIFFER", message, remedy.to_owned()));
    }
    findings
}

/// The quota of operations that have not ended.
pub(super) fn quota(limits: &Limits, active: usize, more: usize) -> Option<Finding> {
    let max = limits.active_max;
    if active.saturating_add(more) <= max {
        return None;
    }
    let message = format!("{active} operations are under way and {more} more would exceed the limit of {max}");
    let remedy = "wait until some have ended, or run the coordinator with a higher --active-max".to_owned();
    Some(error("TOO_MANY_OPERATIONS", message, remedy))
}

/// Whether a database takes part in an operation already, at either end.
pub(super) fn busy(
    wish: &Wish,
    database: &DatabaseName,
    at_source: &[(DatabaseName, OperationId)],
    at_dest: &[(DatabaseName, OperationId)],
) -> Vec<Finding> {
    let taken = |busy: &[(DatabaseName, OperationId)]| {
        busy.iter().find(|(name, _)| name == database).map(|(_, operation)| operation.clone())
    };
    let (at_source, at_dest) = (taken(at_source), taken(at_dest));
    // One operation that has it at both ends is told once.
    let at_dest = at_dest.filter(|operation| at_source.as_ref() != Some(operation));
    let of_source = at_source.iter().map(|operation| busy_finding(&wish.source, database, operation));
    let of_dest = at_dest.iter().map(|operation| busy_finding(&wish.destination, database, operation));
    of_source.chain(of_dest).collect()
}

/// The finding about a database that is taken.
pub fn busy_finding(instance: &InstanceName, database: &DatabaseName, operation: &OperationId) -> Finding {
    let message = format!("database {database} at instance {instance} takes part in operation {operation} already");
    let remedy = format!("wait until operation {operation} has ended, or cancel it");
    error("DATABASE_BUSY", message, remedy)
}

#[cfg(test)]
mod tests;
