//! What an operator can do when a side is gone for ever, with real processes, through the command line.

use causeway_tests::{
    Cluster, DEST, Op, Party, SOURCE, State, content,
    operator::{causeway, confirmed, done},
    v1::{self, Operation},
    wait,
};

#[track_caller]
fn refused(cluster: &Cluster, op: &Op<'_>, args: &[&str], reason: &str) {
    let (code, error) = confirmed(cluster, op, args);
    assert!(code == 4 && error.contains(reason), "{args:?} should be refused with {reason}, ends with {code}: {error}");
}

/// Without the id a second time nothing happens.
#[track_caller]
fn is_asked_twice(cluster: &Cluster, op: &Op<'_>, args: &[&str]) {
    let before = op.now();
    let id = op.id.as_str();
    for confirmation in [&[][..], &["--yes-i-know", "yes"][..]] {
        let output = causeway(cluster, &[&["operation"], args, &[id], confirmation].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("a second time") || error.contains(&format!("--yes-i-know {id}")), "{error}");
    }
    assert_eq!((op.now().state, op.now().overrides), (before.state, before.overrides));
}

fn used(operation: &Operation) -> Vec<&str> {
    operation.overrides.iter().map(|used| used.what.as_str()).collect()
}

/// A person sees the overrides.
#[track_caller]
fn is_shown(cluster: &Cluster, op: &Op<'_>, what: &str) {
    let output = causeway(cluster, &["operation", "show", &op.id]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().any(|line| line.starts_with("Override") && line.contains(what)), "{text}");
}

#[test]
fn the_source_is_reopened_when_the_destination_is_gone_for_ever() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let before = cluster.west().traces();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    refused(&cluster, &op, &["force-unfence"], "WRONG_STATE");
    cluster.stop(DEST);
    op.complete();
    application.until_fenced();
    cluster.kill(DEST);

    is_asked_twice(&cluster, &op, &["force-unfence"]);
    assert!(!cluster.west().is_writable("shop.db"), "a question opens nothing");
    done(&cluster, &op, &["force-unfence"]);
    application.until_more_commits(100);
    let waiting = op.until_it("waiting for the destination", |op| !op.waiting_for.is_empty());
    assert_eq!(waiting.state(), State::Cancelling, "{waiting:?}");

    is_asked_twice(&cluster, &op, &["forget", "--side", "dest"]);
    refused(&cluster, &op, &["forget", "--side", "source"], "WRONG_STATE");
    done(&cluster, &op, &["forget", "--side", "dest"]);
    op.until_it("only the destination's record is left", |op| op.step.contains("records"));
    done(&cluster, &op, &["forget", "--side", "dest"]);
    let ended = op.until(State::Failed);
    assert_eq!(used(&ended), ["force-unfence", "forget dest", "forget dest"]);
    assert_eq!(ended.reason.map(|reason| reason.code).as_deref(), Some("FORCED_UNFENCE"));
    assert!(ended.overrides.iter().all(|used| used.at.is_some()));
    is_shown(&cluster, &op, "force-unfence at 20");

    let history = application.history().to_owned();
    application.finish();
    assert_eq!(cluster.west().traces(), before, "at the source");
    cluster.assert_sound(&cluster.west().database("shop.db"), &history);
}

#[test]
fn the_destination_is_opened_when_the_source_is_gone_for_ever() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let mut application = cluster.application("shop.db").start();
    let before = cluster.east().traces();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    refused(&cluster, &op, &["force-promote"], "WOULD_MAKE_TWO_PRIMARIES");
    application.until_more_commits(100);
    let history = application.history().to_owned();
    application.finish();
    op.until_it("nothing is on its way any more", |op| {
        op.progress.as_ref().is_some_and(|progress| progress.lag_bytes == 0 && progress.transactions_applied > 0)
    });
    cluster.kill(SOURCE);

    is_asked_twice(&cluster, &op, &["force-promote"]);
    assert!(!cluster.east().database("shop.db").exists(), "a question opens nothing");
    done(&cluster, &op, &["force-promote"]);
    assert!(cluster.east().is_writable("shop.db"));
    let waiting = op.until_it("waiting for the source", |op| !op.waiting_for.is_empty());
    assert_eq!(waiting.state(), State::Completing, "{waiting:?}");
    refused(&cluster, &op, &["force-unfence"], "TOO_LATE");
    refused(&cluster, &op, &["force-promote"], "TOO_LATE");
    refused(&cluster, &op, &["forget", "--side", "dest"], "SIDE_ANSWERS");

    done(&cluster, &op, &["forget", "--side", "source"]);
    let ended = op.until_succeeded();
    assert_eq!(used(&ended), ["force-promote", "forget source"]);
    is_shown(&cluster, &op, "forget source at 20");
    cluster.assert_sound(&cluster.east().database("shop.db"), &history);
    let mut after = cluster.east().traces();
    after.remove("shop.db");
    assert_eq!(after, before, "at the destination");
}

#[test]
fn a_cancel_goes_on_when_the_source_is_gone_for_ever() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let before = cluster.east().traces();
    let op = cluster.start_move("shop.db");
    op.until_ready();
    cluster.kill(SOURCE);
    op.cancel();
    op.until_it("the source is to be cleaned up", |op| op.step.contains("source") && !op.waiting_for.is_empty());
    refused(&cluster, &op, &["force-promote"], "WRONG_PHASE");
    is_asked_twice(&cluster, &op, &["forget", "--side", "source"]);
    done(&cluster, &op, &["forget", "--side", "source"]);
    let ended = op.until(State::Cancelled);
    assert_eq!(used(&ended), ["forget source"]);
    assert_eq!(cluster.east().traces(), before, "at the destination");
}

#[test]
fn the_source_is_not_reopened_while_the_destination_can_be_seen_to_be_prepared() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 5);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    cluster.stop(DEST);
    op.complete();
    wait::until("the fence", wait::PATIENCE, || (!cluster.west().is_writable("shop.db")).then_some(()));
    cluster.kill(Party::Coordinator);
    cluster.resume(DEST);
    // Without its coordinator it gets as far as the marker takes it, or further if it had been told already.
    let phase = || {
        let request = v1::DestStatusRequest { operation: op.id.clone() };
        cluster.call(cluster.dest_agent("east").get_status(request)).map(|status| status.phase).unwrap_or_default()
    };
    let decided = || ["prepared", "primary"].contains(&phase().as_str()).then_some(());
    wait::until("the destination is prepared", wait::PATIENCE, decided);

    // It can be asked, but obeys another coordinator: this one can neither promote nor abort, only look.
    cluster.kill(DEST);
    cluster.set_flag(DEST, "--coordinator-identity=spiffe://causeway/another");
    cluster.restart(DEST);
    cluster.restart(Party::Coordinator);
    op.until_it("waiting for the destination", |op| !op.waiting_for.is_empty());
    refused(&cluster, &op, &["force-unfence"], "WOULD_MAKE_TWO_PRIMARIES");
    assert!(!cluster.west().is_writable("shop.db"), "two primaries");

    cluster.kill(DEST);
    cluster.set_flag(DEST, "--coordinator-identity=spiffe://causeway/coordinator");
    cluster.restart(DEST);
    let after = op.until_decided();
    assert!(after.overrides.is_empty());
    let (west, east) = (cluster.west().is_writable("shop.db"), cluster.east().database("shop.db").exists());
    assert_ne!(west, east, "exactly one side serves");
}

#[test]
fn nothing_is_forced_on_a_move_that_has_flipped() {
    // The hook holds the operation up right after the flip.
    let cluster = Cluster::builder().flag("dest", "--on-online=sleep 5").start();
    content::filled(&cluster.west().database("shop.db"), 1);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    op.complete();
    op.until_it("the flip", |op| op.step.contains("online"));
    refused(&cluster, &op, &["force-unfence"], "TOO_LATE");
    refused(&cluster, &op, &["force-promote"], "TOO_LATE");
    refused(&cluster, &op, &["forget", "--side", "dest"], "SIDE_ANSWERS");
    assert!(!cluster.west().is_writable("shop.db"), "two primaries");
    let ended = op.until_succeeded();
    assert!(ended.overrides.is_empty() && ended.on_online.is_some_and(|hook| hook.ok));
    refused(&cluster, &op, &["force-unfence"], "ENDED");
}
