//! The `on_online` hook: a command line of the operator's, run once a database came online.

use handover::{InstanceName, dest_role::DestRole, operation::HookOutcome};
use service::Env;
use std::{io, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

/// Of what the hook writes, the end is kept: that is where its failure stands.
const OUTPUT_BYTES_MAX: usize = 2 << 10;
/// How long the rest of the output is waited for once the command has ended: what it left running in the background may
/// hold the pipe open for ever.
const OUTPUT_LINGER: Duration = Duration::from_millis(500);

/// A configured hook.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) line: String,
    pub(crate) timeout: Duration,
    pub(crate) instance: InstanceName,
}

/// The outcome recorded before the hook starts: it stays when the agent ends before the hook does, for a hook must not run
/// twice.
pub(crate) fn interrupted() -> HookOutcome {
    HookOutcome {
        ok: false,
        exit_code: -1,
        output: "the agent ended while the hook ran; see what it did and run it by hand if need be".to_owned(),
        took_ms: 0,
    }
}

impl Hook {
    /// Runs the hook to its end or to its time limit.
    pub(crate) async fn run(&self, env: &Env, role: &DestRole) -> HookOutcome {
        let started = env.monotonic();
        let mut tail = Tail::default();
        let ended = self.attend(env, role, &mut tail).await;
        let took_ms = u64::try_from((env.monotonic() - started).as_millis()).unwrap_or(u64::MAX);
        let (exit_code, note) = match ended {
            Ok(Some(code)) => (code, None),
            Ok(None) => (-1, Some("ended by a signal".to_owned())),
            Err(Problem::Start(error)) => (-1, Some(format!("could not be started: {error}"))),
            Err(Problem::Late) => (-1, Some(format!("ended because it took longer than {:?}", self.timeout))),
        };
        if let Some(note) = note {
            tail.push(format!("\n[{note}]").as_bytes());
        }
        HookOutcome { ok: exit_code == 0, exit_code, output: tail.text(), took_ms }
    }

    async fn attend(&self, env: &Env, role: &DestRole, tail: &mut Tail) -> Result<Option<i32>, Problem> {
        let mut child = self.start(role).map_err(Problem::Start)?;
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let (mut out_buf, mut err_buf) = ([0; 1024], [0; 1024]);
        let deadline = env.sleep(self.timeout);
        tokio::pin!(deadline);
        let mut status = None;
        loop {
            // The linger begins anew with every piece of output; the limit of the whole ends it in any case.
            let linger = async {
                match &status {
                    Some(_) => env.sleep(OUTPUT_LINGER).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                n = read(&mut out, &mut out_buf) => tail.push(&out_buf[..n]),
                n = read(&mut err, &mut err_buf) => tail.push(&err_buf[..n]),
                ended = child.wait(), if status.is_none() => status = Some(ended.map_err(Problem::Start)?),
                () = linger => break,
                () = &mut deadline => match &status {
                    Some(_) => break,
                    None => {
                        end(&mut child).await;
                        return Err(Problem::Late);
                    }
                },
            }
            if out.is_none() && err.is_none() && status.is_some() {
                break;
            }
        }
        Ok(status.and_then(|status| status.code()))
    }

    fn start(&self, role: &DestRole) -> io::Result<Child> {
        Command::new("sh")
            .arg("-c")
            .arg(&self.line)
            .env("CAUSEWAY_OPERATION", role.operation.as_str())
            .env("CAUSEWAY_DATABASE", role.database.as_str())
            .env("CAUSEWAY_INSTANCE", self.instance.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that a hook that takes too long is ended with all its children.
            .process_group(0)
            .spawn()
    }
}

enum Problem {
    Start(io::Error),
    Late,
}

/// Reads some of a pipe; a closed one becomes `None` and is not looked at any more.
async fn read<P: AsyncRead + Unpin>(pipe: &mut Option<P>, buf: &mut [u8]) -> usize {
    let Some(open) = pipe else { return std::future::pending().await };
    let n = open.read(buf).await.unwrap_or(0);
    if n == 0 {
        *pipe = None;
    }
    n
}

/// Ends the hook with everything it started.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself this very moment.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill().await;
}

#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.0.drain(..surplus);
    }

    /// As text: it may begin in the middle of a character, and be none at all.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let mut text = text.trim_start_matches(char::REPLACEMENT_CHARACTER).to_owned();
        // A replacement is longer than what it replaces.
        while text.len() > OUTPUT_BYTES_MAX {
            text.remove(0);
        }
        text
    }
}
