//! The PostgreSQL engine passes the suite, between two real servers, with real client connections.

mod servers;

use self::servers::Pair;
use super::{PostgresConfig, PostgresDest, PostgresSource, Setup};
use crate::{conformance::Harness, dest::DestEngine, host::RealHost, source::SourceEngine};
use async_trait::async_trait;
use handover::DatabaseName;
use ledger::postgres::Server;
use postgres::Client;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The database, which needs quotes wherever it is written.
const NAME: &str = "shop \"of\" it's";

/// Two servers for as long as a case lasts.
struct Case {
    pair: Option<Pair>,
    source: Arc<Side>,
    dest: Arc<Side>,
}

/// What a client has at one of them.
#[derive(Default)]
struct Side {
    place: String,
    setup: Option<Setup>,
    client: Mutex<Option<Client>>,
    /// What was acknowledged here: nobody can read a fenced database.
    acknowledged: Mutex<BTreeMap<String, String>>,
}

impl Case {
    fn new() -> Self {
        // The servers are started with a blocking client, which must not run inside the case's runtime.
        servers::outside(|| {
            let pair = Pair::lease();
            let quoted = super::sql::ident(NAME);
            pair.west.sql("postgres", &format!("CREATE DATABASE {quoted} OWNER app")).expect("make the database");
            let table = "CREATE TABLE kv(key text PRIMARY KEY, value text NOT NULL)";
            pair.west.sql_as("app", NAME, table).expect("make the table");
            let side = |server: &Server| {
                // The cases keep agents that were taken over alive in this process; they give no sign of life.
                let setup = Setup {
                    takeover_after: Duration::from_millis(200),
                    pg_dump: server.binaries().program("pg_dump"),
                    ..Setup::new(server.dsn("postgres"))
                };
                let place = server.place("app", NAME).display().to_string();
                Arc::new(Side { place, setup: Some(setup), ..Side::default() })
            };
            let (source, dest) = (side(&pair.west), side(&pair.east));
            Self { pair: Some(pair), source, dest }
        })
    }
}

impl Side {
    fn config(&self) -> PostgresConfig {
        PostgresConfig::new(self.setup.clone().expect("every side has its settings")).expect("good settings")
    }

    /// Runs something with the client's connection, making it anew if it was ended: then, and only then, the server can
    /// not have done it yet.
    fn with<T>(&self, mut act: impl FnMut(&mut Client) -> Result<T, postgres::Error>) -> Option<T> {
        let mut slot = lock(&self.client);
        for _ in 0..2 {
            if slot.as_ref().is_none_or(Client::is_closed) {
                *slot = ledger::postgres::connect(&self.place).ok();
            }
            match act(slot.as_mut()?) {
                Ok(done) => return Some(done),
                Err(_) => *slot = None,
            }
        }
        None
    }

    fn write(&self, key: &str, value: Option<&str>) -> bool {
        let done = self.with(|client| match value {
            Some(value) => client.execute(
                "INSERT INTO kv VALUES($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                &[&key, &value],
            ),
            None => client.execute("DELETE FROM kv WHERE key = $1", &[&key]),
        });
        if done.is_some() {
            let mut acknowledged = lock(&self.acknowledged);
            match value {
                Some(value) => acknowledged.insert(key.to_owned(), value.to_owned()),
                None => acknowledged.remove(key),
            };
        }
        done.is_some()
    }

    fn rows(&self) -> Option<BTreeMap<String, String>> {
        let rows = self.with(|client| client.query("SELECT key, value FROM kv", &[]))?;
        Some(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

/// Runs a client's work on a thread where it may block.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(job).await.expect("the client does not panic")
}

#[async_trait]
impl Harness for Case {
    fn source(&mut self) -> Arc<dyn SourceEngine> {
        Arc::new(PostgresSource::new(self.source.config(), Arc::new(RealHost)))
    }
    fn dest(&mut self) -> Arc<dyn DestEngine> {
        Arc::new(PostgresDest::new(self.dest.config(), Arc::new(RealHost)))
    }
    fn database(&self) -> DatabaseName {
        DatabaseName::parse(NAME).expect("a name")
    }
    async fn write(&self, key: &str, value: Option<&str>) -> bool {
        let (side, key, value) = (self.source.clone(), key.to_owned(), value.map(str::to_owned));
        blocking(move || side.write(&key, value.as_deref())).await
    }
    async fn write_at_dest(&self, key: &str, value: &str) -> bool {
        let (side, key, value) = (self.dest.clone(), key.to_owned(), value.to_owned());
        blocking(move || {
            // What came here by the copy or move is as good as written here.
            // Looked at before: a lock taken in the condition would be held through the body.
            let unknown = lock(&side.acknowledged).is_empty();
            if unknown && let Some(rows) = side.rows() {
                *lock(&side.acknowledged) = rows;
            }
            side.write(&key, Some(&value))
        })
        .await
    }
    async fn rows(&self) -> BTreeMap<String, String> {
        let side = self.source.clone();
        blocking(move || side.rows().unwrap_or_else(|| lock(&side.acknowledged).clone())).await
    }
    async fn rows_at_dest(&self) -> BTreeMap<String, String> {
        let side = self.dest.clone();
        blocking(move || {
            let rows = side.rows().expect("clients read at the destination");
            // From here on it is the one that clients write to.
            lock(&side.acknowledged).clone_from(&rows);
            rows
        })
        .await
    }
    async fn lose_log(&self) -> bool {
        // A slot retains it; one that lost it has exceeded its budget, which ends the operation.
        false
    }
    fn leftovers(&self) -> Vec<String> {
        servers::outside(|| self.pair.iter().flat_map(|pair| pair.leftovers(NAME)).collect())
    }
    fn swap(&mut self) {
        std::mem::swap(&mut self.source, &mut self.dest);
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let sound = !std::thread::panicking();
        servers::outside(|| {
            *lock(&self.source.client) = None;
            *lock(&self.dest.client) = None;
            // After a failure the servers may hold anything.
            if let Some(pair) = self.pair.take().filter(|_| sound) {
                pair.give_back();
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

crate::conformance_suite!(Case::new());
