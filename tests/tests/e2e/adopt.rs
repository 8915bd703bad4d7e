//! The coordinator's store is lost entirely: a new one takes up what the agents remember.

use causeway_tests::{
    Cluster, DEST, Op, Party, SOURCE, State, content,
    operator::{causeway, causeway_at},
    v1::{self, DescribeRequest},
    wait::{self, PATIENCE},
};
use std::{fs, path::PathBuf, process::Output, time::Duration};

/// The instances as a file for `--instances`.
fn instances(cluster: &Cluster) -> PathBuf {
    let sections = ["west", "east"].map(|name| {
        let v1::Instance { name, engine, source_agent, dest_agent, .. } = cluster.instance(name);
        format!(
            "[[instance]]\nname = {name:?}\nengine = {engine:?}\nsource_agent = {source_agent:?}\ndest_agent = {dest_agent:?}\n"
        )
    });
    let path = cluster.dir().join("instances.toml");
    fs::write(&path, sections.concat()).expect("write the instances");
    path
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn refused(output: &Output, code: i32, reason: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(reason), "{}", said(output));
}

/// Kills the coordinator and takes its store away.
fn lose_the_store(cluster: &Cluster) {
    cluster.kill(Party::Coordinator);
    fs::remove_file(cluster.store()).expect("remove the store");
}

/// Adopts, once the agents have heard nobody for a while.
#[track_caller]
fn adopt(cluster: &Cluster, args: &[&str]) -> String {
    wait::until("the adoption", PATIENCE, || {
        let output = causeway(cluster, &[&["coordinator", "adopt"], args].concat());
        if said(&output).contains("COORDINATOR_ALIVE") {
            return None;
        }
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        Some(said(&output))
    })
}

/// How many operations the two agents remember.
fn remembered(cluster: &Cluster) -> usize {
    let source = cluster.call(cluster.source_agent("west").describe(DescribeRequest {})).expect("it answers");
    let dest = cluster.call(cluster.dest_agent("east").describe(DescribeRequest {})).expect("it answers");
    source.operations.len() + dest.operations.len()
}

#[test]
fn operations_in_every_stage_go_on_with_a_new_store() {
    let cluster = Cluster::builder().flag("source", "--seed-bytes-per-second=2000000").start();
    for (database, size_mb) in [("ready.db", 1), ("fenced.db", 1), ("copied.db", 1), ("seeding.db", 60)] {
        content::filled(&cluster.west().database(database), size_mb);
    }
    let mut application = cluster.application("fenced.db").start();
    let (ready, copied) = (cluster.start_move("ready.db"), cluster.start_copy("copied.db"));
    let fenced = cluster.start_move("fenced.db");
    for op in [&ready, &copied, &fenced] {
        op.until_ready();
    }
    let seeding = cluster.start_move("seeding.db");
    seeding.until(State::Seeding);

    // The store is lost while a source is closed and nobody but the destination could say what became of the attempt.
    cluster.stop(DEST);
    fenced.complete();
    application.until_fenced();
    lose_the_store(&cluster);
    cluster.resume(DEST);
    cluster.restart(Party::Coordinator);

    refused(&causeway(&cluster, &["coordinator", "adopt"]), 4, "NO_INSTANCES");
    let file = instances(&cluster);
    let file = file.to_str().expect("a plain path");
    cluster.kill(DEST);
    refused(&causeway(&cluster, &["coordinator", "adopt", "--instances", file]), 3, "AGENTS_UNHEARD");
    cluster.restart(DEST);

    let told = adopt(&cluster, &["--validate-only"]);
    for op in [&ready, &copied, &fenced, &seeding] {
        assert!(told.contains(&op.id), "{} is missing in: {told}", op.id);
    }
    let listed = causeway(&cluster, &["operation", "list"]);
    assert!(!said(&listed).contains(&ready.id), "nothing is taken up yet: {}", said(&listed));
    adopt(&cluster, &[]);

    // The destination was asked, and the source is open again.
    let back = fenced.until_ready();
    assert_eq!(back.overrides.iter().map(|used| used.what.as_str()).collect::<Vec<_>>(), ["adopt"]);
    application.until_more_commits(100);
    fenced.complete();
    fenced.until_succeeded_after_all();
    application.until_commits_at(&cluster.east().database("fenced.db"), 100);
    let history = application.history().to_owned();
    application.finish();
    println!("{}", cluster.assert_sound(&cluster.east().database("fenced.db"), &history));

    for op in [&ready, &copied] {
        op.until_ready();
        op.complete();
        op.until_succeeded_after_all();
    }
    assert!(cluster.west().is_tombstone("ready.db") && cluster.east().is_writable("ready.db"));
    assert!(cluster.west().is_writable("copied.db") && cluster.east().is_writable("copied.db"));
    seeding.cancel();
    seeding.until(State::Cancelled);
    assert!(cluster.west().is_writable("seeding.db") && !cluster.east().database("seeding.db").exists());
    assert_eq!(remembered(&cluster), 0, "nothing is left of any of them");
    assert!(adopt(&cluster, &[]).contains("no operation is taken up"));
}

#[test]
fn what_had_flipped_is_finished() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 1);
    let before = content_of(&cluster, "west");
    let op = cluster.start_move("shop.db");
    op.until_ready();
    // The source hears no Release: it is stopped as soon as the destination is open.
    op.complete();
    let open = || cluster.east().database("shop.db").exists().then_some(());
    wait::until("the flip", PATIENCE, open);
    cluster.stop(SOURCE);
    lose_the_store(&cluster);
    cluster.resume(SOURCE);
    cluster.restart(Party::Coordinator);
    if remembered(&cluster) > 0 {
        let file = instances(&cluster);
        adopt(&cluster, &["--instances", file.to_str().expect("a plain path")]);
        assert_eq!(op.until_ended().state(), State::Succeeded);
    }
    assert!(cluster.west().is_tombstone("shop.db"));
    assert_eq!(content_of(&cluster, "east"), before);
    assert_eq!(remembered(&cluster), 0);
}

/// A closed source that asks the destination now and then hears no coordinator by that.
#[test]
fn a_source_that_asks_the_destination_does_not_hold_up_the_adoption() {
    // Shorter than the silence that an adoption waits for.
    let cluster = Cluster::builder().flag("source", "--fence-timeout=8").start();
    content::filled(&cluster.west().database("shop.db"), 1);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    lose_the_store(&cluster);
    let (operation, version, attempt) = (op.id.clone(), 1 << 40, 1);
    let fence = v1::FenceRequest { operation: operation.clone(), version, attempt, grace_ms: 100 };
    cluster.call(cluster.source_agent("west").fence(fence)).expect("the source is closed");
    let promote = v1::PromoteRequest { operation, version, attempt, wait_ms: 5000 };
    cluster.call(cluster.dest_agent("east").promote(promote)).expect("the destination is open");

    cluster.restart(Party::Coordinator);
    let file = instances(&cluster);
    adopt(&cluster, &["--instances", file.to_str().expect("a plain path")]);
    assert_eq!(op.until_ended().state(), State::Succeeded);
    assert!(cluster.west().is_tombstone("shop.db"));
    assert_eq!(remembered(&cluster), 0);
}

fn content_of(cluster: &Cluster, instance: &str) -> Vec<ledger::driver::TableHash> {
    cluster.place(instance).content("shop.db")
}

#[test]
fn nothing_is_adopted_from_a_coordinator_that_lives() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 1);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    let store = format!("--store=redb:{}", cluster.dir().join("other.redb").display());
    let mut other = cluster.rival_with(Party::Coordinator, &[store]);
    other.until_listening(PATIENCE);
    let file = instances(&cluster);
    let args = ["coordinator", "adopt", "--instances", file.to_str().expect("a plain path")];
    refused(&causeway_at(&cluster, &other.address(), &args), 4, "COORDINATOR_ALIVE");
    // Its own operations are nothing to be adopted.
    let own = causeway(&cluster, &["coordinator", "adopt"]);
    assert!(own.status.success() && said(&own).contains("no operation is taken up"), "{}", said(&own));
    assert!(op.complete_within(Duration::ZERO).ended.is_none());
    op.until_succeeded();
}

/// The half of an operation that only one side remembers is cancelled, and one about which nothing can be told is left alone.
#[test]
fn half_an_operation_is_ended() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 1);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    lose_the_store(&cluster);
    let discard = v1::DiscardRequest { operation: op.id.clone(), version: 1 << 40 };
    cluster.call(cluster.dest_agent("east").discard(discard)).expect("the destination obeys");
    cluster.restart(Party::Coordinator);
    let file = instances(&cluster);
    adopt(&cluster, &["--instances", file.to_str().expect("a plain path")]);
    let ended: Op<'_> = cluster.operation(op.id.clone());
    assert_eq!(ended.until_ended().state(), State::Cancelled);
    assert!(cluster.west().is_writable("shop.db"));
    assert_eq!(remembered(&cluster), 0);
}
