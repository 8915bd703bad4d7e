//! The token by which a process learns that it shall stop: SIGINT, SIGTERM, or a caller's own decision.

use std::sync::Arc;

use tokio::sync::watch;

/// Tells all holders once that it is time to stop. Clones share the signal.
#[derive(Debug, Clone)]
pub struct Shutdown {
    signal: Arc<watch::Sender<bool>>,
}

impl Shutdown {
    /// A token nobody has triggered yet.
    pub fn new() -> Self {
        Self { signal: Arc::new(watch::channel(false).0) }
    }

    /// A token that SIGINT and SIGTERM trigger. A second signal ends the process at once, with status 130.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let shutdown = Self::new();
        // Registered here and not in the task: a signal that arrives right after this call must not be lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let token = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                };
                if token.is_set() {
                    tracing::warn!(signal = name, "second signal, stopping at once");
                    std::process::exit(130);
                }
                tracing::info!(signal = name, "shutting down");
                token.trigger();
            }
        });
        Ok(shutdown)
    }

    /// Tell everybody to stop. Further calls change nothing.
    pub fn trigger(&self) {
        self.signal.send_replace(true);
    }

    /// Whether it is time to stop.
    pub fn is_set(&self) -> bool {
        *self.signal.borrow()
    }

    /// Completes when it is time to stop, at once if it already is. Cancel-safe.
    pub async fn wait(&self) {
        let mut receiver = self.signal.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = receiver.wait_for(|set| *set).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::{Command, Stdio};

    use super::Shutdown;

    #[tokio::test]
    async fn every_holder_hears_it_late_ones_too() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_set());
        let early = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.wait().await }
        });
        shutdown.clone().trigger();
        early.await.unwrap();
        shutdown.wait().await;
        assert!(shutdown.is_set());
    }
    /// Signals go to a whole process, so that one is a process of its own, running `child`.
    #[test]
    fn signals_trigger_it() {
        for signal in ["-TERM", "-INT"] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "shutdown::tests::child", "--ignored", "--nocapture"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("ready") {
                line.clear();
                assert!(output.read_line(&mut line).unwrap() > 0, "the child ended early");
            }
            assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
            let mut rest = String::new();
            output.read_to_string(&mut rest).unwrap();
            assert!(child.wait().unwrap().success() && rest.contains("stopped"), "{signal}: {rest}");
        }
    }

    #[tokio::test]
    #[ignore = "run by the test above, in a process of its own"]
    async fn child() {
        let shutdown = Shutdown::on_signals().unwrap();
        println!("ready");
        shutdown.wait().await;
        println!("stopped");
    }
}
