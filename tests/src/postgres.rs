//! PostgreSQL servers as the instances of a cluster: borrowed in pairs, looked at as their operators and clients do.

use crate::{binaries::workspace, wait};
use ledger::postgres::{Binaries, Options, PostgresView, Server};
use std::{
    fmt::Display,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A server, and what an operator can do about it.
#[derive(Debug)]
pub struct Instance {
    server: Mutex<Server>,
}

/// Two servers that nobody else uses: an agent holds the lock of its instance.
#[derive(Debug)]
pub struct Pair {
    /// What it was started for; nothing if it is not for everybody.
    versions: Option<(u32, u32)>,
    west: Instance,
    east: Instance,
}

/// Those that are idle. There are as many as tests side by side, and they end with the process.
static IDLE: Mutex<Vec<Pair>> = Mutex::new(Vec::new());

/// The account of the applications, which own their databases and are nothing else.
pub(crate) const APPLICATION: &str = "app";

impl Pair {
    /// An idle pair, or a new one.
    pub fn lease(west: u32, east: u32) -> Self {
        let idle = {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.iter().position(|pair| pair.versions == Some((west, east))).map(|at| idle.swap_remove(at))
        };
        let new = || Self { versions: Some((west, east)), west: Instance::of(west), east: Instance::of(east) };
        let pair = idle.unwrap_or_else(new);
        pair.both().for_each(|(_, instance)| instance.clean());
        pair
    }

    /// A pair of one's own.
    pub fn own(options: &Options) -> Self {
        let pair =
            Self { versions: None, west: Instance::start(options.clone()), east: Instance::start(options.clone()) };
        pair.both().for_each(|(_, instance)| instance.clean());
        pair
    }

    /// For the next test, unless it is one's own.
    pub fn give_back(self) {
        if self.versions.is_some() {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
    }

    /// One of them.
    pub fn instance(&self, name: &str) -> &Instance {
        if name == "west" { &self.west } else { &self.east }
    }

    /// Both with their names.
    pub fn both(&self) -> impl Iterator<Item = (&'static str, &Instance)> {
        [("west", &self.west), ("east", &self.east)].into_iter()
    }
}

/// The flag that names the `pg_dump` of the oldest version under test, which is the only one with client programs.
pub fn pg_dump() -> String {
    let binaries = Binaries::find(Some(15)).expect("PostgreSQL 15 is installed: tools/ensure-test-deps.sh");
    format!("--pg-dump={}", binaries.program("pg_dump").display())
}

/// The programs of a version: Debian's, or what `tools/ensure-test-deps.sh` put under target/.
fn programs(major: u32) -> Binaries {
    let own = workspace().join(format!("target/postgresql/{major}/bin"));
    let found = Binaries::at(&own).or_else(|_| Binaries::find(Some(major)));
    found.unwrap_or_else(|_| panic!("PostgreSQL {major} is not there: run `make deps`"))
}

impl Instance {
    fn of(major: u32) -> Self {
        Self::start(Options::new(programs(major)).setting("max_wal_size", "2GB").setting("log_checkpoints", "off"))
    }

    fn start(options: Options) -> Self {
        let server = Server::start(options).unwrap_or_else(|e| panic!("start PostgreSQL: {e:?}"));
        Self { server: Mutex::new(server) }
    }

    /// The server itself.
    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection string of its agents.
    pub fn dsn(&self) -> String {
        self.server().dsn_as("causeway", "postgres")
    }

    /// Makes an empty database of the application's.
    pub fn create(&self, database: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {} OWNER {APPLICATION}", quoted(database)));
    }

    /// The place at which the application finds a database.
    pub fn place(&self, database: &str) -> PathBuf {
        self.server().place(APPLICATION, database)
    }

    /// Runs statements as a superuser; the rows of all of them.
    #[track_caller]
    pub fn sql(&self, database: &str, statements: &str) -> Vec<Vec<Option<String>>> {
        self.try_sql("postgres", database, statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Runs statements as a role; what the server says if it fails.
    pub fn try_sql(&self, role: &str, database: &str, statements: &str) -> Result<Vec<Vec<Option<String>>>, Refusal> {
        let dsn = self.server().dsn_as(role, database);
        let refused = |error: postgres::Error| Refusal {
            state: error.code().map(|code| code.code().to_owned()).unwrap_or_default(),
            message: error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned()),
        };
        let mut config: postgres::Config = dsn.parse().map_err(refused)?;
        let mut client = config.application_name("test").connect(postgres::NoTls).map_err(refused)?;
        let messages = client.simple_query(statements).map_err(refused)?;
        let rows = messages.iter().filter_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The one value a query answers; empty for none.
    #[track_caller]
    pub fn value(&self, database: &str, query: &str) -> String {
        self.column(database, query).into_iter().next().unwrap_or_default()
    }

    /// The first column of what a query answers.
    #[track_caller]
    pub fn column(&self, database: &str, query: &str) -> Vec<String> {
        self.sql(database, query).into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default()).collect()
    }

    /// The user databases.
    pub fn databases(&self) -> Vec<String> {
        self.column(
            "postgres",
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1",
        )
    }

    /// Whether the application can write to a database.
    pub fn is_writable(&self, database: &str) -> bool {
        self.try_sql(APPLICATION, database, "BEGIN; CREATE TABLE causeway_probe(x int); ROLLBACK").is_ok()
    }

    /// The content of a database: tables, sequences, large objects, definitions, settings.
    #[track_caller]
    pub fn content(&self, database: &str) -> Vec<ledger::driver::TableHash> {
        ledger::driver::View::content(&self.view(database)).unwrap_or_else(|e| panic!("read {database}: {e:?}"))
    }

    /// What the definitions, views and settings in it are, a line each.
    #[track_caller]
    pub fn definitions(&self, database: &str) -> Vec<String> {
        self.view(database).definitions().unwrap_or_else(|e| panic!("read {database}: {e:?}"))
    }

    #[track_caller]
    fn view(&self, database: &str) -> PostgresView {
        let dsn = self.server().dsn(database);
        PostgresView::open(&dsn).unwrap_or_else(|e| panic!("open {database}: {e:?}"))
    }

    /// What operations have left: records, slots, closed databases, helpers in databases.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        if !self.value("postgres", "SELECT to_regclass('causeway.role')").is_empty() {
            left.extend(self.column("postgres", LEFT_RECORDS));
        }
        left.extend(self.column("postgres", LEFT_IN_SERVER));
        for database in
            self.column("postgres", "SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'postgres'")
        {
            left.extend(
                self.column(&database, LEFT_IN_DATABASE).into_iter().map(|what| format!("{what} in {database}")),
            );
        }
        left
    }

    /// Waits until nothing is left.
    #[track_caller]
    pub fn until_clean(&self) {
        let started = std::time::Instant::now();
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(started.elapsed() < wait::PATIENCE, "left: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9` of the postmaster.
    pub fn kill(&self) {
        self.server().kill().unwrap_or_else(|e| panic!("{e:?}"));
    }

    /// Starts it again.
    pub fn restart(&self) {
        self.server().restart().unwrap_or_else(|e| panic!("{e:?}"));
    }

    /// `kill -9`, and started again at another port.
    pub fn restart_elsewhere(&self) {
        self.server().restart_elsewhere().unwrap_or_else(|e| panic!("{e:?}"));
    }

    /// SIGSTOP or SIGCONT for every process of the server.
    pub fn signal_all(&self, signal: rustix::process::Signal) {
        self.server().signal_all(signal).unwrap_or_else(|e| panic!("{e:?}"));
    }

    /// `kill -9` of a server process that serves the walsender or whatever else matches; the server then restarts itself. False
    /// if there is none.
    pub fn kill_backend(&self, condition: &str) -> bool {
        let query = format!("SELECT pid FROM pg_stat_activity WHERE {condition} LIMIT 1");
        // After the kill before it may still be starting.
        let rows =
            wait::until("a server that answers", wait::PATIENCE, || self.try_sql("postgres", "postgres", &query).ok());
        let pids: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        let pid = pids.first().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok())
    }

    /// As when nobody has used it yet.
    fn clean(&self) {
        let all = |sql: &str| self.column("postgres", sql);
        all(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()",
        );
        all("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active");
        wait::until("the end of every walsender", wait::PATIENCE, || {
            all("SELECT 1 FROM pg_replication_slots WHERE active").is_empty().then_some(())
        });
        all("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
        for gid in all("SELECT gid || '@' || database FROM pg_prepared_xacts") {
            let (gid, database) = gid.rsplit_once('@').expect("as it was put together");
            self.sql(database, &format!("ROLLBACK PREPARED '{gid}'"));
        }
        for database in self.databases() {
            all(&format!("ALTER DATABASE {} IS_TEMPLATE false", quoted(&database)));
            all(&format!("DROP DATABASE {} WITH (FORCE)", quoted(&database)));
        }
        all("SET client_min_messages = error; DROP SCHEMA IF EXISTS causeway CASCADE");
        for role in all("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'") {
            all(&format!("DROP OWNED BY {0}; DROP ROLE {0}", quoted(&role)));
        }
        all(&format!("CREATE ROLE {APPLICATION} LOGIN"));
        all(RIGHTS);
    }
}

/// The agents' role, made as operators make it.
const RIGHTS: &str = include_str!("../../docs/postgres-rights.sql");

/// What a server said when it refused something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The SQLSTATE, empty if it said none.
    pub state: String,
    /// Its words.
    pub message: String,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.state, self.message)
    }
}

/// A quoted identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const LEFT_RECORDS: &str = "SELECT 'record of ' || half || ' ' || operation FROM causeway.role
    UNION ALL SELECT 'memo of ' || half || ' ' || operation FROM causeway.memo";

const LEFT_IN_SERVER: &str = "SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE slot_name LIKE '%causeway%'
    UNION ALL SELECT 'closed database ' || datname FROM pg_database
      WHERE datname <> 'template0' AND (NOT datallowconn OR datconnlimit = 0)";

const LEFT_IN_DATABASE: &str = "SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE '%causeway%'
    UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%causeway%'
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger WHERE evtname LIKE '%causeway%'
    UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE '%causeway%'
    UNION ALL SELECT 'index ' || relname FROM pg_class WHERE relkind = 'i' AND relname LIKE 'causeway%'
    UNION ALL SELECT 'replica identity of ' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
      WHERE relname = 'trail' AND relreplident <> 'd'";
