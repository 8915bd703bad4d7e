//! The application of the demo: writer processes that know nothing of Causeway.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ledger::{Process, Program, Summary, WriteOptions, process};
use service::Env;

use super::{
    instances::Instances,
    stage::{EAST, WEST},
};
use crate::{
    args::{DemoArgs, DemoMode},
    exit::Exit,
    failure::Failure,
    units,
};

/// How often its history is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long it may take to commit something; opening the database takes milliseconds.
const COMMIT_MAX: Duration = Duration::from_secs(10);
/// Writer processes.
pub(super) const WRITERS: u32 = 2;

/// The running application. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Application {
    process: Process,
    history: PathBuf,
}

impl Application {
    /// Starts it at west; for a move it looks at east too once it is refused.
    ///
    /// Call it on the main thread: the writers die with the thread that starts them.
    pub(super) fn start(args: &DemoArgs, program: &Path, dir: &Path, instances: &Instances) -> Result<Self, Failure> {
        let history = dir.join("ledger");
        let mut options = WriteOptions::new(instances.place(WEST), history.clone());
        (options.writers, options.processes) = (WRITERS, true);
        (options.rate, options.duration) = (f64::from(args.rate), 0.0);
        // The database has its tables and its mode.
        (options.no_setup, options.journal_mode) = (true, String::new());
        options.die_with_parent = true;
        if args.mode == DemoMode::Move {
            options.follow = vec![instances.place(EAST)];
        }
        let process = Process::spawn(&Program::at(program), &options).map_err(|error| failed(&error))?;
        Ok(Self { process, history })
    }

    /// Transactions acknowledged so far.
    pub(super) fn acknowledged(&mut self) -> Result<u64, Failure> {
        self.process.acknowledged().map_err(|error| failed(&error))
    }

    /// Waits until so many more are acknowledged, at this place if one is given.
    pub(super) async fn more(&mut self, env: &Env, count: u64, at: Option<&Path>) -> Result<(), Failure> {
        let goal = self.acknowledged()?.saturating_add(count);
        let due = env.monotonic() + COMMIT_MAX;
        loop {
            // With no patience at all these only look.
            let looked = match at {
                None => self.process.wait_for_commits(goal, Duration::ZERO),
                Some(place) => self.process.wait_for_commits_at(place, count, Duration::ZERO),
            };
            match looked {
                Ok(()) => return Ok(()),
                Err(process::Error::TooLate { .. }) if env.monotonic() < due => env.sleep(POLL).await,
                Err(process::Error::TooLate { seen, .. }) => {
                    let place = at.map_or_else(String::new, |place| format!(" at {}", place.display()));
                    let message = format!("it committed {seen} transactions{place} in {}", units::duration(COMMIT_MAX));
                    return Err(Failure::new(Exit::Failed, "wait for the application", message));
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// Tells it to finish; what it says of its run.
    pub(super) async fn stop(self, env: &Env) -> Result<(Summary, PathBuf), Failure> {
        let Self { process, history } = self;
        let summary = env.blocking(move || process.stop()).await.map_err(|error| failed(&error))?;
        Ok((summary, history))
    }
}

fn failed(error: &process::Error) -> Failure {
    Failure::local("run the application", error)
}
