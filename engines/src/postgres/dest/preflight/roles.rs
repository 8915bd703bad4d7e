//! Roles that own something or are granted something, and are not there.

use super::{error, listed, warning};
use crate::{
    Result,
    postgres::{
        payload::{Requirements, Role},
        sql::{Sql, failed},
    },
};
use handover::Finding;
use tokio_postgres::Client;

pub(super) async fn judge(sql: &Sql, wanted: &Requirements, create: bool) -> Result<Vec<Finding>> {
    let missing = missing(sql, &wanted.roles).await?;
    let mut findings = vec![];
    if missing.is_empty() {
        return Ok(findings);
    }
    let names: Vec<String> = missing.iter().map(|role| role.name.clone()).collect();
    let message = format!("the destination has no role {}", listed(&names));
    if !create {
        let remedy =
            "create them, for example with pg_dumpall --roles-only, or start the agent with --create-missing-roles";
        return Ok(vec![error("ROLE_MISSING", message, remedy)]);
    }
    let remedy = "give them passwords afterwards: those do not travel";
    findings.push(warning("ROLE_CREATED", format!("{message}; they will be created without passwords"), remedy));
    let superusers: Vec<String> = missing.iter().filter(|role| role.superuser).map(|role| role.name.clone()).collect();
    if !superusers.is_empty() {
        let message =
            format!("{} are superusers at the source, and will not be at the destination", listed(&superusers));
        findings.push(warning("ROLE_NOT_SUPERUSER", message, "give them SUPERUSER yourself, if they should have it"));
    }
    Ok(findings)
}

/// Those of the roles that are not there.
pub(in super::super) async fn missing<'a>(sql: &Client, roles: &'a [Role]) -> Result<Vec<&'a Role>> {
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    let there = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1::text[]::name[])";
    let rows = sql.query(there, &[&names]).await.map_err(|error| failed("look for roles", &error))?;
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    // Names that are reserved are the server's own, as pg_read_all_data, which an older one may lack.
    Ok(roles.iter().filter(|role| !there.contains(&role.name)).collect())
}
