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
    sync::oneshot,
};

use crate::{exit::Exit, failure::Failure};

/// How long a server may take to serve, and to end.
const START_MAX: Duration = Duration::from_secs(15);
const END_MAX: Duration = Duration::from_secs(3);
/// How often the starting servers are looked at.
const POLL: Duration = Duration::from_millis(5);
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
    /// Gives the address once it serves; closed if its output ends before.
    listening: oneshot::Receiver<String>,
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
    /// Starts a server; its output goes to `log`, and `secrets` into its environment.
    pub(super) fn start(
        &mut self,
        name: &str,
        program: &Path,
        args: &[String],
        secrets: &[(&str, String)],
        log: PathBuf,
    ) -> Result<(), Failure> {
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
        command.envs(secrets.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().map_err(|error| Failure::local(&doing, &error))?;
        let (send, listening) = oneshot::channel();
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(listen(stdout, send));
        }
        self.children.push(Running { name: name.to_owned(), log, child, listening });
        Ok(())
    }

    /// Waits until every server says where it listens; the addresses in the order of the starts.
    pub(super) async fn addresses(&mut self, env: &Env) -> Result<Vec<String>, Failure> {
        let due = env.monotonic() + START_MAX;
        let mut addresses = vec![String::new(); self.children.len()];
        loop {
            for (address, running) in addresses.iter_mut().zip(&mut self.children) {
                if let Ok(told) = running.listening.try_recv() {
                    *address = told;
                }
            }
            let Some(late) = addresses.iter().position(String::is_empty) else { return Ok(addresses) };
            if let Some(fallen) = self.fallen() {
                return Err(Failure::new(Exit::Failed, "start the servers", fallen));
            }
            if env.monotonic() > due {
                let name = self.children.get(late).map_or("", |running| &running.name);
                let message = format!("it does not serve after {} s", START_MAX.as_secs());
                return Err(Failure::new(Exit::Failed, format!("start {name}"), message));
            }
            env.sleep(POLL).await;
        }
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

/// Reads what a server prints: the address once it serves, then on to the end, or it would block on a full pipe.
async fn listen(stdout: ChildStdout, send: oneshot::Sender<String>) {
    let mut send = Some(send);
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((address, send)) =
            line.strip_prefix("listening on ").and_then(|address| Some((address, send.take()?)))
        {
            // Nobody waits any more if the demo is being ended.
            let _ = send.send(address.trim().to_owned());
        }
    }
}
