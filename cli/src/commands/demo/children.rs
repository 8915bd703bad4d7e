//! The servers of the demo: started, waited for, and ended on every path.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use service::Env;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};

use crate::{exit::Exit, failure::Failure};

/// How long a server may take to serve, and to end.
const START_MAX: Duration = Duration::from_secs(15);
const END_MAX: Duration = Duration::from_secs(3);
/// Lines of each log that are shown after a failure.
const TAIL: usize = 8;

/// Where the programs are: beside this one.
#[derive(Debug)]
pub(super) struct Programs {
    dir: PathBuf,
}

/// The servers that run. Dropped, they are killed.
#[derive(Debug, Default)]
pub(super) struct Children {
    children: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    name: String,
    log: PathBuf,
    child: Child,
    stdout: Option<ChildStdout>,
}

impl Programs {
    /// Looks for all of them, so that a missing one is told before anything starts.
    pub(super) fn find() -> Result<Self, Failure> {
        let here = std::env::current_exe().map_err(|error| Failure::local("find the running program", &error))?;
        let dir = here.parent().unwrap_or(Path::new(".")).to_owned();
        let names = ["causeway-coordinator", "causeway-agent-source", "causeway-agent-dest", "causeway-ledger"];
        let missing: Vec<&str> = names.into_iter().filter(|name| !dir.join(name).is_file()).collect();
        match missing.as_slice() {
            [] => Ok(Self { dir }),
            missing => {
                let message = format!("{} not beside {}", missing.join(", "), here.display());
                Err(Failure::new(Exit::Failed, "find the programs of the demo", message)
                    .remedy("build them all: make build, or cargo build --release --workspace --bins"))
            }
        }
    }

    /// The path of one.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Children {
    /// Starts a server; its output goes to `log`.
    pub(super) fn start(&mut self, name: &str, program: &Path, args: &[String], log: PathBuf) -> Result<(), Failure> {
        let doing = format!("start {name}");
        let file = File::create(&log).map_err(|error| Failure::local(&doing, &error))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        // Ctrl-C goes to the demo alone, which then ends them in order.
        command.process_group(0);
        for (variable, _) in std::env::vars_os() {
            // The demo shall be the same whatever the user's shell has set for real servers.
            if variable.to_string_lossy().starts_with("CAUSEWAY_") {
                command.env_remove(variable);
            }
        }
        let mut child = command.spawn().map_err(|error| Failure::local(&doing, &error))?;
        let stdout = child.stdout.take();
        self.children.push(Running { name: name.to_owned(), log, child, stdout });
        Ok(())
    }

    /// Waits until every server says where it listens; the addresses in the order of the starts.
    pub(super) async fn addresses(&mut self, env: &Env) -> Result<Vec<String>, Failure> {
        let mut addresses = Vec::with_capacity(self.children.len());
        for running in &mut self.children {
            let doing = format!("start {}", running.name);
            let listening = env.timeout(START_MAX, running.listening()).await;
            match listening {
                Ok(Some(address)) => addresses.push(address),
                Ok(None) => return Err(Failure::new(Exit::Failed, doing, "it ended before it served")),
                Err(_) => {
                    let message = format!("it does not serve after {} s", START_MAX.as_secs());
                    return Err(Failure::new(Exit::Failed, doing, message));
                }
            }
        }
        Ok(addresses)
    }

    /// Whether one has ended although it should not have.
    pub(super) fn fallen(&mut self) -> Option<String> {
        self.children.iter_mut().find_map(|running| {
            let status = running.child.try_wait().ok().flatten()?;
            Some(format!("{} ended with {status}", running.name))
        })
    }

    /// Tells all to end, and kills those that do not.
    pub(super) async fn end(&mut self, env: &Env) {
        for running in &self.children {
            // Its id is known only as long as it was not reaped.
            let pid = running.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // It may just have ended by itself.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let children = &mut self.children;
        let _ = env
            .timeout(END_MAX, async {
                for running in children.iter_mut() {
                    let _ = running.child.wait().await;
                }
            })
            .await;
        for running in &mut self.children {
            let _ = running.child.kill().await;
        }
    }

    /// The ends of the logs.
    pub(super) fn tails(&self) -> String {
        let mut text = String::new();
        for Running { name, log, .. } in &self.children {
            let said = fs::read(log).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<&str> = said.lines().collect();
            let from = lines.len().saturating_sub(TAIL);
            text.push_str(&format!("--- the last lines of {name} ---\n"));
            lines[from..].iter().for_each(|line| text.push_str(&format!("{line}\n")));
        }
        text
    }
}

impl Running {
    /// The address in the line it prints once it serves; `None` if it ended instead.
    async fn listening(&mut self) -> Option<String> {
        let mut lines = BufReader::new(self.stdout.take()?).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(address) = line.strip_prefix("listening on ") {
                // Read on, or it would block once the pipe is full.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Some(address.trim().to_owned());
            }
        }
        None
    }
}
