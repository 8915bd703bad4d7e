//! The process's environment as an engine sees it.

use engines::host::Host;
use service::Env;
use std::time::Duration;

/// The process's environment as an engine sees it.
#[derive(Debug)]
pub struct EngineHost(pub Env);

impl Host for EngineHost {
    fn now_ms(&self) -> i64 {
        self.0.now().as_millis()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.run_blocking(job);
    }
}
