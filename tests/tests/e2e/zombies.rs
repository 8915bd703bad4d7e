//! Agents that were stopped and taken over, and coordinators that are out of date: they change nothing.

use causeway_tests::{
    Cluster, DEST, Party, SOURCE, State, content,
    place::Place,
    v1,
    wait::{self, PATIENCE},
};
use service::status::{describe, reason_of};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tonic::{Code, Status};

/// What an agent that another one took over ends with.
const SUPERSEDED: i32 = 75;

/// Every file of an instance with its bytes, without signs of life and without what SQLite keeps in memory.
fn everything(place: &Place) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.display().to_string();
            if path.is_dir() {
                walk(&path, found);
            } else if !name.ends_with("heartbeat") && !name.ends_with("-shm") {
                found.insert(name, fs::read(&path).unwrap_or_default());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(place.path(), &mut found);
    found
}

/// The same, once nothing has changed for half a second.
fn settled(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let (mut last, mut since) = (everything(place), Instant::now());
    wait::until("an instance at rest", PATIENCE, move || {
        let now = everything(place);
        if now != last {
            (last, since) = (now, Instant::now());
            return None;
        }
        (since.elapsed() > Duration::from_millis(500)).then_some(now)
    })
}

/// Stops an agent, lets a rival take over, continues it: it must end without having written anything.
fn zombie_writes_nothing(party: Party, place: impl Fn(&Cluster) -> Place) {
    let kind = if party == SOURCE { "source" } else { "dest" };
    let cluster = Cluster::builder().flag(kind, "--takeover-after=2").start();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();

    cluster.stop(party);
    // What the application writes now waits in the stopped agent's sockets, or for it in the database's log.
    application.until_more_commits(200);
    let history = application.history().to_owned();
    application.finish();
    let mut rival = cluster.rival(party);
    rival.until_listening(Duration::from_secs(30));
    // A rival at the source takes the log up; once it has nothing left to do, what changes is the zombie's doing.
    let before = settled(&place(&cluster));
    cluster.resume(party);
    let status = cluster.until_exit(party, PATIENCE);
    assert_eq!(status.code(), Some(SUPERSEDED), "{}", cluster.log_tail(party, 10));
    let after = everything(&place(&cluster));
    let names = after.keys().chain(before.keys());
    let changed: Vec<&String> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(changed.is_empty(), "the zombie, or nobody, changed {changed:?}");

    // With the first one back at its address the move goes on as if nothing had happened.
    rival.kill();
    cluster.restart(party);
    op.until_it("readiness", |op| op.state() == State::ReadyForCompletion && op.waiting_for.is_empty());
    op.complete();
    op.until_succeeded();
    cluster.assert_sound(&cluster.east().database("shop.db"), &history);
}

#[test]
fn a_source_agent_that_was_taken_over_writes_nothing() {
    zombie_writes_nothing(SOURCE, Cluster::west);
}

#[test]
fn a_destination_agent_that_was_taken_over_writes_nothing() {
    zombie_writes_nothing(DEST, Cluster::east);
}

#[test]
fn a_second_agent_waits_while_the_first_one_lives() {
    let cluster = Cluster::builder().flag("dest", "--takeover-after=2").start();
    let mut rival = cluster.rival(DEST);
    std::thread::sleep(Duration::from_secs(4));
    assert!(rival.is_running(), "it waits rather than ends");
    let described = cluster.call(cluster.dest_agent("east").describe(v1::DescribeRequest {})).expect("the first one");
    cluster.kill(DEST);
    rival.until_listening(Duration::from_secs(10));
    let client = v1::dest_agent_client::DestAgentClient::new(cluster.channel(&rival.address(), "coordinator"));
    let after = cluster.call({ client }.describe(v1::DescribeRequest {})).expect("the second one");
    assert!(after.epoch > described.epoch, "epochs grow: {} and {}", described.epoch, after.epoch);
}

#[track_caller]
fn assert_stale<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    let refused = answer.expect_err(what);
    assert_eq!(refused.code(), Code::Aborted, "{what}: {}", describe(&refused));
    assert_eq!(reason_of(&refused).map(|reason| reason.to_string()).as_deref(), Some("STALE_VERSION"), "{what}");
}

#[test]
fn commands_of_a_stale_coordinator_change_nothing() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 3);
    let mut application = cluster.application("shop.db").start();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    let (operation, version, attempt) = (|| op.id.clone(), 1, 7);
    let mut source = cluster.source_agent("west");
    let mut dest = cluster.dest_agent("east");

    assert_stale(
        "Fence",
        cluster.call(source.fence(v1::FenceRequest { operation: operation(), version, attempt, grace_ms: 100 })),
    );
    assert_stale(
        "Unfence",
        cluster.call(source.unfence(v1::UnfenceRequest { operation: operation(), version, attempt })),
    );
    let moved_to = String::new();
    assert_stale(
        "Release",
        cluster.call(source.release(v1::ReleaseRequest { operation: operation(), version, attempt, moved_to })),
    );
    assert_stale("Cleanup", cluster.call(source.cleanup(v1::CleanupRequest { operation: operation(), version })));
    assert_stale(
        "Promote",
        cluster.call(dest.promote(v1::PromoteRequest { operation: operation(), version, attempt, wait_ms: 0 })),
    );
    let abort = v1::AbortRequest { operation: operation(), version, attempt, ..Default::default() };
    assert_stale("Abort", cluster.call(dest.abort(abort)));
    assert_stale("Discard", cluster.call(dest.discard(v1::DiscardRequest { operation: operation(), version })));
    assert_stale("Finish", cluster.call(dest.finish(v1::FinishRequest { operation: operation(), version })));
    assert_stale("Forget", cluster.call(dest.forget(v1::ForgetRequest { operation: operation(), version })));

    application.until_more_commits(50);
    assert_eq!(op.now().state(), State::ReadyForCompletion);
    op.complete();
    let moved = op.until_succeeded();
    assert_eq!(moved.attempt, 1, "no attempt was closed by them");
    application.until_commits_at(&cluster.east().database("shop.db"), 50);
    crate::journeys::assert_moved(&cluster, "shop.db", &application.finish());
}

#[test]
fn an_agent_obeys_nobody_but_the_coordinator() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 3);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    let operation = || op.id.clone();
    let user = |party| cluster.channel(&cluster.address(party), "user");
    let mut source = v1::source_agent_client::SourceAgentClient::new(user(SOURCE));
    let mut dest = v1::dest_agent_client::DestAgentClient::new(user(DEST));
    let version = u64::MAX / 2;
    let fence = v1::FenceRequest { operation: operation(), version, attempt: 1, grace_ms: 100 };
    let refused = cluster.call(source.fence(fence)).expect_err("a user's fence");
    assert_eq!(refused.code(), Code::PermissionDenied, "{}", describe(&refused));
    let refused =
        cluster.call(dest.discard(v1::DiscardRequest { operation: operation(), version })).expect_err("discard");
    assert_eq!(refused.code(), Code::PermissionDenied, "{}", describe(&refused));
    // An Abort with a wrong token is refused as well: the token is the source agent's word.
    let abort = v1::AbortRequest { operation: operation(), attempt: 1, token: "0".repeat(32), ..Default::default() };
    let refused = cluster.call(dest.abort(abort)).expect_err("an Abort with a wrong token");
    assert!(matches!(refused.code(), Code::PermissionDenied | Code::Unauthenticated), "{}", describe(&refused));
    op.complete();
    op.until_succeeded();
}
