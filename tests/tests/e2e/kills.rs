//! Each of the three processes is killed once in every state and started again after a second: the operation ends as if
//! nothing had happened.

use crate::journeys::assert_moved;
use causeway_tests::{Cluster, DEST, Kind, Op, Party, SOURCE, State, content, operation::request};
use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Big enough against what may be under way when a process dies, small enough to take seconds.
const SIZE_MB: u64 = 60;
/// The seed takes three seconds.
const RATE: u64 = 20_000_000;

/// The killed party and everything it does along one move, in every state that lasts.
fn dies_in_every_state(party: Party) {
    let cluster = Cluster::builder()
        .flag("source", format!("--seed-bytes-per-second={RATE}"))
        // Under load something always lags, so that the operation stays in CatchingUp while the application writes.
        .flag("coordinator", "--ready-lag-bytes=0")
        .flag("coordinator", "--ready-lag-ms=0")
        .start();
    content::filled(&cluster.west().database("shop.db"), SIZE_MB);
    let size = cluster.west().database("shop.db").metadata().expect("the database").len();
    let mut application = cluster.application("shop.db").start();

    let op = cluster.start_move("shop.db");
    // Preparing, most often: it lasts for some milliseconds.
    println!("killed in {}", op.now().state().as_str_name());
    cluster.kill_and_restart(party);

    let sent_before = kill_in_the_middle_of_the_seed(&cluster, &op, party);
    op.until_it("seeded", |op| op.state() != State::Seeding && op.state() != State::Preparing);
    let sent = sent_before + op.now().progress.unwrap_or_default().seed_bytes_sent;
    println!("{sent} bytes of seed sent for {size} bytes of database");
    assert!(sent >= size * 9 / 10, "counted {sent} of {size} bytes: this cannot be");
    assert!(sent <= size * 3 / 2, "{sent} bytes sent for {size}: the seed began again");

    op.until_it("catching up", |op| matches!(op.state(), State::CatchingUp | State::ReadyForCompletion));
    println!("killed in {}", op.now().state().as_str_name());
    cluster.kill_and_restart(party);
    application.until_more_commits(300);

    // Without writers nothing lags any more.
    let history = application.history().to_owned();
    application.finish();
    op.until_ready();
    cluster.kill_and_restart(party);
    application = cluster.application("shop.db").with(|o| o.first_writer = 2).start();
    application.until_more_commits(100);
    application.finish();
    op.until_ready();
    let mut application = cluster.application("shop.db").with(|o| o.first_writer = 4).start();
    complete_somehow(&op);
    cluster.kill_and_restart(party);
    op.until_it("the flip or readiness", |op| op.state() != State::Completing);
    if op.now().state() != State::Succeeded {
        application.until_more_commits(1);
        let _ = op.try_complete(Duration::ZERO);
    }
    op.until_succeeded();
    application.until_commits_at(&cluster.east().database("shop.db"), 100);
    application.finish();
    let report = cluster.assert_sound(&cluster.east().database("shop.db"), &history);
    println!("{report}");
    assert!(cluster.west().is_tombstone("shop.db"));
}

/// Kills after a third of the seed and again after two thirds; what was sent by source agents that are no more.
fn kill_in_the_middle_of_the_seed(cluster: &Cluster, op: &Op<'_>, party: Party) -> u64 {
    let mut sent_before = 0;
    for third in 1..=2 {
        let seen = op.until_it("a third more of the seed", |op| {
            let progress = op.progress.clone().unwrap_or_default();
            progress.seed_bytes_total > 0 && progress.seed_bytes_done * 3 >= progress.seed_bytes_total * third
                || !matches!(op.state(), State::Preparing | State::Seeding)
        });
        assert_eq!(seen.state(), State::Seeding, "the seed was over before the kill: {seen:?}");
        if party == SOURCE {
            sent_before += seen.progress.map_or(0, |progress| progress.seed_bytes_sent);
        }
        cluster.kill_and_restart(party);
    }
    sent_before
}

/// Completes; while writers are on, readiness comes and goes with these thresholds.
fn complete_somehow(op: &Op<'_>) {
    causeway_tests::wait::until("a completion", Duration::from_secs(60), || op.try_complete(Duration::ZERO).ok());
}

#[test]
fn the_source_agent_dies_in_every_state() {
    dies_in_every_state(SOURCE);
}

#[test]
fn the_destination_agent_dies_in_every_state() {
    dies_in_every_state(DEST);
}

#[test]
fn the_coordinator_dies_in_every_state() {
    dies_in_every_state(Party::Coordinator);
}

/// Pseudo-random numbers from a printed seed.
pub struct Dice(u64);

impl Dice {
    /// Seeded by `CAUSEWAY_TEST_SEED` or the clock.
    pub fn new() -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64 | 1);
        let seed = std::env::var("CAUSEWAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
        println!("CAUSEWAY_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound` (xorshift64).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Kills `party` at random moments of completions of a move and a copy, so that in many rounds every step is hit.
fn dies_while_completing(party: Party, rounds: u32) {
    let cluster = Cluster::new();
    let mut dice = Dice::new();
    for round in 0..rounds {
        let name = format!("round-{round}.db");
        let mut application = cluster.application(&name).new_database().with(|o| o.rate = 300.0).start();
        let op = cluster.start(request(Kind::Move, &[&name]));
        op.until_ready();
        op.complete();
        let delay = Duration::from_micros(dice.below(60_000));
        thread::sleep(delay);
        cluster.kill(party);
        thread::sleep(Duration::from_millis(dice.below(1000)));
        cluster.restart(party);
        let after = op.until_decided();
        println!("round {round}: {party:?} died after {delay:?}, attempt {}", after.attempt);
        if after.state() == State::ReadyForCompletion {
            op.complete();
            op.until_succeeded();
        }
        application.until_commits_at(&cluster.east().database(&name), 50);
        assert_moved(&cluster, &name, &application.finish());
    }
}

const ROUNDS: u32 = 6;

#[test]
fn the_source_agent_dies_at_any_moment_of_the_completion() {
    dies_while_completing(SOURCE, ROUNDS);
}

#[test]
fn the_destination_agent_dies_at_any_moment_of_the_completion() {
    dies_while_completing(DEST, ROUNDS);
}

#[test]
fn the_coordinator_dies_at_any_moment_of_the_completion() {
    dies_while_completing(Party::Coordinator, ROUNDS);
}

#[test]
#[ignore = "a soak: `make soak` runs it"]
fn everybody_dies_at_any_moment_of_many_completions() {
    for party in [SOURCE, DEST, Party::Coordinator] {
        dies_while_completing(party, 100);
    }
}
