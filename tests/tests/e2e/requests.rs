//! What the coordinator does with requests: ids, validation, lists, watches, and requests that are wrong.

use causeway_tests::{
    Cluster, Kind, State, content,
    operation::{request, selector},
    v1::{self, StartOperationRequest},
};
use service::status::reason_of;
use std::time::Duration;
use tonic::{Code, Status};

/// Code and stable reason of a refusal.
pub fn reason(refused: &Status) -> (Code, String) {
    (refused.code(), reason_of(refused).map(|reason| reason.to_string()).unwrap_or_default())
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, expected: &str) -> Status {
    let refused = answer.expect_err("this must be refused");
    assert_eq!(reason(&refused), (code, expected.to_owned()), "{}", service::status::describe(&refused));
    refused
}

#[test]
fn a_request_id_makes_a_start_idempotent() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    let with_id = |kind| StartOperationRequest { request_id: "again-1".to_owned(), ..request(kind, &["a.db"]) };
    let first = cluster.try_start(with_id(Kind::Move)).expect("start");
    let second = cluster.try_start(with_id(Kind::Move)).expect("the same again");
    assert_eq!(first.operations[0].id, second.operations[0].id);
    assert_refused(cluster.try_start(with_id(Kind::Copy)), Code::AlreadyExists, "REQUEST_ID_REUSED");
    let op = cluster.operation(first.operations[0].id.as_str());
    op.until_ready();
    let third = cluster.try_start(with_id(Kind::Move)).expect("and again");
    assert_eq!(third.operations[0].state(), State::ReadyForCompletion);
}

#[test]
fn validation_reports_every_finding_and_starts_nothing() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("taken.db"));
    content::chinook(&cluster.east().database("taken.db"));
    content::chinook(&cluster.west().database("good.db"));
    let validate =
        StartOperationRequest { validate_only: true, ..request(Kind::Move, &["taken.db", "good.db", "no.db"]) };
    let answer = cluster.try_start(validate).expect("validate");
    assert!(answer.operations.is_empty());
    let codes: Vec<Vec<&str>> = answer
        .findings
        .iter()
        .map(|f| f.findings.iter().filter(|f| f.severity() == v1::Severity::Error).map(|f| f.code.as_str()).collect())
        .collect();
    assert!(codes[0].contains(&"NAME_TAKEN"), "{:?}", answer.findings);
    assert!(codes[1].is_empty(), "{:?}", answer.findings);
    assert!(codes[2].contains(&"DATABASE_NOT_FOUND"), "{:?}", answer.findings);
    assert!(answer.findings.iter().flat_map(|f| &f.findings).all(|f| !f.remedy.is_empty() && !f.message.is_empty()));
    let listed = cluster.call(cluster.coordinator().list_operations(v1::ListOperationsRequest::default()));
    assert!(listed.expect("list").operations.is_empty());
    // The same without validate_only: all or none.
    let refused = cluster.try_start(request(Kind::Move, &["good.db", "taken.db"]));
    assert_refused(refused, Code::FailedPrecondition, "PREFLIGHT_FAILED");
    let listed = cluster.call(cluster.coordinator().list_operations(v1::ListOperationsRequest::default()));
    assert!(listed.expect("list").operations.is_empty());
}

#[test]
fn unknown_and_malformed_things_are_refused_by_name() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    let start = |change: &dyn Fn(&mut StartOperationRequest)| {
        let mut request = request(Kind::Move, &["a.db"]);
        change(&mut request);
        cluster.try_start(request)
    };
    let unknown = start(&|r| r.source = "north".to_owned());
    let refused = assert_refused(unknown, Code::FailedPrecondition, "PREFLIGHT_FAILED");
    assert!(service::status::describe(&refused).contains("north"), "{}", service::status::describe(&refused));
    let unknown = start(&|r| r.databases = vec!["none.db".to_owned()]);
    let refused = assert_refused(unknown, Code::FailedPrecondition, "PREFLIGHT_FAILED");
    assert!(service::status::describe(&refused).contains("DATABASE_NOT_FOUND"), "{refused:?}");
    type Spoil = fn(&mut StartOperationRequest);
    let wrong: [(&str, Spoil); 7] = [
        ("kind", |r| r.kind = 0),
        ("kind", |r| r.kind = 77),
        ("source", |r| r.source = "No Such/Name".to_owned()),
        ("databases", |r| r.databases.clear()),
        ("databases[0]", |r| r.databases = vec!["../a.db".to_owned()]),
        ("databases", |r| r.databases = vec!["a.db".to_owned(), "a.db".to_owned()]),
        ("window_seconds", |r| r.window_seconds = 3),
    ];
    for (field, change) in wrong {
        let refused = start(&change).expect_err("this must be refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused:?}");
        assert!(
            service::status::describe(&refused).contains(field),
            "{field}: {}",
            service::status::describe(&refused)
        );
    }
    let get =
        |id: &str| cluster.call(cluster.coordinator().get_operation(v1::GetOperationRequest { id: id.to_owned() }));
    assert_refused(get("01890000-0000-7000-8000-000000000000"), Code::NotFound, "OPERATION_NOT_FOUND");
    assert_eq!(get("not an id/..").expect_err("malformed").code(), Code::InvalidArgument);
    let same = start(&|r| r.destination = "west".to_owned());
    let refused = assert_refused(same, Code::FailedPrecondition, "PREFLIGHT_FAILED");
    assert!(service::status::describe(&refused).contains("SAME_INSTANCE"));
}

#[test]
fn complete_too_early_and_cancel_too_late_are_refused() {
    let cluster = Cluster::builder().flag("source", "--seed-bytes-per-second=2000000").start();
    content::filled(&cluster.west().database("shop.db"), 10);
    let op = cluster.start_move("shop.db");
    op.until(State::Seeding);
    assert_refused(op.try_complete(Duration::ZERO), Code::FailedPrecondition, "NOT_READY");
    op.cancel();
    op.until(State::Cancelled);
    assert_refused(op.try_cancel(), Code::FailedPrecondition, "ENDED");
    let complete = op.try_complete(Duration::ZERO).expect_err("it has ended");
    assert_eq!(complete.code(), Code::FailedPrecondition, "{complete:?}");
}

#[test]
fn of_two_starts_at_once_one_wins() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let start = || cluster.try_start(request(Kind::Move, &["a.db"]));
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a start")).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 5), "{lost:?}");
    for refused in lost {
        let refused = assert_refused(refused, Code::FailedPrecondition, "PREFLIGHT_FAILED");
        assert!(service::status::describe(&refused).contains("DATABASE_BUSY"), "{refused:?}");
    }
}

#[test]
fn lists_have_pages_and_only_the_latest_if_wanted() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    let mut ids = Vec::new();
    for _ in 0..5 {
        let op = cluster.start_copy("a.db");
        op.cancel();
        op.until_ended();
        ids.push(op.id.clone());
    }
    ids.reverse();
    let list = |request| cluster.call(cluster.coordinator().list_operations(request)).expect("list");
    let (mut seen, mut token) = (Vec::new(), String::new());
    for expected in [2, 2, 1] {
        let page = list(v1::ListOperationsRequest { page_size: 2, page_token: token, ..Default::default() });
        assert_eq!(page.operations.len(), expected);
        seen.extend(page.operations.into_iter().map(|op| op.id));
        token = page.next_page_token;
    }
    assert_eq!((seen, token.as_str()), (ids.clone(), ""), "newest first, each once");
    let latest = list(v1::ListOperationsRequest { only_latest_per_database: true, ..Default::default() });
    assert_eq!(latest.operations.iter().map(|op| &op.id).collect::<Vec<_>>(), [&ids[0]]);
    let bad = v1::ListOperationsRequest { page_token: "no token".to_owned(), ..Default::default() };
    let refused = cluster.call(cluster.coordinator().list_operations(bad)).expect_err("a malformed token");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[test]
fn a_watch_shows_every_state_and_ends_with_the_operation() {
    let cluster = Cluster::builder().flag("source", "--seed-bytes-per-second=5000000").start();
    content::filled(&cluster.west().database("shop.db"), 5);
    let op = cluster.start_move("shop.db");
    let request = v1::WatchOperationsRequest { ids: vec![op.id.clone()], ..Default::default() };
    let mut client = cluster.coordinator();
    let states = cluster.block_on(async {
        let watch = tokio::time::timeout(Duration::from_secs(60), async {
            let mut stream = client.watch_operations(request).await?.into_inner();
            let mut states: Vec<State> = Vec::new();
            while let Some(update) = stream.message().await? {
                let operation = update.operation.unwrap_or_default();
                if states.last() != Some(&operation.state()) {
                    states.push(operation.state());
                }
                if operation.state() == State::ReadyForCompletion {
                    let operations = selector(&[&operation.id]);
                    client
                        .complete_operation(v1::CompleteOperationRequest { operations, ..Default::default() })
                        .await?;
                }
            }
            Ok::<_, Status>(states)
        });
        watch.await.expect("the watch ends in time").expect("the watch ends well")
    });
    for state in [State::Seeding, State::ReadyForCompletion, State::Completing, State::Succeeded] {
        assert!(states.contains(&state), "{state:?} is missing in {states:?}");
    }
    assert_eq!(states.last(), Some(&State::Succeeded));
}
