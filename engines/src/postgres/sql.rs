//! Sessions for SQL that is not on the hot path, and the words for their errors.

use super::{
    config::{PostgresConfig, chain},
    refused, states,
};
use crate::{Error, Result};
use std::{ops::Deref, time::Duration};
use tokio_postgres::{Client, NoTls, error::Severity};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A server that does not answer within this is away.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// What every session of ours starts with. Our statements are long and few; a server-wide limit is for applications.
/// `causeway.agent` lets our own DDL pass the event triggers of an operation.
pub(crate) const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = 0; \
     SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog; SET causeway.agent = 'on'; \
     SET DateStyle = ISO; SET IntervalStyle = postgres; SET extra_float_digits = 3; SET synchronous_commit = on; \
     SET jit = off";

/// A session with a database. Dropping it ends it.
pub(crate) struct Sql {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
}

impl Sql {
    /// Connects to a database. `purpose` becomes part of `application_name`, which starts with `causeway`.
    pub(crate) async fn connect(config: &PostgresConfig, database: &str, purpose: &str) -> Result<Self> {
        let dialled = Self::dial(config, database, purpose).await;
        Self::prepared(dialled.map_err(|error| failed(connecting(database), &error))?).await
    }

    /// The same for the first session of an agent: what no waiting mends is told by a code of its own. Later, when there is
    /// something to lose, an agent waits for a person to mend it.
    pub(crate) async fn connect_first(config: &PostgresConfig, database: &str, purpose: &str) -> Result<Self> {
        let dialled = Self::dial(config, database, purpose).await.map_err(|error| {
            refused::for_good(database, &error).unwrap_or_else(|| failed(connecting(database), &error))
        });
        Self::prepared(dialled?).await
    }

    async fn dial(
        config: &PostgresConfig,
        database: &str,
        purpose: &str,
    ) -> std::result::Result<Self, tokio_postgres::Error> {
        let mut server = config.server().clone();
        server.dbname(database).application_name(application_name(purpose)).connect_timeout(CONNECT_TIME_MAX);
        // A notice is for the server's log; what matters comes as an error.
        Ok(match config.tls() {
            Some(tls) => {
                let (client, connection) = server.connect(MakeRustlsConnect::new((**tls).clone())).await?;
                Self { client, connection: tokio::spawn(async move { drop(connection.await) }) }
            }
            None => {
                let (client, connection) = server.connect(NoTls).await?;
                Self { client, connection: tokio::spawn(async move { drop(connection.await) }) }
            }
        })
    }

    async fn prepared(sql: Self) -> Result<Self> {
        sql.run("prepare a session", SESSION).await?;
        Ok(sql)
    }

    /// Runs statements without parameters; several, separated by semicolons, are one transaction unless they say otherwise.
    pub(crate) async fn run(&self, what: &str, statements: &str) -> Result<()> {
        self.client.batch_execute(statements).await.map_err(|error| failed(what, &error))
    }
}

impl Deref for Sql {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Sql {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn connecting(database: &str) -> String {
    format!("connect to database {database:?}")
}

/// The name under which a session of ours shows in `pg_stat_activity`.
pub(crate) fn application_name(purpose: &str) -> String {
    format!("{APPLICATION} {purpose}")
}

/// How the names of all our sessions begin.
pub(crate) const APPLICATION: &str = "causeway";

/// What the driver's error means to the caller.
pub(crate) fn failed(what: impl Into<String>, error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => states::error(
            what.into(),
            db.code().code(),
            db.message(),
            matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)),
        ),
        None => Error::Database { what: what.into(), message: chain(error), transient: true },
    }
}

/// Quotes an identifier.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a schema-qualified name.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Quotes a literal. A backslash needs the escape form, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!(" E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(qualified("s", "t"), "\"s\".\"t\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
