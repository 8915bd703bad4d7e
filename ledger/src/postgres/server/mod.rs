//! A PostgreSQL server of our own: made, started, killed and removed by whoever needs one for a while.
//!
//! It listens on loopback and on a socket in its directory. It ends with its owner, however the owner ends: a watcher
//! holds the reading end of a pipe whose other end only the owner has.

mod binaries;
mod make;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use postgres::SimpleQueryMessage;
use rustix::process::{Pid, Signal, kill_process};

pub use self::{
    binaries::Binaries,
    make::{Options, free_port},
};
use super::connect;
use crate::driver;

/// Why a server did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There are no server programs.
    #[error("find PostgreSQL's server programs (initdb, postgres) in PATH or under /usr/lib/postgresql")]
    NoBinaries,
    /// A program or a file of the server failed us.
    #[error("{stage}")]
    Io {
        /// What was being done.
        stage: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// A program ended badly.
    #[error("{stage}: {said}")]
    Failed {
        /// What was being done.
        stage: &'static str,
        /// The end of what it said.
        said: String,
    },
    /// A statement failed.
    #[error("{statement}")]
    Sql {
        /// Its beginning.
        statement: String,
        /// Why.
        #[source]
        cause: driver::Error,
    },
}

/// How long a start may take, recovery after a kill included, and a stop.
const START_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A server and its files. Dropped, it is stopped and they are removed.
#[derive(Debug)]
pub struct Server {
    options: Options,
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
    /// Ends the server and removes its files when the owner is gone.
    watcher: Option<Child>,
}

impl Server {
    /// Makes a server and starts it.
    pub fn start(options: Options) -> Result<Self, ServerError> {
        let mut server = make::make(options)?;
        server.run()?;
        Ok(server)
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its directory; the data are in `data`, what it says is in `log`, its socket beside them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The programs it runs on.
    pub fn binaries(&self) -> &Binaries {
        &self.options.binaries
    }

    /// Process id of the postmaster, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// A connection string in libpq's own words, as a superuser, over loopback.
    pub fn dsn(&self, database: &str) -> String {
        self.dsn_as("postgres", database)
    }

    /// The same as another role.
    pub fn dsn_as(&self, user: &str, database: &str) -> String {
        format!("host=127.0.0.1 port={} user={} dbname={}", self.port, quote(user), quote(database))
    }

    /// The same over the socket, which is for the account of the owner and of the server alone, and needs no password.
    fn socket_dsn(&self, user: &str, database: &str) -> String {
        let dir = quote(&self.dir.display().to_string());
        format!("host={dir} port={} user={} dbname={}", self.port, quote(user), quote(database))
    }

    /// The place of a database for an application that connects as `user`, over the socket.
    pub fn place(&self, user: &str, database: &str) -> PathBuf {
        let encode = |text: &str| -> String {
            text.bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
                    _ => format!("%{byte:02X}"),
                })
                .collect()
        };
        let socket = encode(&self.dir.display().to_string());
        PathBuf::from(format!("postgres://{}@{socket}:{}/{}", encode(user), self.port, encode(database)))
    }

    /// Runs statements and answers the rows of all of them, as text. Several in one call are one transaction.
    pub fn sql(&self, database: &str, statements: &str) -> Result<Vec<Vec<Option<String>>>, ServerError> {
        self.sql_as("postgres", database, statements)
    }

    /// The same as another role.
    pub fn sql_as(
        &self,
        user: &str,
        database: &str,
        statements: &str,
    ) -> Result<Vec<Vec<Option<String>>>, ServerError> {
        let failed = |cause| ServerError::Sql { statement: statements.chars().take(200).collect(), cause };
        let mut client = connect(&self.socket_dsn(user, database)).map_err(failed)?;
        let messages = client.simple_query(statements).map_err(super::error("run statements")).map_err(failed)?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The first column of the first row, empty for none.
    pub fn value(&self, database: &str, statement: &str) -> Result<String, ServerError> {
        let rows = self.sql(database, statement)?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
    }

    /// `kill -9` of the postmaster. Its children notice within moments; the start waits for them.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().map_err(io("kill the server"))?;
        child.wait().map_err(io("wait for the server"))?;
        Ok(())
    }

    /// Ends every session and stops it in order.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        self.end(Signal::INT)
    }

    /// Stops it at once, without a checkpoint.
    pub fn stop_at_once(&mut self) -> Result<(), ServerError> {
        self.end(Signal::QUIT)
    }

    /// Starts it again after a kill or a stop, on the same port.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.kill()?;
        self.run()
    }

    /// The same at another port, as a server that is brought up elsewhere on the same files.
    pub fn restart_elsewhere(&mut self) -> Result<(), ServerError> {
        self.kill()?;
        self.port = free_port()?;
        make::configure(&self.options, &self.dir, self.port)?;
        self.run()
    }

    /// Signals the postmaster and all its children, which have sessions of their own.
    pub fn signal_all(&self, signal: Signal) -> Result<(), ServerError> {
        self.signal(signal)?;
        let Some(postmaster) = self.pid() else { return Ok(()) };
        let entries = fs::read_dir("/proc").map_err(io("list the processes"))?;
        for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
            // "pid (name) state parent ...": the name may hold anything, a parenthesis too.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            if parent == Some(postmaster)
                && let Some(pid) = Pid::from_raw(pid)
            {
                // One that has ended by now needs no signal.
                let _ = kill_process(pid, signal);
            }
        }
        Ok(())
    }

    /// Sets a parameter in its file, for the next start or reload.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ServerError> {
        self.options.settings.retain(|(known, _)| known != name);
        self.options.settings.push((name.to_owned(), value.to_owned()));
        make::configure(&self.options, &self.dir, self.port)
    }

    /// Reads its file again.
    pub fn reload(&self) -> Result<(), ServerError> {
        self.signal(Signal::HUP)
    }

    /// The last lines it wrote to its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(lines).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Leaves the files where they are when it is dropped.
    pub fn keep_files(&mut self) {
        self.options.keep = true;
    }

    fn end(&mut self, signal: Signal) -> Result<(), ServerError> {
        self.signal(signal)?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        match wait(&mut child, STOP_MAX)? {
            Some(_) => Ok(()),
            None => {
                child.kill().map_err(io("kill the server"))?;
                child.wait().map_err(io("wait for the server"))?;
                let said = "it had to be killed: a session hinders it".to_owned();
                Err(ServerError::Failed { stage: "stop the server", said })
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), ServerError> {
        let pid = self.pid().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        match pid {
            Some(pid) => kill_process(pid, signal).map_err(|error| io("signal the server")(error.into())),
            None => Ok(()),
        }
    }

    /// Starts the postmaster and waits until it takes connections.
    fn run(&mut self) -> Result<(), ServerError> {
        let started = Instant::now();
        loop {
            let mut child = make::postmaster(&self.options, &self.dir)?;
            while started.elapsed() < START_MAX {
                if connect(&self.socket_dsn("postgres", "template1")).is_ok() {
                    self.child = Some(child);
                    return Ok(());
                }
                if child.try_wait().map_err(io("look at the server"))?.is_some() {
                    break;
                }
                thread::sleep(POLL);
            }
            // After a kill the shared memory is in use until the last of the old children has noticed.
            let orphans = self.log_tail(4).contains("shared memory");
            if !orphans || started.elapsed() >= START_MAX {
                let _ = child.kill();
                let _ = child.wait();
                return Err(ServerError::Failed { stage: "start the server", said: self.log_tail(8) });
            }
            thread::sleep(POLL * 10);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody is left to tell; what is still there the watcher ends.
        let _ = if self.options.keep { self.stop() } else { self.stop_at_once() };
        if let Some(mut watcher) = self.watcher.take() {
            if self.options.keep {
                // It may have been told otherwise when it was started.
                let _ = watcher.kill();
            }
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
        if !self.options.keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A value of a connection string.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn wait(child: &mut Child, patience: Duration) -> Result<Option<ExitStatus>, ServerError> {
    let started = Instant::now();
    loop {
        let status = child.try_wait().map_err(io("wait for the server"))?;
        if status.is_some() || started.elapsed() > patience {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// Runs a program to its end.
fn run_to_end(stage: &'static str, command: &mut Command) -> Result<(), ServerError> {
    let output = command.stdin(Stdio::null()).output().map_err(io(stage))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(ServerError::Failed { stage, said: if said.is_empty() { output.status.to_string() } else { said } })
        }
    }
}

fn io(stage: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |cause| ServerError::Io { stage, cause }
}
