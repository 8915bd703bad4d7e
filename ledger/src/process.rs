//! The writer as a process of its own, the way tests and the demo use it: start, wait for what it does, stop or kill.

use std::{
    env,
    ffi::OsString,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{options::WriteOptions, summary::Summary, tail::Tail};

/// Why a writer process did not do what was awaited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No binary of the writer was found.
    #[error("find the causeway-ledger binary beside {0}; build it with `cargo build -p causeway-ledger`")]
    NoBinary(PathBuf),
    /// It could not be started, read or signalled.
    #[error("{stage}")]
    Io {
        /// What was being done.
        stage: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It did not come so far in time.
    #[error("wait for {awaited}: {seen} after {} ms", after.as_millis())]
    TooLate {
        /// What was awaited.
        awaited: String,
        /// How far it came.
        seen: String,
        /// How long was waited.
        after: Duration,
    },
    /// It ended by itself while something else was awaited, or badly.
    #[error("the writer ended with {status}: {stderr}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
    /// It ended without a summary that can be read.
    #[error("read the writer's summary")]
    Summary(#[source] serde_json::Error),
}

/// How to start the writer: a binary, and the arguments before `write`.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// What comes before the name of the command, for binaries that hold more than the ledger.
    pub prefix: Vec<OsString>,
}

impl Program {
    /// A `causeway-ledger` binary at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), prefix: Vec::new() }
    }

    /// The `causeway-ledger` binary that was built with this one: beside it, or for a test one directory above.
    pub fn find() -> Result<Self, Error> {
        let here = env::current_exe().map_err(io("find the running binary"))?;
        let found = here.ancestors().skip(1).take(2).map(|dir| dir.join("causeway-ledger")).find(|path| path.is_file());
        found.map(Self::at).ok_or(Error::NoBinary(here))
    }

    /// The running binary, with its arguments before `write`.
    pub fn current() -> Result<Self, Error> {
        let path = env::current_exe().map_err(io("find the running binary"))?;
        Ok(Self { path, prefix: env::args_os().skip(1).take_while(|arg| arg != "write").collect() })
    }

    fn command(&self, options: &WriteOptions) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.prefix).arg("write").args(options.to_args());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A running writer process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    tail: Tail,
    /// Whether it has a process group of its own, so that its children can be killed with it.
    leads_group: bool,
    reaped: Option<ExitStatus>,
    stdout: Option<thread::JoinHandle<String>>,
    stderr: Option<thread::JoinHandle<String>>,
}

/// How often the history is looked at.
const POLL: Duration = Duration::from_millis(2);
/// How long a writer may take to finish its transaction and print its summary after SIGTERM; it may sit in a statement
/// that waits for a lock, or in a VACUUM.
const STOP_MAX: Duration = Duration::from_secs(60);

impl Process {
    /// Starts the writer in a process group of its own.
    pub fn spawn(program: &Program, options: &WriteOptions) -> Result<Self, Error> {
        let mut command = program.command(options);
        command.process_group(0);
        Self::start(command, &options.history, true)
    }

    /// Starts the writer in the group of this process, to end with it.
    pub(crate) fn spawn_part(program: &Program, options: &WriteOptions) -> Result<Self, Error> {
        Self::start(program.command(options), &options.history, false)
    }

    fn start(mut command: Command, history: &Path, leads_group: bool) -> Result<Self, Error> {
        let tail = Tail::from_end(history);
        let mut child = command.spawn().map_err(io("start the writer"))?;
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        Ok(Self { child, tail, leads_group, reaped: None, stdout, stderr })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until so many transactions were acknowledged since the start, wherever.
    pub fn wait_for_commits(&mut self, count: u64, patience: Duration) -> Result<(), Error> {
        let awaited = format!("{count} commits");
        self.wait_until(&awaited, patience, |tail| (tail.acknowledged_anywhere(), count))
    }

    /// Waits until so many more transactions were acknowledged than there are now.
    pub fn wait_for_more_commits(&mut self, count: u64, patience: Duration) -> Result<(), Error> {
        let goal = self.acknowledged()?.saturating_add(count);
        self.wait_for_commits(goal, patience)
    }

    /// Waits until so many transactions were acknowledged at this place, named as in the options.
    pub fn wait_for_commits_at(&mut self, place: &Path, count: u64, patience: Duration) -> Result<(), Error> {
        let name = place.display().to_string();
        let awaited = format!("{count} commits at {name}");
        self.wait_until(&awaited, patience, |tail| (tail.acknowledged.get(&name).copied().unwrap_or(0), count))
    }

    /// Waits until a fence refused a transaction so many times.
    pub fn wait_for_fence(&mut self, count: u64, patience: Duration) -> Result<(), Error> {
        self.wait_until(&format!("{count} refusals by a fence"), patience, |tail| (tail.fenced, count))
    }

    /// How many transactions were acknowledged since the start.
    pub fn acknowledged(&mut self) -> Result<u64, Error> {
        self.tail.catch_up().map_err(io("read the history"))?;
        Ok(self.tail.acknowledged_anywhere())
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> Result<bool, Error> {
        Ok(self.poll()?.is_none())
    }

    /// Tells it to finish its transaction (SIGTERM) and waits for its summary.
    pub fn stop(mut self) -> Result<Summary, Error> {
        self.ask_to_stop()?;
        self.wait_at_most(STOP_MAX)
    }

    /// Waits until it ends by itself and reads its summary.
    pub fn wait_at_most(mut self, patience: Duration) -> Result<Summary, Error> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.poll()? {
                let text = joined(&mut self.stdout);
                if !status.success() {
                    return Err(Error::Ended { status, stderr: joined(&mut self.stderr) });
                }
                let line = text.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
                return serde_json::from_str(line).map_err(Error::Summary);
            }
            if started.elapsed() > patience {
                let seen = "it still runs".to_owned();
                return Err(Error::TooLate { awaited: "the writer's end".into(), seen, after: patience });
            }
            thread::sleep(POLL);
        }
    }

    /// Kills it and its own children at once (SIGKILL), whatever it is doing.
    pub fn kill(mut self) -> Result<(), Error> {
        self.kill_now()
    }

    pub(crate) fn ask_to_stop(&mut self) -> Result<(), Error> {
        if self.poll()?.is_none() {
            let pid = self.pid()?;
            kill_process(pid, Signal::TERM).map_err(|e| io("signal the writer")(e.into()))?;
        }
        Ok(())
    }

    /// How it ended, if it did.
    pub(crate) fn poll(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.reaped.is_none() {
            self.reaped = self.child.try_wait().map_err(io("wait for the writer"))?;
        }
        Ok(self.reaped)
    }

    fn wait_until(
        &mut self,
        awaited: &str,
        patience: Duration,
        progress: impl Fn(&Tail) -> (u64, u64),
    ) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            // In this order: what it wrote just before it ended counts.
            let ended = self.poll()?;
            self.tail.catch_up().map_err(io("read the history"))?;
            let (seen, wanted) = progress(&self.tail);
            if seen >= wanted {
                return Ok(());
            }
            if let Some(status) = ended {
                return Err(Error::Ended { status, stderr: joined(&mut self.stderr) });
            }
            if started.elapsed() > patience {
                return Err(Error::TooLate { awaited: awaited.to_owned(), seen: seen.to_string(), after: patience });
            }
            thread::sleep(POLL);
        }
    }

    fn kill_now(&mut self) -> Result<(), Error> {
        if self.reaped.is_some() {
            return Ok(());
        }
        // Unless it is reaped its id is not given to anybody else, so this ends nothing but what was started here.
        let pid = self.pid()?;
        let signalled = match self.leads_group {
            true => kill_process_group(pid, Signal::KILL),
            false => kill_process(pid, Signal::KILL),
        };
        signalled.map_err(|e| io("kill the writer")(e.into()))?;
        let status = self.child.wait().map_err(io("wait for the writer"))?;
        self.reaped = Some(status);
        match status.signal() {
            Some(_) => Ok(()),
            // It ended by itself just before.
            None if status.success() => Ok(()),
            None => Err(Error::Ended { status, stderr: joined(&mut self.stderr) }),
        }
    }

    fn pid(&self) -> Result<Pid, Error> {
        let raw = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        raw.ok_or_else(|| io("name the writer's process")(io::ErrorKind::InvalidData.into()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell; a writer that cannot be killed has ended.
        let _ = self.kill_now();
    }
}

/// Reads a pipe to its end beside everything else, so that the child never blocks on a full one.
fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(pipe: &mut Option<thread::JoinHandle<String>>) -> String {
    pipe.take().and_then(|thread| thread.join().ok()).unwrap_or_default().trim().to_owned()
}

fn io(stage: &'static str) -> impl Fn(io::Error) -> Error {
    move |cause| Error::Io { stage, cause }
}
