//! The queue of a source, and what comes after the flip: the hook, and cancels that come too late.

use crate::requests::reason;
use causeway_tests::{Cluster, DEST, Kind, Party, SOURCE, State, content, operation::request, wait};
use tonic::Code;

#[test]
fn eight_run_at_once_and_the_rest_wait_in_order() {
    let cluster = Cluster::new();
    let names: Vec<String> = (0..11).map(|i| format!("db-{i:02}.db")).collect();
    for name in &names {
        content::chinook(&cluster.west().database(name));
    }
    let databases: Vec<&str> = names.iter().map(String::as_str).collect();
    let started = cluster.try_start(request(Kind::Move, &databases)).expect("start");
    let ops: Vec<_> = started.operations.iter().map(|op| cluster.operation(op.id.as_str())).collect();
    ops[..8].iter().for_each(|op| drop(op.until_ready()));
    for (place, op) in ops[8..].iter().enumerate() {
        let queued = op.now();
        assert_eq!((queued.state(), queued.queue_place), (State::Queued, place as u32 + 1), "{queued:?}");
        assert_eq!(queued.status, "Pending");
    }
    ops[3].cancel();
    ops[3].until(State::Cancelled);
    ops[8].until_ready();
    assert_eq!((ops[9].now().queue_place, ops[10].now().queue_place), (1, 2));
    // A queued one is cancelled on the spot.
    ops[9].cancel();
    ops[9].until(State::Cancelled);
    assert_eq!(ops[10].now().queue_place, 1);
    ops[0].complete();
    ops[0].until_succeeded();
    ops[10].until_ready();
}

#[test]
fn the_queue_survives_the_death_of_everybody() {
    let cluster = Cluster::builder().flag("coordinator", "--running-per-source=1").start();
    let names = ["a.db", "b.db", "c.db"];
    names.iter().for_each(|name| content::chinook(&cluster.west().database(name)));
    let started = cluster.try_start(request(Kind::Move, &names)).expect("start");
    let ops: Vec<_> = started.operations.iter().map(|op| cluster.operation(op.id.as_str())).collect();
    ops[0].until_ready();
    for party in [Party::Coordinator, SOURCE, DEST] {
        cluster.kill_and_restart(party);
        assert_eq!((ops[1].now().queue_place, ops[2].now().queue_place), (1, 2), "after {party:?}");
    }
    // What was fine at the start need not be so when its turn comes.
    std::fs::remove_file(cluster.west().database("b.db")).expect("remove");
    ops[0].until_ready();
    ops[0].complete();
    ops[0].until_succeeded();
    let failed = ops[1].until_ended();
    assert_eq!(failed.state(), State::Failed, "{failed:?}");
    assert_eq!(failed.reason.map(|reason| reason.code).as_deref(), Some("PREFLIGHT_FAILED"));
    ops[2].until_ready();
}

#[test]
fn the_hook_runs_once_and_its_failure_changes_no_outcome() {
    let hook = "echo ran $CAUSEWAY_DATABASE at $CAUSEWAY_INSTANCE; echo x >> \"$PWD/hook-$CAUSEWAY_OPERATION\"; exit 3";
    let dir = tempfile::tempdir().expect("a directory");
    let hook = hook.replace("$PWD", &dir.path().display().to_string());
    let cluster = Cluster::builder().flag("dest", format!("--on-online={hook}")).start();
    content::chinook(&cluster.west().database("a.db"));
    let op = cluster.start_move("a.db");
    op.until_ready();
    op.complete();
    let moved = op.until_succeeded();
    let outcome = moved.on_online.expect("the hook's outcome");
    assert_eq!((outcome.ok, outcome.exit_code), (false, 3));
    assert!(outcome.output.contains("ran a.db at east"), "{outcome:?}");
    let marks = std::fs::read_to_string(dir.path().join(format!("hook-{}", op.id))).expect("the hook's mark");
    assert_eq!(marks, "x\n", "the hook runs once");
}

#[test]
fn a_cancel_after_the_flip_comes_too_late() {
    // The hook keeps the operation from its end for a while after the flip.
    let cluster = Cluster::builder().flag("dest", "--on-online=sleep 3").start();
    content::chinook(&cluster.west().database("a.db"));
    let op = cluster.start_move("a.db");
    op.until_ready();
    op.complete();
    wait::until("the flip", wait::PATIENCE, || cluster.east().is_writable("a.db").then_some(()));
    let too_late = wait::until("the coordinator knows of the flip", wait::PATIENCE, || {
        op.try_cancel().err().filter(|refused| reason(refused).1 != "UNAVAILABLE")
    });
    assert_eq!(reason(&too_late), (Code::FailedPrecondition, "TOO_LATE".to_owned()));
    let moved = op.until_succeeded();
    assert!(moved.on_online.is_some_and(|hook| hook.ok && hook.took_ms >= 3000));
}
