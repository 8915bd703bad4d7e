//! What each command does.

mod auth;
mod certs;
mod complete;
mod coordinator;
mod demo;
mod inspect;
mod instance;
mod overrides;
mod start;
mod store;

use clap::CommandFactory;
use jiff::Timestamp;
use service::Env;

use crate::{
    args::{Cli, Command, GlobalArgs, KindCommand, OperationCommand, SideWord},
    exit::Exit,
    failure::Failure,
    render::Output,
    rpc::Client,
};

/// What a command works with.
pub(crate) struct Context<'a> {
    pub(crate) env: Env,
    pub(crate) global: &'a GlobalArgs,
    pub(crate) output: &'a Output,
}

impl Context<'_> {
    async fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.env, self.global).await
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.env.now().as_millis()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Does what the command line says.
pub async fn run(cli: Cli, output: &Output, env: Env) -> Result<Exit, Failure> {
    let context = Context { env, global: &cli.global, output };
    match cli.command {
        Command::Move { command } => of_kind(&context, proto::v1::Kind::Move, command).await,
        Command::Copy { command } => of_kind(&context, proto::v1::Kind::Copy, command).await,
        Command::Operation { command } => operation(&context, command).await,
        Command::Database { command } => instance::database(&context, command).await,
        Command::Instance { command } => instance::instance(&context, command).await,
        Command::Auth { command } => auth::run(&context, command).await,
        Command::Coordinator { command } => coordinator::run(&context, command).await,
        Command::Store { command } => store::run(&context, command).await,
        Command::Certs(args) => certs::run(&context, args).await,
        Command::Demo(args) => demo::run(&context, args).await,
        Command::Completions { shell } => {
            output.print(&completions(shell));
            Ok(Exit::Ok)
        }
        Command::Version => {
            output.print(&format!("causeway {} (transfer protocol {})", env!("CARGO_PKG_VERSION"), proto::PROTOCOL));
            Ok(Exit::Ok)
        }
    }
}

async fn of_kind(context: &Context<'_>, kind: proto::v1::Kind, command: KindCommand) -> Result<Exit, Failure> {
    match command {
        KindCommand::Start(args) => start::run(context, kind, args).await,
        KindCommand::Complete(args) => complete::complete(context, kind, args).await,
        KindCommand::Cancel(args) => complete::cancel(context, kind, args).await,
        KindCommand::List(args) => inspect::list(context, kind, args).await,
    }
}

async fn operation(context: &Context<'_>, command: OperationCommand) -> Result<Exit, Failure> {
    match command {
        OperationCommand::Show { id } => inspect::show(context, &id).await,
        OperationCommand::Explain { id } => inspect::explain(context, id).await,
        OperationCommand::Watch(args) => inspect::watch(context, args).await,
        OperationCommand::List(args) => inspect::list(context, proto::v1::Kind::Unspecified, args).await,
        OperationCommand::Forget { side: SideWord::Source, target } => {
            overrides::run(context, overrides::Which::ForgetSource, target).await
        }
        OperationCommand::Forget { side: SideWord::Dest, target } => {
            overrides::run(context, overrides::Which::ForgetDest, target).await
        }
        OperationCommand::ForceUnfence(target) => overrides::run(context, overrides::Which::Unfence, target).await,
        OperationCommand::ForcePromote(target) => overrides::run(context, overrides::Which::Promote, target).await,
    }
}

/// The completion script of a shell.
fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "causeway", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The word for a kind.
fn word(kind: proto::v1::Kind) -> &'static str {
    match kind {
        proto::v1::Kind::Move => "move",
        proto::v1::Kind::Copy => "copy",
        proto::v1::Kind::Unspecified => "operation",
    }
}

/// A coordinator that left out what its answer is about.
fn unanswered(doing: &str) -> Failure {
    Failure::new(Exit::Failed, doing, "the coordinator's answer is empty")
        .remedy("check that the versions of coordinator and command line fit: `causeway version`")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    #[test]
    fn every_shell_gets_a_script_with_every_command() {
        for shell in clap_complete::Shell::value_variants() {
            let script = super::completions(*shell);
            for word in ["validate-only", "force-promote", "completions"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
