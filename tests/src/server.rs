//! One process under test: started, killed, stopped, continued and started again as it was.

use crate::wait::{self, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How to start a process.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, except for `--listen`.
    pub args: Vec<String>,
    /// What comes before the program, such as `ip netns exec NAME`.
    pub wrapper: Vec<String>,
    /// The address it listens at, without the port.
    pub host: String,
    /// The file that gets everything it says.
    pub log: PathBuf,
    /// What is added to its environment.
    pub env: Vec<(String, String)>,
}

/// A process that listens at an address it keeps over its restarts.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    port: u16,
    child: Option<Child>,
    listening: Option<mpsc::Receiver<String>>,
    ended: Option<ExitStatus>,
}

impl Server {
    /// Starts it and waits until it serves.
    pub fn start(launch: Launch) -> Self {
        let mut server = Self { launch, port: 0, child: None, listening: None, ended: None };
        server.spawn();
        server.until_listening(PATIENCE);
        server
    }

    /// Starts a second process with the same flags, but for those given, at a port of its own; it need not come to serve.
    pub fn rival(&self, log: PathBuf, further: &[String]) -> Self {
        let mut launch = Launch { log, ..self.launch.clone() };
        for flag in further {
            set(&mut launch.args, flag);
        }
        let mut server = Self { launch, port: 0, child: None, listening: None, ended: None };
        server.spawn();
        server
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.launch.host, self.port)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the process runs").id()
    }

    /// The most memory it ever took, in bytes.
    #[track_caller]
    pub fn peak_rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read the process's status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
        let kib: u64 = peak.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB");
        kib * 1024
    }

    /// Its processor time so far, user and system, in seconds.
    #[track_caller]
    pub fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("read the process's stat");
        // The name before the last bracket may contain anything; after it come state and numbers.
        let numbers = stat.rsplit_once(')').expect("the name is in brackets").1;
        let ticks = numbers.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks"));
        // Linux shows 100 ticks a second to every process, whatever the kernel's own clock is.
        ticks.sum::<f64>() / 100.0
    }

    /// Another flag from the next start on; the last of equal flags counts.
    pub fn set_flag(&mut self, flag: &str) {
        set(&mut self.launch.args, flag);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill a child that was not reaped");
            self.ended = Some(child.wait().expect("wait for a killed child"));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("signal a child that was not reaped");
    }

    /// Waits until it ends by itself; its exit status.
    pub fn until_exit(&mut self, patience: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the process runs");
        let awaited = format!("the end of {}", self.launch.program.display());
        let status = wait::until(&awaited, patience, || child.try_wait().expect("wait for a child"));
        self.child = None;
        self.ended = Some(status);
        status
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("wait for a child").is_none())
    }

    /// Starts it again with the same flags, at the same port, and waits until it serves.
    pub fn restart(&mut self) {
        assert!(!self.is_running(), "{} still runs", self.launch.program.display());
        self.spawn();
        self.until_listening(PATIENCE);
    }

    /// Starts it as [`Server::restart`] does, but waits for nothing.
    pub fn spawn(&mut self) {
        let mut words = self.launch.wrapper.clone();
        words.push(self.launch.program.display().to_string());
        words.extend(self.launch.args.iter().cloned());
        words.push(format!("--listen={}:{}", self.launch.host, self.port));
        let log = self.log();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .envs(self.launch.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("a second handle of the log"))
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", words.join(" ")));
        let stdout = child.stdout.take().expect("stdout is piped");
        let (send, receive) = mpsc::channel();
        thread::spawn(move || copy_lines(BufReader::new(stdout), log, &send));
        self.child = Some(child);
        self.listening = Some(receive);
    }

    /// Waits until it prints where it listens.
    pub fn until_listening(&mut self, patience: Duration) {
        let receiver = self.listening.as_ref().expect("the process was started");
        let Ok(address) = receiver.recv_timeout(patience) else {
            let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let log = fs::read_to_string(&self.launch.log).unwrap_or_default();
            let ended = status.map_or("it still runs".to_owned(), |status| status.to_string());
            panic!("{} does not serve ({ended}); it said:\n{}", self.launch.program.display(), tail(&log, 20));
        };
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        self.port = port.unwrap_or_else(|| panic!("{address:?} has no port"));
    }

    /// The last lines of what it said.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.launch.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), lines).to_owned()
    }

    fn log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(&self.launch.log).expect("open the log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn set(args: &mut Vec<String>, flag: &str) {
    let name = flag.split('=').next();
    args.retain(|arg| arg.split('=').next() != name);
    args.push(flag.to_owned());
}

/// Copies a process's lines to its log, and reports the one that says where it listens.
fn copy_lines(from: impl BufRead, mut log: File, listening: &mpsc::Sender<String>) {
    for line in from.lines() {
        let Ok(line) = line else { return };
        let _ = writeln!(log, "{line}");
        if let Some(address) = line.strip_prefix("listening on ") {
            let _ = listening.send(address.trim().to_owned());
        }
    }
}

fn tail(text: &str, lines: usize) -> &str {
    let start = text.trim_end().rmatch_indices('\n').nth(lines).map_or(0, |(at, _)| at + 1);
    &text[start..]
}
