//! PostgreSQL: side by side with what people use today, on the same two servers with the same settings.

mod catchup;
mod data;
mod freeze;
mod load;
mod memory;
mod peers;
mod seed;

use crate::{Args, Measure, Subject};
use causeway_tests::postgres::Instance;
use causeway_tests::{Builder, Cluster};
use ledger::postgres::{Binaries, Options};
use postgres::{Client, NoTls};
use std::{
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

/// What is measured, in this order.
pub const SUBJECTS: [(Subject, Measure<Args>); 5] = [
    (Subject::Seed, seed::measure),
    (Subject::Log, catchup::measure),
    (Subject::Freeze, freeze::measure),
    (Subject::Load, load::measure),
    (Subject::Memory, memory::measure),
];

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(1800);

/// As in the peers' own measurements: memory for everybody, no checkpoint by time in the middle, and a native apply worker that
/// does not wait five seconds before it begins.
const SETTINGS: [(&str, &str); 8] = [
    ("shared_buffers", "1GB"),
    ("maintenance_work_mem", "1GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    ("max_worker_processes", "20"),
    ("max_logical_replication_workers", "12"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("synchronous_commit", "on"),
];

/// Two servers with the agents of a move from west to east, on the disk that is measured.
fn cluster(args: &Args) -> Cluster {
    builder(args).start()
}

/// The same with the agents of both directions.
fn cluster_both_ways(args: &Args) -> Cluster {
    builder(args).both_ways().start()
}

fn builder(args: &Args) -> Builder {
    let binaries = Binaries::find(None).expect("find PostgreSQL");
    let mut options = Options { inside: args.dir.clone(), ..Options::new(binaries) };
    for (name, value) in SETTINGS {
        options = options.setting(name, value);
    }
    args.cluster().postgres(options).flag("coordinator", "--observe-every-ms=50")
}

/// One of the two servers, as client programs see it.
struct Side<'a> {
    instance: &'a Instance,
    port: u16,
    programs: PathBuf,
}

impl<'a> Side<'a> {
    fn of(cluster: &'a Cluster, instance: &str) -> Self {
        let instance = cluster.postgres(instance);
        let server = instance.server();
        Self { instance, port: server.port(), programs: server.binaries().dir().to_owned() }
    }

    fn west(cluster: &'a Cluster) -> Self {
        Self::of(cluster, "west")
    }

    fn east(cluster: &'a Cluster) -> Self {
        Self::of(cluster, "east")
    }

    /// A client program with host, port and user in its environment.
    fn command(&self, program: &str) -> Command {
        let beside = self.programs.join(program);
        let mut command = Command::new(if beside.is_file() { beside } else { program.into() });
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        command
    }

    /// Runs a client program to its end.
    fn run(&self, program: &str, args: &[&str]) -> Output {
        let output = self.command(program).args(args).output().unwrap_or_else(|error| panic!("run {program}: {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// A URI, for programs that take no environment.
    fn uri(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn sql(&self, database: &str, statements: &str) {
        self.instance.sql(database, statements);
    }

    fn value(&self, database: &str, query: &str) -> String {
        self.instance.value(database, query)
    }

    fn has(&self, database: &str) -> bool {
        self.instance.databases().iter().any(|name| name == database)
    }

    /// Waits until a query answers `expected`, on one session: a new one for each look would take a third of a processor.
    fn until(&self, database: &str, query: &str, expected: &str) {
        let started = Instant::now();
        let dsn = self.instance.server().dsn_as("postgres", database);
        let mut client = Client::connect(&dsn, NoTls).expect("connect to wait");
        while client.query_one(query, &[]).map(|row| row.get::<_, String>(0)).expect(query) != expected {
            assert!(started.elapsed() < PATIENCE, "{query} never answered {expected}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Every run begins with as much to write back as the others.
fn settle(cluster: &Cluster) {
    for side in [Side::west(cluster), Side::east(cluster)] {
        side.sql("postgres", "CHECKPOINT");
    }
}
