//! The audit log: one JSON line for every request, with who, what was decided and what came of it. Nothing secret is in it:
//! no token, no header, no field of a request but the names that rights are about.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use service::{Env, Shutdown};
use tokio::sync::Notify;

use super::caller::Check;

/// Lines that wait for the disk. When there are more, requests are refused: what cannot be written down does not happen.
const LINES_MAX: usize = 10_000;
/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(1);

/// One request.
#[derive(Serialize, Debug)]
pub(super) struct Line<'a> {
    /// When it ended, RFC 3339.
    pub(super) time: String,
    /// The method of `causeway.v1.Coordinator`.
    pub(super) method: &'a str,
    /// Who; empty if that could not be found out.
    pub(super) principal: String,
    /// By what the caller is known.
    pub(super) proof: &'a str,
    /// Where it called from.
    pub(super) from: String,
    /// `allowed`, `denied`, `unauthenticated`, or `passed on` to the coordinator that leads, which decides.
    pub(super) decision: &'a str,
    /// The policies that decided.
    pub(super) policies: Vec<String>,
    /// The rights that were asked for.
    pub(super) checks: Vec<CheckLine>,
    /// The operations it was about.
    pub(super) operations: Vec<String>,
    /// The status it ended with, such as `OK` or `PERMISSION_DENIED`.
    pub(super) outcome: &'a str,
    /// The reason of an error, such as `RIGHT_MISSING`.
    pub(super) reason: &'a str,
    /// What was left out of the answer because the caller may not read it.
    pub(super) hidden: u64,
    /// Requests of this caller that were turned away for their number since its last line.
    pub(super) turned_away: u64,
    /// How long it took; for a watch, how long it was open.
    pub(super) took_ms: u64,
}

/// A right that was asked for.
#[derive(Serialize, Debug)]
pub(super) struct CheckLine {
    right: &'static str,
    resource: String,
    allowed: bool,
    policies: Vec<String>,
}

impl From<Check> for CheckLine {
    fn from(check: Check) -> Self {
        let Check { action, resource, verdict } = check;
        Self { right: action.as_str(), resource, allowed: verdict.allowed, policies: verdict.policies }
    }
}

/// Where lines go.
pub(super) struct Audit {
    env: Env,
    path: Arc<Path>,
    lines: Mutex<VecDeque<String>>,
    more: Notify,
    failing: AtomicBool,
}

impl Audit {
    /// The log at `path`; `-` is standard output.
    pub(super) async fn open(env: &Env, path: &Path) -> Result<Self, super::Error> {
        let (path, lines) = (Arc::from(path), Mutex::default());
        let audit = Self { env: env.clone(), path, lines, more: Notify::new(), failing: AtomicBool::new(false) };
        // At the start, so that a wrong path is not found out with the first request.
        let path = audit.path.clone();
        match env.blocking(move || append(&path, &[])).await {
            (_, None) => Ok(audit),
            (_, Some(source)) => Err(super::Error::Audit { path: PathBuf::from(&*audit.path), source }),
        }
    }

    /// Whether lines wait that cannot be written.
    pub(super) fn is_full(&self) -> bool {
        self.lines().len() >= LINES_MAX
    }

    /// Write a line, soon.
    pub(super) fn write(&self, line: &Line<'_>) {
        match serde_json::to_string(line) {
            Ok(line) => self.lines().push_back(line),
            Err(error) => tracing::error!(%error, "write a line of the audit log"),
        }
        self.more.notify_one();
    }

    /// Write lines as they come, until `shutdown`. Never dropped in the middle of a write, which would then be repeated.
    pub(super) async fn run(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = self.more.notified() => {}
            }
            while !self.flush().await {
                tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    () = self.env.sleep(RETRY) => {}
                }
            }
        }
    }

    /// Write all lines that wait. Whether all were.
    pub(super) async fn flush(&self) -> bool {
        let batch: Vec<String> = self.lines().iter().cloned().collect();
        if batch.is_empty() {
            return true;
        }
        let path = self.path.clone();
        // Opened each time: whoever rotates the log need tell nobody.
        let (written, failed) = self.env.blocking(move || append(&path, &batch)).await;
        self.lines().drain(..written);
        match failed {
            None => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(path = %self.path.display(), "the audit log is written again");
                }
                true
            }
            Some(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(path = %self.path.display(), %error, "write the audit log; requests are refused once {LINES_MAX} lines wait");
                }
                false
            }
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().expect("no holder of this lock panics")
    }
}

/// How many lines were written, and why not all.
fn append(path: &Path, lines: &[String]) -> (usize, Option<io::Error>) {
    let out: io::Result<Box<dyn io::Write>> = match path.as_os_str() == "-" {
        true => Ok(Box::new(io::stdout().lock())),
        false => std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map(|file| Box::new(file) as Box<dyn io::Write>),
    };
    let mut out = match out {
        Ok(out) => out,
        Err(error) => return (0, Some(error)),
    };
    for (written, line) in lines.iter().enumerate() {
        // In one piece, so that nobody sees half a line unless the disk is full in its middle.
        if let Err(error) = out.write_all(format!("{line}\n").as_bytes()) {
            return (written, Some(error));
        }
    }
    (lines.len(), out.flush().err())
}

#[cfg(test)]
impl<'a> Line<'a> {
    /// A line about nothing.
    pub(super) fn test(method: &'a str) -> Self {
        Self {
            time: String::new(),
            method,
            principal: String::new(),
            proof: "",
            from: String::new(),
            decision: "",
            policies: Vec::new(),
            checks: Vec::new(),
            operations: Vec::new(),
            outcome: "",
            reason: "",
            hidden: 0,
            turned_away: 0,
            took_ms: 0,
        }
    }
}
