//! Operations that do not succeed leave nothing behind: no file, no record, no lock, no fence.

use causeway_tests::{Cluster, DEST, Kind, Op, Party, SOURCE, State, content, operation::request};
use std::collections::BTreeSet;
use tonic::Code;

/// What lies in both instances before an operation; afterwards it must be the same.
struct Before<'a> {
    cluster: &'a Cluster,
    traces: [BTreeSet<String>; 2],
}

impl<'a> Before<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        Self { cluster, traces: [cluster.west().traces(), cluster.east().traces()] }
    }

    #[track_caller]
    fn assert_unchanged(&self) {
        assert_eq!(self.traces[0], self.cluster.west().traces(), "at the source");
        assert_eq!(self.traces[1], self.cluster.east().traces(), "at the destination");
        let known = |answer: causeway_tests::v1::DescribeResponse| answer.operations;
        let request = causeway_tests::v1::DescribeRequest {};
        let source = self.cluster.call(self.cluster.source_agent("west").describe(request)).map(known);
        let dest = self.cluster.call(self.cluster.dest_agent("east").describe(request)).map(known);
        assert_eq!((source.expect("describe"), dest.expect("describe")), (vec![], vec![]), "records");
    }
}

fn slow_cluster() -> Cluster {
    Cluster::builder().flag("source", "--seed-bytes-per-second=5000000").start()
}

/// Cancels an operation, once it is in the state, and looks for what is left of it.
fn cancelled_in(cluster: &Cluster, state: State) {
    content::filled(&cluster.west().database("shop.db"), 10);
    let application = cluster.application("shop.db").start();
    let before = Before::of(cluster);
    let op = cluster.start_move("shop.db");
    op.until(state);
    op.cancel();
    let ended = op.until(State::Cancelled);
    assert_eq!(ended.reason.map(|reason| reason.code).as_deref(), Some("CANCELLED_BY_USER"));
    before.assert_unchanged();
    application_writes_on(cluster, application);
}

#[track_caller]
fn application_writes_on(cluster: &Cluster, mut application: causeway_tests::Application) {
    application.until_more_commits(100);
    let history = application.history().to_owned();
    let summary = application.finish();
    assert_eq!(summary.moves.len(), 0);
    cluster.assert_sound(&cluster.west().database("shop.db"), &history);
}

#[test]
fn cancelled_while_seeding() {
    cancelled_in(&slow_cluster(), State::Seeding);
}

#[test]
fn cancelled_while_catching_up() {
    // The least lag counts, also after it was ready: the first look may have found none.
    let eager = [
        "--ready-lag-bytes=0",
        "--ready-lag-ms=0",
        "--behind-lag-bytes=0",
        "--behind-lag-ms=0",
        "--observe-every-ms=10",
    ];
    let cluster = eager.into_iter().fold(Cluster::builder(), |b, flag| b.flag("coordinator", flag)).start();
    cancelled_in(&cluster, State::CatchingUp);
}

#[test]
fn cancelled_while_ready() {
    cancelled_in(&Cluster::new(), State::ReadyForCompletion);
}

#[test]
fn cancelled_right_after_the_start() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 3);
    let application = cluster.application("shop.db").start();
    let before = Before::of(&cluster);
    for _ in 0..5 {
        let op = cluster.start_move("shop.db");
        op.cancel();
        op.until(State::Cancelled);
        before.assert_unchanged();
    }
    application_writes_on(&cluster, application);
}

#[test]
fn cancelled_while_completing_it_goes_back_or_forward_but_never_half() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 3);
    let mut application = cluster.application("shop.db").start();
    let before = Before::of(&cluster);
    let op = cluster.start_move("shop.db");
    op.until_ready();
    // The destination cannot prepare, so the attempt cannot end before the cancel comes.
    cluster.stop(DEST);
    op.complete();
    application.until_fenced();
    op.cancel();
    cluster.resume(DEST);
    let ended = op.until_ended();
    // The promotion may have been on its way already; then the cancel came too late, and the move is whole.
    if ended.state() == State::Succeeded {
        application.until_commits_at(&cluster.east().database("shop.db"), 50);
        crate::journeys::assert_moved(&cluster, "shop.db", &application.finish());
        return;
    }
    assert_eq!(ended.state(), State::Cancelled, "{ended:?}");
    before.assert_unchanged();
    application_writes_on(&cluster, application);
}

#[test]
fn cancelled_while_an_agent_is_away_it_waits_for_the_agent_and_says_so() {
    for (party, name) in [(DEST, "destination agent"), (SOURCE, "source agent")] {
        let cluster = slow_cluster();
        content::filled(&cluster.west().database("shop.db"), 10);
        let application = cluster.application("shop.db").start();
        let before = Before::of(&cluster);
        let op = cluster.start_move("shop.db");
        op.until(State::Seeding);
        cluster.kill(party);
        op.cancel();
        let waiting = op.until_it("whom it waits for", |op| !op.waiting_for.is_empty());
        assert_eq!(waiting.state(), State::Cancelling);
        assert!(waiting.waiting_for.iter().any(|party| party.contains(name)), "{:?}", waiting.waiting_for);
        // The coordinator may die meanwhile, too.
        cluster.kill_and_restart(Party::Coordinator);
        cluster.restart(party);
        op.until(State::Cancelled);
        before.assert_unchanged();
        application_writes_on(&cluster, application);
    }
}

#[test]
fn an_operation_that_nobody_completes_expires() {
    let cluster = Cluster::builder().flag("coordinator", "--window-seconds=2").start();
    content::filled(&cluster.west().database("shop.db"), 3);
    let application = cluster.application("shop.db").start();
    let before = Before::of(&cluster);
    let op = cluster.start_move("shop.db");
    let ready = op.until_ready();
    let (ready_at, deadline) = (ready.ready.expect("ready at"), ready.complete_before.expect("a deadline"));
    assert_eq!(deadline.seconds - ready_at.seconds, 2);
    let ended = op.until(State::Cancelled);
    assert_eq!(ended.reason.map(|reason| reason.code).as_deref(), Some("WINDOW_EXPIRED"));
    before.assert_unchanged();
    application_writes_on(&cluster, application);
}

/// Nothing takes the log away while the destination is down, so the budget runs out.
#[test]
fn an_operation_that_exceeds_its_log_budget_fails() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 3);
    let application = cluster.application("shop.db").with(|o| o.payload = 2000).start();
    let before = Before::of(&cluster);
    let op = cluster.start(causeway_tests::v1::StartOperationRequest {
        log_budget_bytes: 32 << 20,
        ..request(Kind::Move, &["shop.db"])
    });
    op.until_ready();
    cluster.kill(DEST);
    op.until(State::Cancelling);
    cluster.restart(DEST);
    let ended = op.until(State::Failed);
    assert_eq!(ended.reason.map(|reason| reason.code).as_deref(), Some("LOG_BUDGET_EXCEEDED"));
    before.assert_unchanged();
    application_writes_on(&cluster, application);
}

#[test]
fn a_cancel_that_comes_too_late_is_refused() {
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 3);
    let op: Op<'_> = cluster.start_move("shop.db");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    let refused = op.try_cancel().expect_err("an operation that ended");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(service::status::reason_of(&refused).as_deref(), Some("ENDED"));
}
