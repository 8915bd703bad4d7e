//! Making a server's files, and its processes.

use std::{
    env, fs,
    fs::OpenOptions,
    net::TcpListener,
    os::unix::{fs as unix, fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Binaries, Server, ServerError, io, run_to_end};
use crate::random::Random;

/// What a server is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its programs.
    pub binaries: Binaries,
    /// Where its directory is made, instead of the system's place for temporary files. A path that is too long for a socket,
    /// or that the account of the server cannot enter, will not do.
    pub inside: Option<PathBuf>,
    /// Parameters, over those that make it a source and a destination of moves.
    pub settings: Vec<(String, String)>,
    /// Certificate and key files with which it speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The superuser's password over TCP; without one everybody on this machine is trusted. Its socket, in a directory that only
    /// the account of the server and root can enter, needs none.
    pub password: Option<String>,
    /// Leave the files behind.
    pub keep: bool,
}

impl Options {
    /// A server that others trust, on these programs.
    pub fn new(binaries: Binaries) -> Self {
        Self { binaries, inside: None, settings: Vec::new(), tls: None, password: None, keep: false }
    }

    /// One parameter.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Who runs servers when we are root, which they refuse to be.
const ACCOUNT: &str = "postgres";

/// What logical replication needs, with room for several operations; the small memory lets many servers run side by side.
const SETTINGS: [(&str, &str); 12] = [
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
    ("max_wal_senders", "40"),
    ("max_replication_slots", "40"),
    ("max_prepared_transactions", "20"),
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    ("max_wal_size", "1GB"),
    ("log_line_prefix", "%m [%p] %a %d "),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
];

/// Below the range from which the system takes the ports of outgoing connections, so that a stopped server finds its own free
/// again.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

/// A port nobody listens on, for a server that may be stopped for a while.
pub fn free_port() -> Result<u16, ServerError> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut random = Random::new(clock.as_nanos() as u64 ^ u64::from(std::process::id()) << 32);
    for _ in 0..1000 {
        let port = PORTS.start + random.below(PORTS.end - PORTS.start);
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(ServerError::Failed { stage: "find a free port", said: "a thousand are taken".to_owned() })
}

/// Makes the files and the watcher.
pub(super) fn make(options: Options) -> Result<Server, ServerError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("causeway-pg-");
    let dir = match &options.inside {
        Some(inside) => builder.tempdir_in(inside),
        None => builder.tempdir(),
    };
    // Removed by the server's drop, or by the watcher.
    let dir = dir.map_err(io("make a directory for the server"))?.keep();
    let port = free_port()?;
    let mut server = Server { dir, port, child: None, watcher: None, options };
    own(&server.dir)?;
    server.watcher = Some(watcher(&server.options, &server.dir)?);
    init(&server.options, &server.dir)?;
    configure(&server.options, &server.dir, port)?;
    Ok(server)
}

fn init(options: &Options, dir: &Path) -> Result<(), ServerError> {
    let mut command = as_account(&options.binaries.program("initdb"));
    command.arg("--pgdata").arg(dir.join("data"));
    command.args(["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]);
    let secret = dir.join("password");
    match &options.password {
        None => {
            command.arg("--auth=trust");
        }
        Some(password) => {
            fs::write(&secret, password).map_err(io("write the password"))?;
            own(&secret)?;
            command.arg("--auth=scram-sha-256").arg("--pwfile").arg(&secret);
        }
    }
    run_to_end("make the server's files", &mut command)?;
    if options.password.is_some() {
        fs::remove_file(&secret).map_err(io("remove the password"))?;
    }
    // Replication and everything else, for every role, from this machine only.
    let method = if options.password.is_some() { "scram-sha-256" } else { "trust" };
    let rules = format!(
        "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 {method}\n\
         host replication all 127.0.0.1/32 {method}\n"
    );
    write(&dir.join("data/pg_hba.conf"), &rules)
}

/// Writes the parameters.
pub(super) fn configure(options: &Options, dir: &Path, port: u16) -> Result<(), ServerError> {
    let mut text = String::from("# Written by Causeway.\n");
    let mut set = |name: &str, value: &str| text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    set("port", &port.to_string());
    set("unix_socket_directories", &dir.display().to_string());
    SETTINGS.iter().for_each(|(name, value)| set(name, value));
    if let Some((certificate, key)) = &options.tls {
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = dir.join("data").join(to);
            fs::copy(from, &to).map_err(io("copy the server's certificate"))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).map_err(io("protect the server's key"))?;
            own(&to)?;
        }
        set("ssl", "on");
    }
    options.settings.iter().for_each(|(name, value)| set(name, value));
    write(&dir.join("data/postgresql.conf"), &text)
}

/// Starts the postmaster itself, so that its process id is ours to kill.
pub(super) fn postmaster(options: &Options, dir: &Path) -> Result<Child, ServerError> {
    let path = dir.join("log");
    let log = OpenOptions::new().create(true).append(true).open(path).map_err(io("open the server's log"))?;
    let errors = log.try_clone().map_err(io("open the server's log"))?;
    let mut command = as_account(&options.binaries.program("postgres"));
    command.arg("-D").arg(dir.join("data"));
    // Ctrl-C is for the owner alone.
    command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().map_err(io("start the server"))
}

/// Waits for the end of its input, which comes when the owner is gone, however it went; then nothing of the server stays. The
/// postmaster's id may have been given to another process, so that one has to be at this directory.
const WATCH: &str = r#"
    trap '' INT HUP TERM
    cat >/dev/null
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
    if [ -n "$pid" ] && grep -qF "$1" "/proc/$pid/cmdline" 2>/dev/null; then
        kill -QUIT "$pid"
        n=0
        while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
    fi
    [ -n "$2" ] || rm -rf "$1"
"#;

fn watcher(options: &Options, dir: &Path) -> Result<Child, ServerError> {
    let mut command = Command::new("sh");
    command.args(["-c", WATCH, "causeway-pg-watcher"]).arg(dir).arg(if options.keep { "keep" } else { "" });
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(io("start the server's watcher"))
}

/// A command under the account that may run servers.
fn as_account(program: &Path) -> Command {
    let mut command = match account() {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups").arg(program);
            command
        }
    };
    // Of the owner's surroundings only what programs need to run: no PGDATA, PGHOST or locale of its own.
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

/// User and group to become, if we are root.
fn account() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    // Where PostgreSQL was not installed by a package, there is an account for programs that need no rights at all.
    of(ACCOUNT).or_else(|| of("nobody"))
}

/// Gives a file to the account that runs servers.
fn own(path: &Path) -> Result<(), ServerError> {
    match account() {
        None => Ok(()),
        Some((user, group)) => unix::chown(path, Some(user), Some(group)).map_err(io("give the server its files")),
    }
}

fn write(path: &Path, text: &str) -> Result<(), ServerError> {
    // What initdb made stays the account's: the file is written over, not replaced.
    fs::write(path, text).map_err(io("write the server's settings"))
}
