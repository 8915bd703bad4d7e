//! What stands in the way of copying or moving a database, what to know before, and what it needs at its destination.

mod budget;
mod database;
pub(super) mod needs;
mod server;

use super::{Inner, instance, names::Names};
use crate::{
    Result,
    postgres::{
        payload::encode,
        rows::{Row, rows},
        sql::{Sql, literal},
    },
    source::{DatabaseInfo, SourceFacts},
};
use bytes::Bytes;
use handover::{
    DatabaseName, Finding, Incarnation, Kind, OperationId, Side,
    source_role::{Phase, SourceRole},
};

/// What the examination knows of the database before it connects to it.
struct Subject<'a> {
    name: &'a str,
    kind: Kind,
    row: Row,
    /// The slot of the operation on whose behalf it is made.
    slot: Option<String>,
}

pub(super) async fn preflight(
    inner: &Inner,
    name: &DatabaseName,
    kind: Kind,
    operation: Option<&OperationId>,
) -> Result<SourceFacts> {
    let sql = inner.maintenance("source preflight").await?;
    let roles: Vec<SourceRole> = inner.store.roles().await?;
    let own = operation.and_then(|o| roles.iter().find(|role| role.operation == *o && role.database == *name));
    let mut findings = vec![];
    if let Some(other) = roles.iter().find(|r| r.database == *name && Some(&r.operation) != operation && active(r)) {
        findings.push(error(
            "OPERATION_EXISTS",
            format!("operation {} works on {name} at this instance", other.operation),
            "wait until that operation has ended, or cancel it",
        ));
    }
    let Some(row) = listed(&sql, Some(name.as_str())).await?.into_iter().next() else {
        return nothing(inner, name, findings).await;
    };
    let incarnation = instance::incarnation(&sql, name.as_str()).await?;
    let Some(incarnation) = incarnation else { return nothing(inner, name, findings).await };
    let fenced = own.is_some_and(SourceRole::may_be_fenced);
    let subject = Subject { name: name.as_str(), kind, row, slot: own.map(|role| Names::of(&role.operation).slot) };
    let version = server::examine(inner, &sql, &subject, &mut findings).await?;
    findings.extend(of_listed(inner, name.as_str(), &subject.row, fenced));
    let facts = |findings, requirements, seed_bytes| SourceFacts { findings, requirements, incarnation, seed_bytes };
    let size = subject.row.parse(1)?;
    // What cannot be connected to cannot be looked into, and is not moved either.
    if fenced || findings.iter().any(|f| ["NOT_CONNECTABLE", "SYSTEM_DATABASE", "RIGHTS"].contains(&&*f.code)) {
        return Ok(facts(findings, Bytes::new(), size));
    }
    let inside = inner.sql(name.as_str(), "source preflight").await?;
    database::examine(&inside, &subject, own.is_some(), &mut findings).await?;
    let requirements = needs::read(&sql, &inside, &subject, version).await?;
    Ok(facts(findings, encode(&requirements)?, size))
}

/// The answer for a name that nothing has: there is nothing that could be moved, and the findings say so; the rest is form.
async fn nothing(inner: &Inner, name: &DatabaseName, mut findings: Vec<Finding>) -> Result<SourceFacts> {
    let (message, remedy) = match inner.store.moved(name.as_str()).await? {
        Some(to) => (format!("{name} was moved from this instance to {to}"), format!("look for it at {to}")),
        None => {
            let remedy = "list the databases of the instance and check the spelling".to_owned();
            (format!("there is no database {name} in this instance"), remedy)
        }
    };
    findings.push(error("DATABASE_NOT_FOUND", message, remedy));
    let incarnation = Incarnation::parse("none").map_err(|e| crate::Error::Internal(e.to_string()))?;
    Ok(SourceFacts { findings, requirements: Bytes::new(), incarnation, seed_bytes: 0 })
}

/// Whether a role stands in the way of another operation on the same database.
fn active(role: &SourceRole) -> bool {
    !matches!(role.phase, Phase::Released { .. })
}

/// The databases of the instance: name, size, connections allowed, template, subscriptions, prepared transactions, slots.
async fn listed(sql: &Sql, name: Option<&str>) -> Result<Vec<Row>> {
    let which = name.map_or_else(String::new, |name| format!(" WHERE d.datname = {}", literal(name)));
    let query = format!(
        "SELECT d.datname, pg_database_size(d.oid), d.datallowconn, d.datistemplate,
                (SELECT count(*) FROM pg_subscription s WHERE s.subdbid = d.oid),
                (SELECT count(*) FROM pg_prepared_xacts p WHERE p.database = d.datname),
                (SELECT to_json(array_agg(s.slot_name ORDER BY s.slot_name)) FROM pg_replication_slots s
                 WHERE s.database = d.datname AND s.slot_type = 'logical' AND NOT starts_with(s.slot_name, 'causeway_')),
                d.datconnlimit, d.oid
         FROM pg_database d{which} ORDER BY d.datname"
    );
    rows(sql, "list the databases", &query).await
}

/// Whether it is the server's or the agents' own.
fn is_system(inner: &Inner, name: &str, row: &Row) -> bool {
    row.flag(3) || name == "postgres" || name == inner.config.maintenance()
}

/// What the list of databases tells already.
fn of_listed(inner: &Inner, name: &str, row: &Row, fenced: bool) -> Vec<Finding> {
    let mut findings = vec![];
    if is_system(inner, name, row) {
        findings.push(error(
            "SYSTEM_DATABASE",
            format!("{name} is a template or the agents' maintenance database"),
            "move a user database; to move this one, give the agents another maintenance database",
        ));
    }
    if !row.flag(2) && !fenced {
        findings.push(error(
            "NOT_CONNECTABLE",
            format!("{name} does not accept connections"),
            "ALTER DATABASE ... ALLOW_CONNECTIONS true, then start again",
        ));
    }
    if row.text(4) != "0" {
        findings.push(error(
            "SUBSCRIPTION",
            format!("{name} is the subscriber of {} subscriptions", row.text(4)),
            "drop the subscriptions, or end the replication that they belong to, then start again",
        ));
    }
    if row.text(5) != "0" {
        findings.push(error(
            "PREPARED_TRANSACTIONS",
            format!("{} prepared transactions are open in {name}", row.text(5)),
            "COMMIT PREPARED or ROLLBACK PREPARED them, then start again",
        ));
    }
    let slots = row.list(6).unwrap_or_default();
    if !slots.is_empty() {
        findings.push(warning(
            "LOGICAL_SLOTS",
            format!("others read the log of {name} through slots that are not moved: {}", slots.join(", ")),
            "set them up again at the destination when the operation has ended (change data capture, subscribers)",
        ));
    }
    findings
}

pub(super) async fn databases(inner: &Inner) -> Result<Vec<DatabaseInfo>> {
    let sql = inner.maintenance("source list").await?;
    let roles: Vec<SourceRole> = inner.store.roles().await?;
    let incoming = inner.store.incoming().await?;
    let mut found = vec![];
    for row in listed(&sql, None).await? {
        let name = row.text(0);
        // What nobody moves is not listed.
        let Ok(parsed) = DatabaseName::parse(name) else { continue };
        if is_system(inner, name, &row) {
            continue;
        }
        let role = roles.iter().find(|role| role.database == parsed && active(role));
        let fenced = role.is_some_and(|role| matches!(role.phase, Phase::Fencing { .. } | Phase::Fenced { .. }));
        let state = match () {
            () if incoming.iter().any(|database| database == name) => "incoming",
            () if fenced => "fenced",
            () if !row.flag(2) => "closed",
            () => "online",
        };
        let findings = match state {
            "incoming" => vec![],
            _ => of_listed(inner, name, &row, role.is_some_and(SourceRole::may_be_fenced)),
        };
        found.push(DatabaseInfo { name: parsed, size_bytes: row.parse(1)?, state: state.to_owned(), findings });
    }
    Ok(found)
}

fn error(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::error(Side::Source, code, message, remedy)
}

fn warning(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::warning(Side::Source, code, message, remedy)
}
