//! PostgreSQL: the places an application may find its database at, a plain connection to one of them, and servers to try
//! all that on.

mod content;
mod definitions;
mod fill;
mod server;
mod session;
mod view;

use std::{path::Path, str::FromStr as _, time::Duration};

use postgres::{Client, Config, NoTls, error::SqlState};

pub use self::{
    fill::fill,
    server::{Binaries, Options, Server, ServerError, free_port},
    view::PostgresView,
};
use crate::{
    driver::{Driver, Error, Session},
    transaction::{ACCOUNTS, LISTS},
};

/// `trail` has no key, so that its updates and deletes travel as whole rows; `scratch` has large values, which travel only
/// when they change.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS ledger(writer bigint, seq bigint, src bigint NOT NULL, dst bigint NOT NULL,
        amount bigint NOT NULL, note bytea NOT NULL, PRIMARY KEY(writer, seq));
    CREATE TABLE IF NOT EXISTS account(id bigint PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS chain(writer bigint PRIMARY KEY, seq bigint NOT NULL, digest bytea NOT NULL);
    CREATE TABLE IF NOT EXISTS list(key bigint, position bigint, writer bigint NOT NULL, seq bigint NOT NULL,
        PRIMARY KEY(key, position));
    CREATE TABLE IF NOT EXISTS list_end(key bigint PRIMARY KEY, position bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS scratch(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, touched int NOT NULL DEFAULT 0,
        body bytea);
    CREATE TABLE IF NOT EXISTS trail(writer bigint, word text);
";

/// A server that is away does not answer at all; one that is there does within milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Whether a place of the options is a connection string; any other is the file of a SQLite database.
pub fn is_place(place: &Path) -> bool {
    let text = place.to_string_lossy();
    ["postgres://", "postgresql://", "host="].iter().any(|start| text.starts_with(start))
}

/// A connection string without its password, for people and for the history.
pub fn name(place: &str) -> String {
    let Ok(config) = Config::from_str(place) else { return "a connection string that cannot be read".to_owned() };
    if config.get_password().is_none() {
        return place.to_owned();
    }
    let hosts: Vec<String> = config.get_hosts().iter().map(|host| format!("{host:?}")).collect();
    format!("{} at {} {:?}", config.get_dbname().unwrap_or_default(), hosts.join(","), config.get_ports())
}

/// A PostgreSQL database as an application knows it: by connection string, with those where it may have moved to.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Where it is at first, then where it may turn up. A password that is missing is taken from `PGPASSWORD`.
    pub dsns: Vec<String>,
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// Run on every connection, as `SET name = value`, in order.
    pub settings: Vec<(String, String)>,
}

impl Driver for Places {
    fn set_up(&self) -> Result<(), Error> {
        create_tables(&mut self.client(0)?)
    }

    fn places(&self) -> usize {
        self.dsns.len()
    }

    fn retry_pause(&self) -> Duration {
        // The server makes a process for each attempt, also for one that it refuses: about two milliseconds of a processor.
        Duration::from_millis(5)
    }

    fn name(&self, place: usize) -> String {
        self.dsns.get(place).map(|dsn| name(dsn)).unwrap_or_default()
    }

    fn connect(&self, place: usize) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(session::PostgresSession::new(self.client(place)?)))
    }
}

impl Places {
    fn client(&self, place: usize) -> Result<Client, Error> {
        let missing = || Error::Failed { stage: "choose a place", cause: "there is no such place".into() };
        let mut client = connect(self.dsns.get(place).ok_or_else(missing)?)?;
        let mut settings = format!("SET lock_timeout = {}", self.lock_timeout.as_millis());
        for (name, value) in &self.settings {
            settings.push_str(&format!("; SET {name} = '{}'", value.replace('\'', "''")));
        }
        client.batch_execute(&settings).map_err(error("prepare the connection"))?;
        Ok(client)
    }
}

/// Connects as any client does.
pub fn connect(dsn: &str) -> Result<Client, Error> {
    let mut config = Config::from_str(dsn).map_err(error("read the connection string"))?;
    if let (None, Ok(password)) = (config.get_password(), std::env::var("PGPASSWORD")) {
        config.password(password);
    }
    config.connect_timeout(CONNECT_TIME_MAX).connect(NoTls).map_err(error("connect"))
}

/// Creates the ledger's tables and accounts where they are missing.
fn create_tables(client: &mut Client) -> Result<(), Error> {
    let mut create = || {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(SCHEMA)?;
        transaction.execute(
            "INSERT INTO account SELECT i, 0 FROM generate_series(0, $1::bigint - 1) i ON CONFLICT DO NOTHING",
            &[&ACCOUNTS],
        )?;
        transaction.execute(
            "INSERT INTO list_end SELECT i, 0 FROM generate_series(0, $1::bigint - 1) i ON CONFLICT DO NOTHING",
            &[&LISTS],
        )?;
        transaction.commit()
    };
    create().map_err(error("create the ledger's tables"))
}

/// Tells a refusal by a fence, or by what comes after one, from any other failure of `stage`.
fn error(stage: &'static str) -> impl Fn(postgres::Error) -> Error {
    move |cause| {
        let refused = cause.as_db_error().is_some_and(|db| {
            let code = db.code();
            // Ended by an administrator; not accepting connections; no such database; dropped under us; read-only. A database
            // that is still coming has a connection limit of 0, which must not be mistaken for a server that is full.
            let gone = [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                SqlState::INVALID_CATALOG_NAME,
                SqlState::DATABASE_DROPPED,
                SqlState::READ_ONLY_SQL_TRANSACTION,
            ];
            // Those whose server died are told with the code of those who were ended.
            let died = db.message().contains("postmaster exit");
            gone.contains(code) && !died
                || *code == SqlState::TOO_MANY_CONNECTIONS && db.message().contains("for database")
        });
        match refused {
            true => Error::Fenced { stage, cause: cause.into() },
            false => Error::Failed { stage, cause: cause.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_connection_string_or_a_file() {
        assert!(is_place(Path::new("postgres://app@127.0.0.1/shop")) && is_place(Path::new("host=/tmp dbname=shop")));
        assert!(!is_place(Path::new("/var/lib/shop.db")) && !is_place(Path::new("postgres.db")));
    }

    #[test]
    fn a_name_has_no_password() {
        assert!(!name("postgres://app:hunter2@127.0.0.1/shop").contains("hunter2"));
        assert!(!name("host=127.0.0.1 password=hunter2 user=app").contains("hunter2"));
        assert_eq!(name("postgres://app@127.0.0.1/shop"), "postgres://app@127.0.0.1/shop");
    }
}
