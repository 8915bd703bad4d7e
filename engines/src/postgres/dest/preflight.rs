//! What stands in the way of taking a database in.

mod extensions;
mod locale;
mod roles;
mod space;

pub(super) use roles::missing as missing_roles;

use super::{
    super::{
        payload::{self, FORMAT, Requirements},
        sql::{Sql, failed},
    },
    Shared, database,
    memo::Memo,
};
use crate::Result;
use handover::{
    DatabaseName, Finding, OperationId, Side,
    dest_role::{DestRole, Phase},
};

/// The oldest server that has all that is used here.
const VERSION_MIN: u32 = 130_000;

pub(super) async fn preflight(
    shared: &Shared,
    database: &DatabaseName,
    requirements: &[u8],
    operation: Option<&OperationId>,
) -> Result<Vec<Finding>> {
    // A source that has nothing to say about the database has said why in its own findings.
    let requirements: Option<Requirements> = match requirements {
        [] => None,
        bytes => Some(payload::decode(bytes)?),
    };
    if let Some(wanted) = &requirements
        && wanted.format != FORMAT
    {
        // What follows would judge what it may have misread.
        let message =
            format!("the source agent speaks version {} of the engine's format, this one {FORMAT}", wanted.format);
        return Ok(vec![error("FORMAT_DIFFERS", message, "install the same release of Causeway at both")]);
    }
    let sql = shared.maintenance().await?;
    let mut findings = vec![];
    findings.extend(standby(&sql).await?);
    let superuser = superuser(&sql).await?;
    findings.extend(superuser.clone());
    findings.extend(taken(shared, &sql, database, operation).await?);
    findings.extend(connections(shared, &sql).await?);
    if let Some(wanted) = &requirements {
        let version = server_version(&sql).await?;
        findings.extend(version_older(version, wanted.server_version));
        findings.extend(roles::judge(&sql, wanted, shared.config.setup().create_missing_roles).await?);
        findings.extend(extensions::judge(&sql, wanted).await?);
        findings.extend(tablespaces(&sql, wanted).await?);
        // Only a superuser sees where the data are, and only one that can write can try a locale.
        if superuser.is_none() && findings.iter().all(|finding| finding.code != "STANDBY") {
            findings.extend(locale::judge(&sql, &wanted.locale).await?);
            findings.extend(space::judge(shared, &sql, wanted, operation).await?);
        }
    }
    Ok(findings)
}

fn error(code: &str, message: impl Into<String>, remedy: &str) -> Finding {
    Finding::error(Side::Dest, code, message, remedy)
}

fn warning(code: &str, message: impl Into<String>, remedy: &str) -> Finding {
    Finding::warning(Side::Dest, code, message, remedy)
}

/// `server_version_num`.
pub(super) async fn server_version(sql: &Sql) -> Result<u32> {
    let row = sql.query_one("SELECT current_setting('server_version_num')::int", &[]).await;
    let version: i32 = row.map_err(|error| failed("read the server's version", &error))?.get(0);
    Ok(version.unsigned_abs())
}

fn version_older(ours: u32, theirs: u32) -> Option<Finding> {
    if ours < VERSION_MIN {
        let message = format!("the destination is PostgreSQL {}, which is too old", ours / 10_000);
        return Some(error("SERVER_TOO_OLD", message, "use PostgreSQL 13 or newer"));
    }
    (ours / 10_000 < theirs / 10_000).then(|| {
        let message = format!("the destination is PostgreSQL {}, the source is {}", ours / 10_000, theirs / 10_000);
        error("SERVER_OLDER", message, "take a destination of the source's major version or a newer one")
    })
}

async fn standby(sql: &Sql) -> Result<Option<Finding>> {
    let row = sql.query_one("SELECT pg_is_in_recovery()", &[]).await;
    let standby: bool = row.map_err(|error| failed("ask whether the server is a standby", &error))?.get(0);
    Ok(standby.then(|| {
        error("STANDBY", "the destination is a standby, which takes no writes", "name the primary as the instance")
    }))
}

async fn superuser(sql: &Sql) -> Result<Option<Finding>> {
    let row = sql.query_one("SELECT rolsuper, rolname::text FROM pg_roles WHERE rolname = current_user", &[]).await;
    let row = row.map_err(|error| failed("read the agent's own role", &error))?;
    Ok((!row.get::<_, bool>(0)).then(|| {
        let message = format!(
            "the destination agent's role {:?} is no superuser; it lacks the right to set session_replication_role, to create \
             objects for other owners, and to end sessions of superusers",
            row.get::<_, String>(1)
        );
        error("NOT_SUPERUSER", message, "give the agent a role with SUPERUSER at the destination")
    }))
}

async fn taken(
    shared: &Shared,
    sql: &Sql,
    database: &DatabaseName,
    operation: Option<&OperationId>,
) -> Result<Option<Finding>> {
    if database.as_str().len() > database::NAME_BYTES_MAX {
        let message = format!("a name of PostgreSQL has at most {} bytes", database::NAME_BYTES_MAX);
        return Ok(Some(error("NAME_TOO_LONG", message, "check the spelling")));
    }
    if let Some(other) = other_of(&shared.store.roles().await?, database, operation) {
        let message = format!("operation {other} makes or made a database {database:?} here and is not yet forgotten");
        return Ok(Some(error("OPERATION_EXISTS", message, "let it end, or cancel it, then start again")));
    }
    let Some(oid) = database::oid_of(sql, database.as_str()).await? else { return Ok(None) };
    let memo: Option<Memo> = match operation {
        Some(operation) => shared.store.memo(operation).await?,
        None => None,
    };
    if memo.is_some_and(|memo| memo.oid == Some(oid)) {
        return Ok(None);
    }
    let message = format!("the destination has a database {database:?} already");
    Ok(Some(error("NAME_TAKEN", message, "rename or remove it, or move it away first")))
}

/// The operation other than `operation` that makes or made a database of this name.
pub(super) fn other_of(
    roles: &[DestRole],
    database: &DatabaseName,
    operation: Option<&OperationId>,
) -> Option<OperationId> {
    let other = roles
        .iter()
        .find(|r| r.database == *database && Some(&r.operation) != operation && r.phase != Phase::Discarded);
    other.map(|role| role.operation.clone())
}

async fn connections(shared: &Shared, sql: &Sql) -> Result<Option<Finding>> {
    // Superusers may use the reserved ones.
    let free = "SELECT current_setting('max_connections')::int - count(*)::int FROM pg_stat_activity
         WHERE backend_type = 'client backend'";
    let row = sql.query_one(free, &[]).await.map_err(|error| failed("count connections", &error))?;
    let (free, needed) = (row.get::<_, i32>(0), super::connections_max(&shared.config) as i32);
    Ok((free < needed).then(|| {
        let message = format!("the destination has {free} connections left, an operation uses up to {needed}");
        error("TOO_FEW_CONNECTIONS", message, "raise max_connections, or end sessions that are not needed")
    }))
}

async fn tablespaces(sql: &Sql, wanted: &Requirements) -> Result<Option<Finding>> {
    let missing = "SELECT array_agg(name) FROM unnest($1::text[]) name
         WHERE NOT EXISTS (SELECT FROM pg_tablespace WHERE spcname = name::name)";
    let row = sql.query_one(missing, &[&wanted.tablespaces]).await;
    let missing: Option<Vec<String>> = row.map_err(|error| failed("look for tablespaces", &error))?.get(0);
    Ok(missing.map(|names| {
        let message = format!("the destination has no tablespace {}", listed(&names));
        error("TABLESPACE_MISSING", message, "create them with CREATE TABLESPACE, each on the disk it should be on")
    }))
}

/// Names for a sentence; of many the first.
fn listed(names: &[String]) -> String {
    const SHOWN_MAX: usize = 20;
    let mut shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("{name:?}")).collect();
    if names.len() > SHOWN_MAX {
        shown.push(format!("and {} more", names.len() - SHOWN_MAX));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_older_are_found() {
        let code = |ours, theirs| version_older(ours, theirs).map(|finding| finding.code);
        assert_eq!(code(150_001, 150_018), None, "a minor version does not matter");
        assert_eq!(code(170_000, 150_018), None);
        assert_eq!(code(140_000, 150_018), Some("SERVER_OLDER".to_owned()));
        assert_eq!(code(120_000, 110_000), Some("SERVER_TOO_OLD".to_owned()));
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..25).map(|n| n.to_string()).collect();
        assert!(listed(&names).ends_with("\"19\", and 5 more"));
        assert_eq!(listed(&names[..1]), "\"0\"");
    }
}
