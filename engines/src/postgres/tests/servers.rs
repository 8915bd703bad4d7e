//! Pairs of servers: a case borrows one, cleans it, and gives it back, since a start takes seconds.

use ledger::postgres::{Binaries, Options, Server};
use std::sync::{Mutex, PoisonError};

/// A pair that nobody else uses.
pub(super) struct Pair {
    pub(super) west: Server,
    pub(super) east: Server,
}

/// Those that are idle; as many as there are tests side by side. The process's end ends them.
static IDLE: Mutex<Vec<Pair>> = Mutex::new(Vec::new());

impl Pair {
    /// An idle pair, or a new one.
    pub(super) fn lease() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pair = idle.unwrap_or_else(|| {
            let start = || {
                let binaries = Binaries::find(Some(15)).expect("PostgreSQL 15 is installed: tools/ensure-test-deps.sh");
                // Nothing here is about power cuts.
                Server::start(Options::new(binaries).setting("fsync", "off")).expect("start a server")
            };
            Self { west: start(), east: start() }
        });
        pair.both().for_each(clean);
        pair
    }

    /// For the next case.
    pub(super) fn give_back(self) {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }

    fn both(&self) -> impl Iterator<Item = &Server> {
        [&self.west, &self.east].into_iter()
    }

    /// What an operation has left, at either server; `kept` is a database that may be there.
    pub(super) fn leftovers(&self, kept: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (name, server) in [("west", &self.west), ("east", &self.east)] {
            let rows = |database: &str, sql: &str| -> Vec<String> {
                let rows = server.sql(database, sql).expect("look for leftovers");
                rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
            };
            let mut left = rows("postgres", LEFT_IN_SERVER);
            for database in
                rows("postgres", "SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'postgres'")
            {
                let inside = rows(&database, LEFT_IN_DATABASE);
                left.extend(inside.into_iter().map(|what| format!("{what} in {database}")));
                if database != kept && !database.starts_with("template") {
                    left.push(format!("database {database}"));
                }
            }
            found.extend(left.into_iter().map(|what| format!("{name}: {what}")));
        }
        found
    }
}

/// Records, slots, databases that are closed or half made.
const LEFT_IN_SERVER: &str = "SELECT 'record of ' || half || ' ' || operation FROM causeway.role
    UNION ALL SELECT 'memo of ' || half || ' ' || operation FROM causeway.memo
    UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
    UNION ALL SELECT 'closed database ' || datname FROM pg_database
      WHERE datname <> 'template0' AND (NOT datallowconn OR datconnlimit <> -1)";

/// Helpers of ours in a user's database, and identities that are no longer what they were.
const LEFT_IN_DATABASE: &str = "SELECT 'publication ' || pubname FROM pg_publication
    UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%causeway%'
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
    UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE '%causeway%'
    UNION ALL SELECT 'index ' || relname FROM pg_class WHERE relkind = 'i' AND relname LIKE '%causeway%'
    UNION ALL SELECT 'replica identity of ' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
      WHERE relkind = 'r' AND relreplident <> 'd' AND n.nspname = 'public'";

/// As a server is when nobody has used it yet: agents of a case before are gone or are ended here.
fn clean(server: &Server) {
    let rows = |sql: &str| server.sql("postgres", sql).expect("clean a server");
    rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'causeway%'");
    rows("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active");
    let mut slots = rows("SELECT slot_name FROM pg_replication_slots");
    while let Some(slot) = slots.pop() {
        let name = slot.into_iter().next().flatten().unwrap_or_default();
        let drop = format!("SELECT pg_drop_replication_slot('{name}')");
        // Its walsender may take a moment to go.
        while server.sql("postgres", &drop).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    for row in
        rows("SELECT quote_ident(datname) FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')")
    {
        let name = row.into_iter().next().flatten().unwrap_or_default();
        rows(&format!("DROP DATABASE {name} WITH (FORCE)"));
    }
    rows("SET client_min_messages = error; DROP SCHEMA IF EXISTS causeway CASCADE");
    if rows("SELECT 1 FROM pg_roles WHERE rolname = 'app'").is_empty() {
        rows("CREATE ROLE app LOGIN");
    }
}

/// Runs something that blocks on a thread of its own, out of any runtime.
pub(super) fn outside<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(act).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
