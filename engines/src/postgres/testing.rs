//! A PostgreSQL server of a test's own: made, started, killed, and removed with its directory.

use super::{
    config::{PostgresConfig, Setup},
    sql::Sql,
};
use std::{
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};
use tempfile::TempDir;

/// Where Debian puts version 15; `CAUSEWAY_PG_BIN` names another place.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Settings that every test wants.
const SETTINGS: &str = "
wal_level = logical
max_replication_slots = 20
max_wal_senders = 20
max_connections = 100
shared_buffers = 16MB
listen_addresses = '127.0.0.1'
autovacuum = off
log_min_messages = warning
log_error_verbosity = default
";

/// A server. Dropping it ends it and removes its files.
pub(crate) struct Cluster {
    dir: TempDir,
    port: u16,
    setup: Setup,
    watch: Mutex<Option<Child>>,
}

impl Cluster {
    /// A server with `settings` (lines of `postgresql.conf`) besides those that every test wants. It does not sync to disk:
    /// tests kill processes, not machines.
    pub(crate) fn start(settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("causeway-pg-").tempdir().expect("make a directory");
        let (from, data) = (template().join("data"), dir.path().join("data"));
        give_away(dir.path());
        assert!(as_postgres("cp").arg("-r").arg(&from).arg(&data).status().expect("run cp").success());
        let listener = TcpListener::bind("127.0.0.1:0").expect("find a port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let conf = format!(
            "{SETTINGS}\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\n{settings}\n",
            dir.path().display()
        );
        std::fs::write(data.join("postgresql.auto.conf"), conf).expect("write the settings");
        let setup = Setup {
            pg_dump: bin("pg_dump"),
            takeover_after: std::time::Duration::from_secs(1),
            ..Setup::new(format!("host=127.0.0.1 port={port} user=postgres"))
        };
        let cluster = Self { dir, port, setup, watch: Mutex::default() };
        cluster.up();
        cluster
    }

    /// How an agent reaches it.
    pub(crate) fn config(&self) -> PostgresConfig {
        PostgresConfig::new(self.setup.clone()).expect("the settings are good")
    }

    /// The settings of an agent, for tests that want others.
    pub(crate) fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// The port on which it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its data and sockets.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A session of a client, whose name does not look like one of ours.
    pub(crate) async fn client(&self, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let config = format!("host=127.0.0.1 port={} user=postgres application_name=app", self.port);
        let mut config: tokio_postgres::Config = config.parse().expect("a connection string");
        config.dbname(database);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A session like ours.
    pub(crate) async fn sql(&self, database: &str) -> Sql {
        Sql::connect(&self.config(), database, "test").await.expect("connect")
    }

    /// Runs statements as a client.
    pub(crate) async fn run(&self, database: &str, statements: &str) {
        let client = self.client(database).await.expect("connect");
        client.batch_execute(statements).await.expect("run statements");
    }

    /// The first column of what a query answers, as text; NULL is empty.
    pub(crate) async fn column(&self, database: &str, query: &str) -> Vec<String> {
        let client = self.client(database).await.expect("connect");
        let answers = client.simple_query(query).await.expect("query");
        let rows = answers.into_iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        rows.collect()
    }

    /// The one value that a query answers.
    pub(crate) async fn value(&self, database: &str, query: &str) -> String {
        let mut column = self.column(database, query).await;
        assert_eq!(column.len(), 1, "{query}");
        column.remove(0)
    }

    /// Starts it. Should the test be killed, it is ended and removed all the same.
    pub(crate) fn up(&self) {
        self.pg_ctl(&["start", "-w", "-t", "60", "-l"], Some("log"));
        let dir = self.dir.path().display();
        let watch = format!(
            "while [ -d /proc/{} ] && [ -d {dir}/data ]; do sleep 1; done; {} -s -D {dir}/data stop -m immediate; rm -rf {dir}",
            std::process::id(),
            bin("pg_ctl").display()
        );
        let mut watch_dog = as_postgres("sh");
        watch_dog.arg("-c").arg(watch).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = watch_dog.spawn().expect("run sh");
        self.end_watch(Some(started));
    }

    fn end_watch(&self, next: Option<Child>) {
        let mut watch = self.watch.lock().expect("nobody panics while it is held");
        if let Some(mut child) = std::mem::replace(&mut *watch, next) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it as a crash does: nothing is flushed, and the next start recovers.
    pub(crate) fn crash(&self) {
        self.pg_ctl(&["stop", "-m", "immediate", "-w"], None);
    }

    /// Kills the postmaster with SIGKILL; its children end when they notice, and [`Cluster::up`] has to wait for that.
    pub(crate) fn kill(&self) {
        let pid = std::fs::read_to_string(self.dir.path().join("data/postmaster.pid")).expect("it runs");
        let pid = pid.lines().next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
        // The last of its children gives the shared memory back; the next start refuses until then.
        while rustix::process::test_kill_process(pid).is_ok() || self.children_live() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Whether a process still works in its data directory.
    fn children_live(&self) -> bool {
        let data = self.dir.path().join("data");
        let processes = std::fs::read_dir("/proc").expect("a Linux").filter_map(Result::ok);
        processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok()).any(|cwd| cwd == data)
    }

    fn pg_ctl(&self, arguments: &[&str], file: Option<&str>) {
        let mut command = as_postgres(bin("pg_ctl"));
        command.arg("-s").arg("-D").arg(self.dir.path().join("data")).args(arguments);
        command.args(file.map(|file| self.dir.path().join(file)));
        let done =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("run pg_ctl");
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert!(done.success(), "{arguments:?}: {log}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end_watch(None);
        let mut stop = as_postgres(bin("pg_ctl"));
        stop.arg("-s").arg("-D").arg(self.dir.path().join("data")).args(["stop", "-m", "immediate"]);
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A program of the server.
pub(crate) fn bin(name: &str) -> PathBuf {
    std::env::var_os("CAUSEWAY_PG_BIN").map_or_else(|| PathBuf::from(BIN), PathBuf::from).join(name)
}

/// The server refuses to run as root, so a test that does runs it as the user `postgres`.
fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = postgres_user() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/");
    command
}

fn give_away(path: &Path) {
    if let Some((uid, gid)) = postgres_user() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may do that");
    }
}

fn postgres_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("there is a list of users");
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let mut numbers = line.split(':').skip(2).map(|number| number.parse::<u32>().expect("a number"));
    Some((numbers.next().expect("a user"), numbers.next().expect("a group")))
}

/// An empty data directory, made once a process: a copy takes a tenth of what `initdb` does.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("causeway-pg-template-").tempdir().expect("make a directory");
        give_away(dir.path());
        let done = as_postgres(bin("initdb"))
            .arg("-D")
            .arg(dir.path().join("data"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
            .stdout(Stdio::null())
            .status()
            .expect("run initdb");
        assert!(done.success());
        dir
    });
    made.path()
}
