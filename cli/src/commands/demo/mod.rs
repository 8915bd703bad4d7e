//! `demo`: a whole move or copy on this machine, with real processes, a live writer and the proof.

mod application;
mod children;
mod instances;
mod play;
mod proof;
mod stage;
mod story;

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::{args::DemoArgs, exit::Exit, failure::Failure};
use children::Children;
use instances::Instances;
use story::Story;

/// What everything but the application's free run may take together: on a slow machine it takes 15 s.
const PATIENCE: Duration = Duration::from_secs(50);

pub(super) async fn run(context: &Context<'_>, args: DemoArgs) -> Result<Exit, Failure> {
    let programs = children::Programs::find()?;
    let dir = work_dir(args.dir.as_ref())?;
    let mut children = Children::default();
    let mut instances = None;
    let mut story = Story::new(*context.output, &context.env);
    let limit = PATIENCE + Duration::from_secs(args.seconds);
    let played = {
        let cast = play::Cast { programs: &programs, children: &mut children, instances: &mut instances };
        let play = Box::pin(play::play(context, &args, dir.path(), cast, &mut story));
        tokio::select! {
            played = context.env.timeout(limit, play) => played.unwrap_or_else(|_| Err(too_late(limit))),
            name = interrupted() => Err(Failure::new(Exit::Interrupted, "", format!("{name}: the demo is over, its processes are ended"))),
        }
    };
    story.abandon();
    children.end(&context.env).await;
    let failed = match &played {
        Ok(exit) => *exit != Exit::Ok,
        Err(failure) => failure.exit != Exit::Interrupted,
    };
    if failed {
        eprint!("{}", children.tails());
    }
    if args.keep || failed {
        instances.iter_mut().for_each(Instances::keep);
        let path = dir.keep();
        story.aside(&format!("databases, certificates and logs are in {}", path.display()));
    }
    // Ending servers blocks for a moment.
    context.env.blocking(move || drop(instances)).await;
    played
}

/// A directory of its own, inside the one that was asked for.
fn work_dir(inside: Option<&PathBuf>) -> Result<TempDir, Failure> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("causeway-demo-");
    let made = match inside {
        None => builder.tempdir(),
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| builder.tempdir_in(dir)),
    };
    made.map_err(|error| Failure::local("make a directory for the demo", &error))
}

fn too_late(limit: Duration) -> Failure {
    Failure::new(Exit::Failed, "show the demo", format!("it did not end within {} s", limit.as_secs()))
        .remedy("see the logs below; on a slow machine try --size-mb 8")
}

/// Completes when somebody wants the demo to end, with the signal's name.
async fn interrupted() -> &'static str {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler the signal ends this process, and kills nothing else: better than no demo.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => "interrupted",
        () = wait(SignalKind::terminate()) => "terminated",
        () = wait(SignalKind::hangup()) => "the terminal is gone",
    }
}
