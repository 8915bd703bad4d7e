//! The injected environment: clock, randomness, ids, dialling, listening, blocking work and tasks all go through [`Env`],
//! so that a simulation can put its own in and replay a run from a seed.

mod backoff;
mod contract;
mod real;
mod time;

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::Instrument;

pub use backoff::Backoff;
pub use contract::{Blocking, BoxFuture, Clock, Io, Listener, Net, Random, host_is_loopback};
pub use real::ResolveError;
pub use time::{Elapsed, Interval, Timestamp};

/// Everything a process takes from the outside world. Cloning is cheap; all clones share the same parts.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    net: Arc<dyn Net>,
    blocking: Arc<dyn Blocking>,
}

impl Env {
    /// The real world: system clock, the operating system's randomness, TCP, and tokio's blocking threads.
    pub fn real() -> Self {
        Self::new(
            Arc::new(real::SystemClock),
            Arc::new(real::SystemRandom),
            Arc::new(real::Tcp),
            Arc::new(real::Threads),
        )
    }

    /// An environment of the given parts, for simulations and tests.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, net: Arc<dyn Net>, blocking: Arc<dyn Blocking>) -> Self {
        Self { clock, random, net, blocking }
    }

    /// The same environment with another clock.
    pub fn with_clock(&self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self.clone() }
    }

    /// The same environment with another network.
    pub fn with_net(&self, net: Arc<dyn Net>) -> Self {
        Self { net, ..self.clone() }
    }

    /// The clock itself, for parts that need to keep only that.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Wall-clock time; may jump when the machine's clock is set.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time since some fixed moment; never goes back. Measure durations with this one.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Wait for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// The result of `future`, or [`Elapsed`] once `limit` has passed; the future is dropped then.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = std::pin::pin!(future);
        let mut timer = self.clock.sleep(limit);
        // Biased: a future that is ready at the deadline has won, and a replay takes the same turn.
        tokio::select! {
            biased;
            output = &mut future => Ok(output),
            () = &mut timer => Err(Elapsed { limit }),
        }
    }

    /// Ticks every `period`, first at once. A late tick shifts the following ones; ticks never come in bursts.
    pub fn interval(&self, period: Duration) -> Interval {
        Interval::new(self.clock.clone(), period)
    }

    /// Fill `bytes` with randomness fit for tokens.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }

    /// Eight random bytes as a number.
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A UUID version 7 (RFC 9562) in its usual hyphenated form: sorts by creation time.
    pub fn uuid_v7(&self) -> String {
        let mut bytes = [0; 10];
        self.fill(&mut bytes);
        let millis = u64::try_from(self.now().as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().hyphenated().to_string()
    }

    /// A secret of 128 random bits, as 32 lower-case hexadecimal characters. Never log it.
    pub fn token(&self) -> String {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }

    /// `duration` give or take a fifth, so that processes started together do not go on acting together.
    pub fn jitter(&self, duration: Duration) -> Duration {
        let share = (self.random_u64() >> 11) as f64 / (1u64 << 53) as f64;
        duration.mul_f64(0.8 + 0.4 * share)
    }

    /// A byte stream to `address` (`host:port`), with TCP_NODELAY.
    pub async fn dial(&self, address: &str) -> io::Result<Box<dyn Io>> {
        self.net.dial(address).await
    }

    /// Listen at `address` (`host:port`; port 0 picks a free one).
    pub async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.net.listen(address).await
    }

    /// Whether traffic to `host` cannot leave this machine (or this simulation): only there plain text is allowed.
    pub fn is_loopback(&self, host: &str) -> bool {
        self.net.is_loopback(host)
    }

    /// Run `work`, which may block on disk or locks, away from the async threads.
    ///
    /// Dropping the returned future does not stop the work once it has begun. A panic of `work` continues in the caller.
    pub async fn blocking<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let span = tracing::Span::current();
        self.blocking.run(Box::new(move || {
            let _entered = span.entered();
            // The caller may have gone away; then nobody wants the answer.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
        }));
        match answer.await {
            Ok(Ok(output)) => output,
            Ok(Err(panic)) => resume_unwind(panic),
            // The work was thrown away unstarted, which happens only while the runtime shuts down: so shall we be.
            Err(_) => std::future::pending().await,
        }
    }

    /// Run `work`, which may block, away from the async threads, and wait for nothing: it tells its end itself.
    pub fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.blocking.run(work);
    }

    /// Start a named task. A panic in it is logged with the name before it reaches the join handle.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let guarded = async move {
            match AssertUnwindSafe(future).catch_unwind().await {
                Ok(output) => output,
                Err(panic) => {
                    tracing::error!(task = name, reason = panic_text(&*panic), "task panicked");
                    resume_unwind(panic)
                }
            }
        };
        tokio::spawn(guarded.instrument(tracing::debug_span!("task", name)))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

#[cfg(test)]
mod tests;
