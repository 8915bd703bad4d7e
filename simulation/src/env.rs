//! A process's environment in the simulation: what `service::env::real` is outside of it.

use crate::machine::{Effect, Process};
use service::{
    Env, Timestamp,
    env::{Blocking, BoxFuture, Clock, Io, Listener, Net, Random},
};
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use turmoil::net::{TcpListener, TcpStream};

/// The wall clock at the start of every run, in milliseconds since 1970: 2026-01-01.
pub const EPOCH_MS: i64 = 1_767_225_600_000;

/// The environment of a process.
pub fn env(process: &Process) -> Env {
    let part = Arc::new(Part(process.clone()));
    Env::new(part.clone(), part.clone(), Arc::new(Network), part)
}

struct Part(Process);

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.machine.name)
    }
}

impl Clock for Part {
    fn now(&self) -> Timestamp {
        let since_ms = i64::try_from(self.monotonic().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(EPOCH_MS + since_ms + self.0.machine.offset_ms())
    }

    fn monotonic(&self) -> Duration {
        crate::trace::now().mul_f64(self.0.machine.rate())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration.div_f64(self.0.machine.rate())))
    }
}

impl Random for Part {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

impl Blocking for Part {
    /// No thread: a task that waits as a disk would make a thread wait, and then does the work in one go.
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let process = self.0.clone();
        tokio::spawn(async move {
            // What fails here fails in the work itself, at the disk.
            let _ = process.point("blocking work", Effect::Reads).await;
            work();
        });
    }
}

struct Network;

impl Net for Network {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let address = address.to_owned();
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address.as_str()).await?) as Box<dyn Io>) })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let address = address.to_owned();
        Box::pin(async move { Ok(Box::new(Port(TcpListener::bind(address.as_str()).await?)) as Box<dyn Listener>) })
    }

    /// Nobody outside can listen, so plain text is allowed everywhere.
    fn is_loopback(&self, _: &str) -> bool {
        true
    }
}

struct Port(TcpListener);

impl Listener for Port {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Io>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as Box<dyn Io>, peer))
        })
    }
}
