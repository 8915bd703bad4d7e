//! What tells a database from another one of the same name.

use crate::{
    Error, Result,
    postgres::rows::{Row, one, rows},
    postgres::sql::literal,
};
use handover::{Incarnation, source_role::SourceRole};
use tokio_postgres::Client;

/// A timeline grows when a standby is promoted or a backup restored: then transactions may be missing, or be others.
const INCARNATION: &str = "SELECT s.system_identifier, c.timeline_id, d.oid
     FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d WHERE d.datname = ";

/// The incarnation of a database; nothing if there is none of that name. `client` is with any database of the instance.
pub(super) async fn incarnation(client: &Client, database: &str) -> Result<Option<Incarnation>> {
    let query = format!("{INCARNATION}{}", literal(database));
    let found = rows(client, "identify the database", &query).await?;
    found.first().map(read).transpose()
}

fn read(row: &Row) -> Result<Incarnation> {
    let text = format!("{}/{}/{}", row.text(0), row.text(1), row.text(2));
    Incarnation::parse(&text).map_err(|error| Error::Internal(format!("identify the database: {error}")))
}

/// The OID in an incarnation.
pub(super) fn oid(incarnation: &Incarnation) -> Option<u32> {
    incarnation.as_str().rsplit('/').next().and_then(|oid| oid.parse().ok())
}

/// Fails unless the database of a role is the one with which the operation began.
pub(super) async fn check(client: &Client, role: &SourceRole) -> Result<()> {
    match incarnation(client, role.database.as_str()).await? {
        Some(found) if found == role.incarnation => Ok(()),
        Some(found) => Err(Error::Incarnation(format!("it was {}, it is {found}", role.incarnation))),
        None => Err(Error::NoDatabase(role.database.to_string())),
    }
}

/// Whether the very database of a role is still there.
pub(super) async fn is_there(client: &Client, role: &SourceRole) -> Result<bool> {
    let Some(oid) = oid(&role.incarnation) else { return Ok(false) };
    let query =
        format!("SELECT count(*) FROM pg_database WHERE oid = {oid} AND datname = {}", literal(role.database.as_str()));
    Ok(one(client, "look for the database", &query).await?.text(0) == "1")
}
