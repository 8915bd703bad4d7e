//! What an operator does when somebody is away for long or for ever: half a flip says who is waited for, and each override
//! gets the operation to an end.

use super::{
    Engine, What,
    cell::{Red, Stage, caught},
    user::Seen,
};
use crate::{
    application::{self, Application},
    builder::{DEST, Party, SOURCE},
    operation::{Op, ended},
    operator::{done, explained},
    v1::{Operation, State},
    wait::{self, PATIENCE},
};
use ledger::CheckOptions;
use std::time::Duration;

/// A drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Drill {
    /// The destination is gone for ever while the source is fenced: `force-unfence`, then `forget --side dest`.
    ForceUnfence,
    /// The source is gone for ever: `force-promote`, then `forget --side source`.
    ForcePromote,
    /// The source is gone for ever, and the operation is cancelled: `forget --side source`.
    Forget,
    /// The source agent is away after the flip.
    SourceAway,
    /// The destination agent is away while the source is fenced.
    DestAway,
    /// The coordinator is away while the source is fenced: the agents go back by themselves.
    CoordinatorAway,
    /// The source's server is away after the flip (PostgreSQL).
    ServerAway,
}

impl Drill {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::ForceUnfence,
        Self::ForcePromote,
        Self::Forget,
        Self::SourceAway,
        Self::DestAway,
        Self::CoordinatorAway,
        Self::ServerAway,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Drill::ForceUnfence => "force-unfence",
            Drill::ForcePromote => "force-promote",
            Drill::Forget => "forget",
            Drill::SourceAway => "source-away",
            Drill::DestAway => "dest-away",
            Drill::CoordinatorAway => "coordinator-away",
            Drill::ServerAway => "server-away",
        }
    }

    /// Whether an engine has what the drill is about.
    pub fn is_for(self, engine: Engine) -> bool {
        self != Drill::ServerAway || engine == Engine::Postgres
    }

    fn point(self) -> Option<&'static str> {
        match self {
            Drill::ForceUnfence | Drill::ForcePromote | Drill::Forget => None,
            Drill::SourceAway | Drill::ServerAway => Some("source.releasing.before"),
            Drill::DestAway => Some("dest.marker.before"),
            Drill::CoordinatorAway => Some("source.fenced.after"),
        }
    }
}

/// Runs a drill.
pub fn drill(engine: Engine, drill: Drill, stop: Duration, keep: &str) -> Result<(), Red> {
    let armed: Vec<String> = drill.point().map(str::to_owned).into_iter().collect();
    let stage = caught(|| Stage::build(engine, stop, &armed, |builder| builder)).map_err(Red::Wrong)?;
    let result = caught(|| stage.drill(drill)).map_err(Red::Wrong);
    stage.end(result, keep)
}

impl Stage {
    #[track_caller]
    fn drill(&self, drill: Drill) {
        let application = self.application(if drill == Drill::Forget { What::Cancel } else { What::Move });
        let op = self.cluster.start_move(self.database());
        op.until_ready();
        match drill {
            Drill::ForceUnfence => self.force_unfence(&op, application),
            Drill::ForcePromote => self.force_promote(&op, application),
            Drill::Forget => self.forget(&op, application),
            Drill::SourceAway | Drill::DestAway | Drill::CoordinatorAway | Drill::ServerAway => {
                op.complete();
                let point = drill.point().expect("a half-flip has its point");
                assert!(self.until_reached(point, PATIENCE, || false), "nobody came to {point}");
                self.half(drill, &op, point, application);
            }
        }
    }

    #[track_caller]
    fn half(&self, drill: Drill, op: &Op<'_>, point: &str, mut application: Application) {
        match drill {
            Drill::SourceAway => {
                self.cluster.kill(SOURCE);
                self.go(point);
                let awaited = ["east is primary and serves", "source agent of west", "It waits for source agent west"];
                self.says(op, &awaited);
                self.cluster.restart(SOURCE);
            }
            Drill::ServerAway => {
                self.cluster.postgres("west").kill();
                self.go(point);
                self.says(
                    op,
                    &["east is primary and serves", "source agent of west", "It waits for source agent west"],
                );
                self.cluster.postgres("west").restart();
            }
            Drill::DestAway => {
                self.cluster.kill(DEST);
                self.go(point);
                let awaited = ["destination agent of east: it does not answer", "It waits for destination agent east"];
                self.says(op, &awaited);
                self.cluster.restart(DEST);
            }
            _ => {
                self.cluster.kill(Party::Coordinator);
                self.go(point);
                // Nobody can promote, and nobody tells the source to go back: it asks the destination after its timeout.
                application.until_more_commits(100);
                self.cluster.restart(Party::Coordinator);
            }
        }
        op.until_it("the end or readiness", |op| {
            matches!(op.state(), State::Succeeded | State::ReadyForCompletion | State::CatchingUp)
        });
        if op.now().state() != State::Succeeded {
            op.until_ready();
            op.complete();
        }
        let seen = Seen { operation: op.until_succeeded(), completed_us: 0 };
        self.judge(What::Move, &seen, application);
    }

    /// What is explained, once the operation waits for somebody.
    #[track_caller]
    fn says(&self, op: &Op<'_>, words: &[&str]) {
        wait::until(&format!("an explanation that says {words:?}"), PATIENCE, || {
            let told = explained(&self.cluster, op);
            words.iter().all(|words| told.contains(words)).then_some(())
        });
        let operation = op.now();
        assert!(!operation.waiting_for.is_empty(), "nobody is waited for: {operation:?}");
    }

    #[track_caller]
    fn force_unfence(&self, op: &Op<'_>, mut application: Application) {
        self.cluster.stop(DEST);
        op.complete();
        application.until_fenced();
        self.cluster.kill(DEST);
        done(&self.cluster, op, &["force-unfence"]);
        application.until_more_commits(100);
        op.until_it("waiting for the destination", |op| op.state() == State::Cancelling && !op.waiting_for.is_empty());
        done(&self.cluster, op, &["forget", "--side", "dest"]);
        op.until_it("only the destination's record is left", |op| op.step.contains("records"));
        done(&self.cluster, op, &["forget", "--side", "dest"]);
        let ended = op.until(State::Failed);
        assert_eq!(ended.reason.map(|reason| reason.code).as_deref(), Some("FORCED_UNFENCE"));
        self.sound("west", application);
        self.judge_place("west", true);
    }

    #[track_caller]
    fn force_promote(&self, op: &Op<'_>, mut application: Application) {
        application.until_more_commits(100);
        let history = application.history().to_owned();
        application.finish();
        op.until_it("nothing is on its way any more", |op| {
            op.progress.as_ref().is_some_and(|progress| progress.lag_bytes == 0 && progress.transactions_applied > 0)
        });
        self.cluster.kill(SOURCE);
        done(&self.cluster, op, &["force-promote"]);
        op.until_it("waiting for the source", |op| !op.waiting_for.is_empty());
        done(&self.cluster, op, &["forget", "--side", "source"]);
        // If the destination had not finished by then, the source's record is a question of its own.
        let asks_again = |op: &Operation| op.step.contains("records") && !op.waiting_for.is_empty();
        if !ended(&op.until_it("the end, or only a record left", |op| ended(op) || asks_again(op))) {
            done(&self.cluster, op, &["forget", "--side", "source"]);
        }
        op.until_succeeded();
        application::assert_sound(&CheckOptions::new(self.place("east"), &history));
        self.judge_place("east", true);
    }

    #[track_caller]
    fn forget(&self, op: &Op<'_>, application: Application) {
        self.cluster.kill(SOURCE);
        op.cancel();
        op.until_it("the source is to be cleaned up", |op| op.step.contains("source") && !op.waiting_for.is_empty());
        done(&self.cluster, op, &["forget", "--side", "source"]);
        op.until(State::Cancelled);
        self.judge_place("east", false);
        self.sound("west", application);
    }

    #[track_caller]
    fn sound(&self, instance: &str, application: Application) {
        let history = application.history().to_owned();
        application.finish();
        application::assert_sound(&CheckOptions::new(self.place(instance), &history));
    }
}
