//! kill -9 of everything that takes part, in every state that lasts, under load: the operation ends right, nothing is lost,
//! and no slot or fence is left.

use super::{assert_carried, filled};
use crate::kills::Dice;
use causeway_tests::{Application, Cluster, DEST, Op, POSTGRES, Party, SOURCE, State};
use std::{thread, time::Duration};

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// An agent or the coordinator; it is started again after a second.
    Process(Party),
    /// The server process that sends the log, whose server then restarts itself.
    Walsender,
    /// The server of an instance; it is started again after a second.
    Postmaster(&'static str),
}

impl Victim {
    fn strike(self, cluster: &Cluster, op: &Op<'_>) {
        let state = op.look().map_or("unknown", |op| op.state().as_str_name());
        println!("{self:?} is killed in {state}");
        match self {
            Victim::Process(party) => cluster.kill_and_restart(party),
            Victim::Walsender => {
                println!("there was one: {}", cluster.postgres("west").kill_backend("backend_type = 'walsender'"));
            }
            Victim::Postmaster(instance) => {
                cluster.postgres(instance).kill();
                thread::sleep(Duration::from_secs(1));
                cluster.postgres(instance).restart();
            }
        }
    }
}

/// One move with a kill in every state.
fn dies_in_every_state(victim: Victim) {
    let cluster = Cluster::builder().engine(POSTGRES).flag("source", "--seed-bytes-per-second=15000000").start();
    filled(&cluster, "shop", 40);
    let before = super::untouched(&cluster, "west", "shop");
    let mut application = cluster.application("shop").interleaved().with(|o| o.rate = 200.0).start();

    let op = cluster.start_move("shop");
    op.until_it("a third of the seed", |op| {
        let progress = op.progress.clone().unwrap_or_default();
        let third = progress.seed_bytes_total > 0 && progress.seed_bytes_done * 3 >= progress.seed_bytes_total;
        third || !matches!(op.state(), State::Preparing | State::Seeding)
    });
    victim.strike(&cluster, &op);
    op.until_it("catching up", |op| matches!(op.state(), State::CatchingUp | State::ReadyForCompletion));
    victim.strike(&cluster, &op);
    application.until_more_commits(200);
    op.until_ready();
    victim.strike(&cluster, &op);
    application.until_more_commits(200);
    completes(&cluster, &op, victim, Duration::from_millis(30), &mut application);

    let summary = application.finish();
    println!("{summary}");
    assert_carried(&cluster, "shop");
    assert_eq!(before, super::untouched(&cluster, "east", "shop"));
}

/// Completes, kills in the middle, and completes again if the attempt was given up.
fn completes(cluster: &Cluster, op: &Op<'_>, victim: Victim, after: Duration, application: &mut Application) {
    op.until_ready();
    op.complete();
    thread::sleep(after);
    victim.strike(cluster, op);
    let after = op.until_it("the end or readiness", |op| {
        matches!(op.state(), State::Succeeded | State::ReadyForCompletion | State::CatchingUp)
    });
    if after.state() != State::Succeeded {
        application.until_more_commits(20);
        op.until_ready();
        op.complete();
    }
    op.until_succeeded();
    application.until_commits_at(&cluster.database("east", "shop"), 100);
}

#[test]
fn the_source_agent_dies_in_every_state() {
    dies_in_every_state(Victim::Process(SOURCE));
}

#[test]
fn the_destination_agent_dies_in_every_state() {
    dies_in_every_state(Victim::Process(DEST));
}

#[test]
fn the_coordinator_dies_in_every_state() {
    dies_in_every_state(Victim::Process(Party::Coordinator));
}

#[test]
fn the_walsender_dies_in_every_state() {
    dies_in_every_state(Victim::Walsender);
}

#[test]
fn the_source_server_dies_in_every_state() {
    dies_in_every_state(Victim::Postmaster("west"));
}

#[test]
fn the_destination_server_dies_in_every_state() {
    dies_in_every_state(Victim::Postmaster("east"));
}

/// Kills at a random moment of the beginning, and of the cancellation: the operation gets ready all the same, and leaves nothing.
fn dies_while_beginning_and_while_cancelling(victim: Victim) {
    let cluster = Cluster::builder().engine(POSTGRES).start();
    let mut dice = Dice::new();
    filled(&cluster, "shop", 5);
    let mut application = cluster.application("shop").interleaved().with(|o| o.rate = 200.0).start();
    for _ in 0..2 {
        let op = cluster.start_move("shop");
        thread::sleep(Duration::from_micros(dice.below(400_000)));
        victim.strike(&cluster, &op);
        op.until_ready();
        // A coordinator that was killed before it answered has not heard of it.
        while op.try_cancel().is_err() {
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_micros(dice.below(50_000)));
        victim.strike(&cluster, &op);
        op.until(State::Cancelled);
        cluster.postgres("west").until_clean();
        cluster.postgres("east").until_clean();
        assert_eq!(cluster.postgres("east").databases(), Vec::<String>::new());
        application.until_more_commits(50);
    }
    let history = application.history().to_owned();
    application.finish();
    cluster.assert_sound(&cluster.database("west", "shop"), &history);
}

#[test]
fn an_agent_dies_while_an_operation_begins_and_while_it_is_cancelled() {
    dies_while_beginning_and_while_cancelling(Victim::Process(SOURCE));
    dies_while_beginning_and_while_cancelling(Victim::Process(DEST));
}

#[test]
fn coordinator_and_walsender_die_while_an_operation_begins_and_while_it_is_cancelled() {
    dies_while_beginning_and_while_cancelling(Victim::Process(Party::Coordinator));
    dies_while_beginning_and_while_cancelling(Victim::Walsender);
}

/// Kills at random moments of completions, so that in many rounds every step is hit.
fn dies_while_completing(victim: Victim, rounds: u32) {
    let cluster = Cluster::builder().engine(POSTGRES).start();
    let mut dice = Dice::new();
    for round in 0..rounds {
        println!("round {round}");
        filled(&cluster, "shop", 1);
        let mut application = cluster.application("shop").with(|o| o.rate = 200.0).start();
        let op = cluster.start_move("shop");
        completes(&cluster, &op, victim, Duration::from_micros(dice.below(250_000)), &mut application);
        application.finish();
        assert_carried(&cluster, "shop");
        cluster.postgres("east").sql("postgres", "DROP DATABASE shop WITH (FORCE)");
        std::fs::remove_file(cluster.dir().join("shop.history")).expect("forget the history");
    }
}

const ROUNDS: u32 = 3;

#[test]
fn the_source_agent_dies_at_any_moment_of_the_completion() {
    dies_while_completing(Victim::Process(SOURCE), ROUNDS);
}

#[test]
fn the_destination_agent_dies_at_any_moment_of_the_completion() {
    dies_while_completing(Victim::Process(DEST), ROUNDS);
}

#[test]
fn the_coordinator_dies_at_any_moment_of_the_completion() {
    dies_while_completing(Victim::Process(Party::Coordinator), ROUNDS);
}

#[test]
fn either_server_dies_at_any_moment_of_the_completion() {
    dies_while_completing(Victim::Postmaster("west"), 2);
    dies_while_completing(Victim::Postmaster("east"), 2);
}

#[test]
#[ignore = "a soak: `make soak` runs it"]
fn everybody_dies_at_any_moment_of_many_completions() {
    for victim in [
        Victim::Process(SOURCE),
        Victim::Process(DEST),
        Victim::Process(Party::Coordinator),
        Victim::Walsender,
        Victim::Postmaster("west"),
        Victim::Postmaster("east"),
    ] {
        dies_while_completing(victim, 50);
    }
}
