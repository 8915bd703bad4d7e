//! An agent's process, from its arguments to its exit code.

use crate::{Error, config::AgentArgs};
use clap::Parser;
use service::{Env, Shutdown, Tls, config, env::Listener, memory, serve, status::chain};

/// Exit code of an agent that was taken over, so that a supervisor does not start it again at once.
const EXIT_SUPERSEDED: i32 = 75;

/// What a process has when its agent begins to live.
pub struct Process {
    /// The real environment.
    pub env: Env,
    /// The port, not served yet.
    pub listener: Box<dyn Listener>,
    /// The certificates, unless the process runs without.
    pub tls: Option<Tls>,
    /// Triggered by signals.
    pub shutdown: Shutdown,
}

/// All of an agent's `main`: reads the arguments, of which `common` are those of every agent, takes the port, and lives.
/// `live` is given what is left to do; what it fails with decides the exit code.
pub fn main<A: Parser>(common: impl Fn(&A) -> &AgentArgs, live: impl AsyncFnOnce(A, Process) -> Result<(), Error>) {
    // Before the runtime makes threads.
    memory::bound();
    start(common, live);
}

#[tokio::main]
async fn start<A: Parser>(common: impl Fn(&A) -> &AgentArgs, live: impl AsyncFnOnce(A, Process) -> Result<(), Error>) {
    let loaded = config::parse::<A>(&[]).unwrap_or_else(|error| match error {
        config::Error::Usage(usage) => usage.exit(),
        other => fail::<A>(&other, 2),
    });
    let args = &common(&loaded.args).common;
    args.log.init().unwrap_or_else(|error| fail::<A>(&error, 2));
    let env = Env::real();
    let tls = args.tls.load(&env).await.unwrap_or_else(|error| fail::<A>(&error, 2));
    let shutdown = Shutdown::on_signals().unwrap_or_else(|error| fail::<A>(&error, 1));
    let listener = serve::bind(&env, &args.listen, tls.is_some()).await.unwrap_or_else(|error| fail::<A>(&error, 1));
    if let Err(error) = live(loaded.args, Process { env, listener, tls, shutdown }).await {
        let code = match error {
            // At once: nothing more may be written by a process that has lost its lock.
            Error::Superseded(_) => EXIT_SUPERSEDED,
            Error::Configuration(_) | Error::Failpoints(_) => 2,
            Error::Engine(_) | Error::Serve(_) => 1,
        };
        let said = match &error {
            // What the engine has against it comes with a code and a remedy.
            Error::Configuration(cause) | Error::Engine(cause) => {
                format!("{} ({}); {}", chain(&error), cause.code(), cause.remedy())
            }
            Error::Superseded(_) | Error::Serve(_) | Error::Failpoints(_) => chain(&error),
        };
        fail_with::<A>(&said, code);
    }
}

fn fail<A: Parser>(error: &(dyn std::error::Error + 'static), code: i32) -> ! {
    fail_with::<A>(&chain(error), code)
}

fn fail_with<A: Parser>(said: &str, code: i32) -> ! {
    eprintln!("{}: {said}", A::command().get_name());
    std::process::exit(code)
}
