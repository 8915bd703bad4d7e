//! The replica as a database of the server: made under a name of ours, renamed into place, and taken away the same way back.
//!
//! `CREATE DATABASE` and `DROP DATABASE` cannot be one transaction with a record, but `ALTER DATABASE ... RENAME` can. So
//! a name that nobody else would use tells after any crash what is half made or half removed, and the name of the user is
//! given and taken together with the record.

use super::{
    super::{
        payload::{DatabaseProperties, Locale},
        sql::{APPLICATION, Sql, failed, ident, literal},
        store::Transaction,
    },
    Shared,
    memo::Memo,
};
use crate::{Error, Result};
use handover::{DatabaseName, OperationId};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, types::Type};

/// Sessions that are told to end do so within milliseconds, unless the machine is overloaded.
const END_TIME_MAX: Duration = Duration::from_secs(20);
/// Between two looks at sessions that are ending.
const END_PAUSE: Duration = Duration::from_millis(3);
/// PostgreSQL cuts longer names off, silently.
pub(super) const NAME_BYTES_MAX: usize = 63;
/// How the name of a database begins that is to be dropped; its OID follows, so nobody's database is taken for one.
const DOOMED: &str = "causeway dropped ";

/// The name of an operation's database as long as it is being made.
pub(super) fn incoming(operation: &OperationId) -> String {
    let name = format!("causeway incoming {operation}");
    match name.len() <= NAME_BYTES_MAX {
        true => name,
        false => format!("causeway incoming {:032x}", xxhash_rust::xxh3::xxh3_128(operation.as_str().as_bytes())),
    }
}

/// Whose sessions are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sessions {
    /// All but those of agents.
    Foreign,
    /// All.
    All,
}

/// The name of a database now.
pub(super) async fn name_of(sql: &Client, oid: u32) -> Result<Option<String>> {
    let row = sql.query_typed_opt("SELECT datname::text FROM pg_database WHERE oid = $1", &[(&oid, Type::OID)]).await;
    Ok(row.map_err(|error| failed("look for a database", &error))?.map(|row| row.get(0)))
}

/// The OID of the database with this name.
pub(super) async fn oid_of(sql: &Client, name: &str) -> Result<Option<u32>> {
    let row = sql.query_typed_opt("SELECT oid FROM pg_database WHERE datname = $1::name", &[(&name, Type::TEXT)]).await;
    Ok(row.map_err(|error| failed("look for a database", &error))?.map(|row| row.get(0)))
}

/// Ends sessions with a database and waits until they are gone.
pub(super) async fn end_sessions(sql: &Client, oid: u32, which: Sessions) -> Result<()> {
    let ours = match which {
        Sessions::Foreign => format!("{APPLICATION} "),
        // No name begins with it: one is at most 63 bytes long.
        Sessions::All => "-".repeat(NAME_BYTES_MAX + 1),
    };
    // A background worker of an extension that is connected holds the database like a client.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datid = $1 AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
           AND NOT starts_with(application_name, $2)";
    let until = Instant::now() + END_TIME_MAX;
    loop {
        let left = sql.query_typed(end, &[(&oid, Type::OID), (&ours, Type::TEXT)]).await;
        let left = left.map_err(|error| failed("end sessions of a replica", &error))?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Error::Busy(format!("{} sessions with the replica do not end", left.len())));
        }
        tokio::time::sleep(END_PAUSE).await;
    }
}

/// Makes the operation's database under its first name, empty and closed to all but superusers. One that is there already is
/// half made and goes.
pub(super) async fn create(
    shared: &Shared,
    operation: &OperationId,
    properties: &DatabaseProperties,
    version: u32,
) -> Result<u32> {
    let sql = shared.maintenance().await?;
    let name = incoming(operation);
    if let Some(oid) = oid_of(&sql, &name).await? {
        end_sessions(&sql, oid, Sessions::All).await?;
        drop_named(&sql, &name).await?;
    }
    sql.run("create the database", &create_statement(&name, properties, version)).await?;
    let oid = oid_of(&sql, &name).await?;
    oid.ok_or_else(|| Error::Busy("the database that was just made is gone: another agent removed it".to_owned()))
}

/// `CREATE DATABASE` with everything that cannot be changed afterwards. The owner comes with the flip: until then nobody but
/// superusers could drop it.
fn create_statement(name: &str, properties: &DatabaseProperties, version: u32) -> String {
    let Locale { encoding, collate, ctype, provider, icu_locale } = &properties.locale;
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 CONNECTION LIMIT 0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        ident(name),
        literal(encoding),
        literal(collate),
        literal(ctype)
    );
    let locale = icu_locale.as_deref().unwrap_or_default();
    match provider.as_str() {
        "i" => sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale)),
        "b" => sql += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale)),
        // A server whose own databases use another provider would otherwise take that.
        _ if version >= 150_000 => sql += " LOCALE_PROVIDER libc",
        _ => {}
    }
    if let Some(tablespace) = &properties.tablespace {
        sql += &format!(" TABLESPACE {}", ident(tablespace));
    }
    sql
}

/// Gives the database its name, in one transaction with the memo that knows its OID.
pub(super) async fn give_name(
    shared: &Shared,
    operation: &OperationId,
    database: &DatabaseName,
    memo: &Memo,
) -> Result<()> {
    let Some(oid) = memo.oid else { return Err(Error::Internal("a database without OID is to be named".to_owned())) };
    rename(shared, operation, oid, database.as_str(), memo).await
}

/// Takes a database of ours away, its name first; what is gone already is no error.
pub(super) async fn remove(shared: &Shared, operation: &OperationId, oid: u32, memo: &Memo) -> Result<()> {
    let doomed = format!("{DOOMED}{oid}");
    rename(shared, operation, oid, &doomed, memo).await?;
    let sql = shared.maintenance().await?;
    drop_named(&sql, &doomed).await
}

async fn rename(shared: &Shared, operation: &OperationId, oid: u32, name: &str, memo: &Memo) -> Result<()> {
    let sql = shared.maintenance().await?;
    let until = Instant::now() + END_TIME_MAX;
    loop {
        end_sessions(&sql, oid, Sessions::All).await?;
        let tx = shared.store.transaction("name a database").await?;
        match rename_in(&tx, oid, name).await {
            Ok(()) => {
                tx.set_memo(operation, memo).await?;
                return tx.commit().await;
            }
            // Somebody came in between; a name that is taken does not become free by itself.
            Err(error @ Error::NameTaken(_)) => return Err(error),
            Err(error) if error.retryable() && Instant::now() < until => {}
            Err(error) => return Err(error),
        }
    }
}

async fn rename_in(tx: &Transaction<'_>, oid: u32, name: &str) -> Result<()> {
    let Some(now) = name_of(tx, oid).await? else { return Ok(()) };
    if now == name {
        return Ok(());
    }
    let rename = format!("ALTER DATABASE {} RENAME TO {}", ident(&now), ident(name));
    tx.batch_execute(&rename).await.map_err(|error| match error.code() {
        Some(code) if code.code() == "42P04" => Error::NameTaken(name.to_owned()),
        _ => failed("name a database", &error),
    })
}

async fn drop_named(sql: &Sql, name: &str) -> Result<()> {
    sql.run("drop a database", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name))).await
}

/// Removes what an operation's database is as long as it is being made.
pub(super) async fn remove_incoming(shared: &Shared, operation: &OperationId) -> Result<()> {
    let sql = shared.maintenance().await?;
    let name = incoming(operation);
    if let Some(oid) = oid_of(&sql, &name).await? {
        end_sessions(&sql, oid, Sessions::All).await?;
        drop_named(&sql, &name).await?;
    }
    Ok(())
}

/// Drops every database whose removal was interrupted.
pub(super) async fn sweep(shared: &Shared) -> Result<()> {
    let sql = shared.maintenance().await?;
    let doomed = "SELECT datname::text FROM pg_database WHERE datname::text = $1::text || oid::text";
    let rows = sql.query(doomed, &[&DOOMED]).await.map_err(|error| failed("look for doomed databases", &error))?;
    for row in rows {
        drop_named(&sql, row.get(0)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_fit() {
        let uuid = OperationId::parse("0192f0c1-7e1c-7c3a-9a55-1f2e3d4c5b6a").expect("an id");
        assert_eq!(incoming(&uuid), format!("causeway incoming {uuid}"));
        let long = OperationId::parse(&"x".repeat(64)).expect("an id");
        assert!(incoming(&long).len() <= NAME_BYTES_MAX);
        assert!(format!("{DOOMED}{}", u32::MAX).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn a_database_is_made_as_the_source_has_it() {
        let properties = DatabaseProperties {
            locale: Locale {
                encoding: "UTF8".to_owned(),
                collate: "C".to_owned(),
                ctype: "C".to_owned(),
                provider: "i".to_owned(),
                icu_locale: Some("de-x-'quoted'".to_owned()),
            },
            tablespace: Some("fast \"disk\"".to_owned()),
            ..DatabaseProperties::default()
        };
        let sql = create_statement("a\"b", &properties, 150_000);
        assert!(sql.contains("\"a\"\"b\" TEMPLATE template0 CONNECTION LIMIT 0"), "{sql}");
        assert!(sql.contains("LOCALE_PROVIDER icu ICU_LOCALE 'de-x-''quoted'''"), "{sql}");
        assert!(sql.ends_with("TABLESPACE \"fast \"\"disk\"\"\""), "{sql}");
        let libc = Locale { provider: "c".to_owned(), ..properties.locale.clone() };
        let libc = DatabaseProperties { locale: libc, ..properties };
        assert!(create_statement("x", &libc, 150_000).contains("LOCALE_PROVIDER libc"));
        assert!(!create_statement("x", &libc, 140_000).contains("LOCALE_PROVIDER"));
    }
}
