//! What users ask for, and how they are refused.

use causeway_coordinator::store::InstanceRecord;
use handover::InstanceName;
use proto::v1::{self, Kind};
use tonic::Code;

use crate::cluster::{Cluster, assert_refused};

fn text(status: &tonic::Status) -> String {
    service::status::describe(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrong_fields_are_told_at_once() {
    let cluster = Cluster::start().await;
    let request = v1::StartOperationRequest {
        kind: 9,
        source: "West".to_owned(),
        destination: String::new(),
        databases: vec!["a/b".to_owned(), "ok".to_owned(), "ok".to_owned()],
        request_id: "no spaces".to_owned(),
        window_seconds: 59,
        ..Default::default()
    };
    let refused = assert_refused(cluster.try_start(request).await, Code::InvalidArgument, "INVALID_FIELDS");
    let text = text(&refused);
    for field in ["kind", "source", "destination", "databases[0]", "databases[2]", "request_id", "window_seconds"] {
        assert!(text.contains(&format!("\n  {field}: ")), "{field} in {text}");
    }
    let mut many = cluster.request(Kind::Move, &[]);
    assert_refused(cluster.try_start(many.clone()).await, Code::InvalidArgument, "INVALID_FIELDS");
    many.databases = (0..101).map(|n| format!("db{n}")).collect();
    assert_refused(cluster.try_start(many).await, Code::InvalidArgument, "INVALID_FIELDS");
    let complete = v1::CompleteOperationRequest { operations: None, max_freeze_ms: 10, grace_ms: 11 };
    let refused = cluster.client.clone().complete_operation(complete).await.unwrap_err();
    let told = service::status::describe(&refused);
    assert!(told.contains("grace_ms") && told.contains("operations"), "{told}");
    let get = v1::GetOperationRequest { id: "a b".to_owned() };
    assert_refused(cluster.client.clone().get_operation(get).await, Code::InvalidArgument, "INVALID_FIELDS");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_findings_are_told_at_once_and_nothing_starts() {
    use handover::{Finding, Side};
    let cluster = Cluster::start().await;
    let running = cluster.start_move("busy").await;
    cluster.world.put_database("east", "taken");
    cluster.world.lock().source_findings = vec![Finding::warning(Side::Source, "CDC_IN_USE", "other slots", "redo")];
    let mut request = cluster.request(Kind::Move, &["busy", "taken", "fine"]);
    request.databases.push("missing".to_owned());
    let refused =
        assert_refused(cluster.try_start(request.clone()).await, Code::FailedPrecondition, "PREFLIGHT_FAILED");
    let told = text(&refused);
    for part in [&running, "NAME_TAKEN", "the name is taken", "there is no database missing", "busy: "] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("fine: "), "{told}");
    request.validate_only = true;
    let answer = cluster.client.clone().start_operation(request).await.unwrap().into_inner();
    assert!(answer.operations.is_empty());
    let codes: Vec<Vec<&str>> =
        answer.findings.iter().map(|of| of.findings.iter().map(|finding| finding.code.as_str()).collect()).collect();
    let expected: [&[&str]; 4] = [
        &["DATABASE_BUSY", "CDC_IN_USE"],
        &["CDC_IN_USE", "NAME_TAKEN"],
        &["CDC_IN_USE"],
        &["CDC_IN_USE", "NO_DATABASE"],
    ];
    assert_eq!(codes, expected);
    let list = v1::ListOperationsRequest::default();
    let all = cluster.client.clone().list_operations(list).await.unwrap().into_inner().operations;
    assert_eq!(all.len(), 1, "nothing was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_kept_on_the_operation() {
    use handover::{Finding, Side};
    let cluster = Cluster::start().await;
    cluster.world.lock().source_findings = vec![Finding::warning(Side::Source, "CDC_IN_USE", "other slots", "redo")];
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
    cluster.complete(&id).await;
    let ended = cluster.succeeded(&id).await;
    assert_eq!(ended.findings[0].code, "CDC_IN_USE");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_cannot_be_reached_are_findings() {
    let mut cluster = Cluster::start().await;
    cluster.source.down().await;
    cluster.dest.down().await;
    let mut request = cluster.request(Kind::Move, &["a", "b"]);
    request.validate_only = true;
    let answer = cluster.client.clone().start_operation(request.clone()).await.unwrap().into_inner();
    for of in &answer.findings {
        let codes: Vec<&str> = of.findings.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!(codes, ["SOURCE_AGENT_UNREACHABLE", "DEST_AGENT_UNREACHABLE"]);
        assert!(of.findings[0].message.contains(&cluster.source.address), "{:?}", of.findings[0]);
        assert!(!of.findings[0].remedy.is_empty());
    }
    request.validate_only = false;
    let told = text(&assert_refused(cluster.try_start(request).await, Code::FailedPrecondition, "PREFLIGHT_FAILED"));
    assert_eq!(told.matches("\n  all databases: source agent west").count(), 1, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impostor_is_a_finding() {
    let cluster = Cluster::start().await;
    let swapped = v1::Instance {
        name: "north".to_owned(),
        engine: "memory".to_owned(),
        dest_agent: cluster.dest.address.clone(),
        ..Default::default()
    };
    let request = v1::RegisterInstanceRequest { instance: Some(swapped) };
    cluster.client.clone().register_instance(request).await.unwrap();
    let mut request = cluster.request(Kind::Copy, &["a"]);
    request.destination = "north".to_owned();
    let refused = assert_refused(cluster.try_start(request).await, Code::FailedPrecondition, "PREFLIGHT_FAILED");
    assert!(text(&refused).contains("dest agent of instance east"), "{}", text(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_starts_once() {
    let mut cluster = Cluster::start().await;
    let mut request = cluster.request(Kind::Move, &["a", "b"]);
    request.request_id = "order-1".to_owned();
    let rivals = (0..8).map(|_| cluster.try_start(request.clone()));
    let answers = futures::future::join_all(rivals).await;
    let ids = |operations: &[v1::Operation]| operations.iter().map(|op| op.id.clone()).collect::<Vec<_>>();
    let first = ids(answers[0].as_ref().unwrap());
    assert_eq!(first.len(), 2);
    for answer in &answers {
        assert_eq!(ids(answer.as_ref().unwrap()), first);
    }
    cluster.crash_and_restart().await;
    assert_eq!(ids(&cluster.try_start(request.clone()).await.unwrap()), first);
    for id in &first {
        cluster.ready(id).await;
        cluster.cancel(id).await;
        cluster.cancelled(id).await;
    }
    assert_eq!(ids(&cluster.try_start(request.clone()).await.unwrap()), first, "also after they ended");
    request.databases.pop();
    assert_refused(cluster.try_start(request).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_of_one_database_one_wins() {
    let cluster = Cluster::start().await;
    let request = cluster.request(Kind::Move, &["shop"]);
    let rivals = (0..8).map(|_| cluster.try_start(request.clone()));
    let answers = futures::future::join_all(rivals).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for refused in lost {
        let told = text(&assert_refused(refused, Code::FailedPrecondition, "PREFLIGHT_FAILED"));
        assert!(told.contains("takes part in operation"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_holds_under_rivalry() {
    let cluster = Cluster::with(|limits| limits.active_max = 5).await;
    let requests = (0..10).map(|n| cluster.request(Kind::Move, &[&format!("db{n}")])).collect::<Vec<_>>();
    let answers = futures::future::join_all(requests.into_iter().map(|request| cluster.try_start(request))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    let refused = answers.into_iter().find(Result::is_err).unwrap();
    let told = text(&assert_refused(refused, Code::FailedPrecondition, "PREFLIGHT_FAILED"));
    assert!(told.contains("limit of 5"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_by_pages_from_the_newest() {
    let cluster = Cluster::start().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        let id = cluster.start_move(&format!("db{}", n % 3)).await;
        cluster.ready(&id).await;
        cluster.cancel(&id).await;
        cluster.cancelled(&id).await;
        ids.push(id);
    }
    let last = cluster.start_copy("db9").await;
    ids.push(last.clone());
    ids.reverse();
    let list = |request: v1::ListOperationsRequest| {
        let mut client = cluster.client.clone();
        async move { client.list_operations(request).await.map(tonic::Response::into_inner) }
    };
    let pages = |base: v1::ListOperationsRequest| async move {
        let (mut all, mut request, mut sizes) = (Vec::new(), base, Vec::new());
        loop {
            let page = list(request.clone()).await.unwrap();
            sizes.push(page.operations.len());
            all.extend(page.operations.into_iter().map(|op| op.id));
            if page.next_page_token.is_empty() {
                return (all, sizes);
            }
            request.page_token = page.next_page_token;
        }
    };
    let base = v1::ListOperationsRequest { page_size: 3, ..Default::default() };
    assert_eq!(pages(base.clone()).await, (ids.clone(), vec![3, 3, 2]));
    let eight = v1::ListOperationsRequest { page_size: 8, ..Default::default() };
    assert_eq!(pages(eight).await.1, [8], "a last page that is full says so");
    let latest = v1::ListOperationsRequest { only_latest_per_database: true, page_size: 2, ..Default::default() };
    assert_eq!(pages(latest).await, (ids[..4].to_vec(), vec![2, 2]));
    let moves = v1::ListOperationsRequest { kind: Kind::Move.into(), ..base.clone() };
    assert_eq!(pages(moves).await.0, ids[1..]);
    let one = v1::ListOperationsRequest { databases: vec!["db0".to_owned()], ..base.clone() };
    assert_eq!(pages(one).await.0.len(), 3);
    let active = v1::ListOperationsRequest { only_active: true, source: "west".to_owned(), ..base.clone() };
    assert_eq!(pages(active).await.0, [last]);
    let nowhere = v1::ListOperationsRequest { destination: "west".to_owned(), ..base.clone() };
    assert!(pages(nowhere).await.0.is_empty());
    let wrong = v1::ListOperationsRequest {
        page_size: 1001,
        page_token: "?".to_owned(),
        source: "?".to_owned(),
        ..Default::default()
    };
    let told = text(&assert_refused(list(wrong).await, Code::InvalidArgument, "INVALID_FIELDS"));
    for field in ["page_size", "page_token", "source"] {
        assert!(told.contains(field), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_selected_by_database_too_all_or_none() {
    let cluster = Cluster::start().await;
    let request = cluster.request(Kind::Move, &["a", "b"]);
    let operations = cluster.try_start(request).await.unwrap();
    for operation in &operations {
        cluster.ready(&operation.id).await;
    }
    let by_name = |databases: &[&str], kind: Kind| v1::OperationSelector {
        source: "west".to_owned(),
        destination: "east".to_owned(),
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        kind: kind.into(),
        ids: Vec::new(),
    };
    let cancel = |selector| {
        let mut client = cluster.client.clone();
        async move { client.cancel_operation(v1::CancelOperationRequest { operations: Some(selector) }).await }
    };
    let complete = |selector| {
        let request = v1::CompleteOperationRequest { operations: Some(selector), max_freeze_ms: 0, grace_ms: 0 };
        let mut client = cluster.client.clone();
        async move { client.complete_operation(request).await }
    };
    assert_refused(cancel(by_name(&["a", "c"], Kind::Move)).await, Code::NotFound, "OPERATION_NOT_FOUND");
    assert_refused(cancel(by_name(&["a"], Kind::Copy)).await, Code::NotFound, "OPERATION_NOT_FOUND");
    assert_refused(cancel(v1::OperationSelector::default()).await, Code::InvalidArgument, "INVALID_FIELDS");
    let both = v1::OperationSelector { ids: vec![operations[0].id.clone()], ..by_name(&["a"], Kind::Move) };
    assert_refused(cancel(both).await, Code::InvalidArgument, "INVALID_FIELDS");
    // All or none: with one of them behind, neither is completed.
    cluster.cancel(&operations[1].id).await;
    let ids = operations.iter().map(|operation| operation.id.clone()).collect();
    let mixed = v1::OperationSelector { ids, ..Default::default() };
    assert!(complete(mixed).await.is_err());
    assert_eq!(cluster.get(&operations[0].id).await.state(), v1::State::ReadyForCompletion);
    complete(by_name(&["a"], Kind::Unspecified)).await.unwrap();
    cluster.succeeded(&operations[0].id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_kept_while_they_are_used() {
    let mut cluster = Cluster::start().await;
    let id = cluster.start_move("shop").await;
    let listed =
        cluster.client.clone().list_instances(v1::ListInstancesRequest {}).await.unwrap().into_inner().instances;
    assert_eq!(listed.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["east", "west"]);
    let west = listed[1].clone();
    let register = |instance: v1::Instance| {
        let mut client = cluster.client.clone();
        async move { client.register_instance(v1::RegisterInstanceRequest { instance: Some(instance) }).await }
    };
    let remove = |name: &str| {
        let (mut client, name) = (cluster.client.clone(), name.to_owned());
        async move { client.remove_instance(v1::RemoveInstanceRequest { name }).await }
    };
    register(west.clone()).await.unwrap();
    let other = v1::Instance { region: "elsewhere".to_owned(), ..west.clone() };
    let refused = assert_refused(register(other.clone()).await, Code::FailedPrecondition, "INSTANCE_IN_USE");
    assert!(text(&refused).contains(&id));
    assert_refused(remove("east").await, Code::FailedPrecondition, "INSTANCE_IN_USE");
    assert_refused(remove("nobody").await, Code::NotFound, "INSTANCE_UNKNOWN");
    let wrong = v1::Instance {
        name: "North".to_owned(),
        engine: "oracle".to_owned(),
        source_agent: "nohost".to_owned(),
        ..Default::default()
    };
    let told = text(&assert_refused(register(wrong).await, Code::InvalidArgument, "INVALID_FIELDS"));
    for field in ["instance.name", "instance.engine", "instance.source_agent"] {
        assert!(told.contains(field), "{told}");
    }
    cluster.cancel(&id).await;
    cluster.cancelled(&id).await;
    let changed = register(other).await.unwrap().into_inner().instance.unwrap();
    assert!(changed.version > west.version);
    remove("west").await.unwrap();
    // From the configuration file it cannot be removed.
    cluster.stop().await;
    let name = InstanceName::parse("west").unwrap();
    let file = format!("{{\"name\":\"{name}\",\"engine\":\"memory\",\"source_agent\":\"{}\"}}", cluster.source.address);
    cluster.instances = vec![serde_json::from_str::<InstanceRecord>(&file).unwrap()];
    cluster.up().await;
    let mut client = cluster.client.clone();
    let listed = client.list_instances(v1::ListInstancesRequest {}).await.unwrap().into_inner().instances;
    assert!(listed[1].from_config && !listed[0].from_config);
    let refused = client.remove_instance(v1::RemoveInstanceRequest { name: "west".to_owned() }).await;
    assert_refused(refused, Code::FailedPrecondition, "INSTANCE_FROM_CONFIG");
    let refused = client.register_instance(v1::RegisterInstanceRequest { instance: Some(west) }).await;
    assert_refused(refused, Code::FailedPrecondition, "INSTANCE_FROM_CONFIG");
    let id = cluster.start_move("shop").await;
    cluster.ready(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_listed_with_their_operation() {
    let mut cluster = Cluster::start().await;
    cluster.world.put_database("west", "idle");
    let id = cluster.start_move("shop").await;
    let list = |cluster: &Cluster, instance: &str| {
        let (mut client, instance) = (cluster.client.clone(), instance.to_owned());
        async move { client.list_databases(v1::ListDatabasesRequest { instance }).await }
    };
    let west = list(&cluster, "west").await.unwrap().into_inner().databases;
    let shown: Vec<(&str, &str)> = west.iter().map(|db| (db.name.as_str(), db.operation.as_str())).collect();
    assert_eq!(shown, [("idle", ""), ("shop", id.as_str())]);
    assert_refused(list(&cluster, "north").await, Code::NotFound, "INSTANCE_UNKNOWN");
    cluster.source.down().await;
    assert_refused(list(&cluster, "west").await, Code::Unavailable, "SOURCE_AGENT_UNREACHABLE");
    let purge = |instance: &str, database: &str| {
        let request = v1::PurgeDatabaseRequest { instance: instance.to_owned(), database: database.to_owned() };
        let mut client = cluster.client.clone();
        async move { client.purge_database(request).await }
    };
    assert_refused(purge("west", "x").await, Code::FailedPrecondition, "NO_DEST_AGENT");
    assert_refused(purge("east", "shop").await, Code::FailedPrecondition, "DATABASE_BUSY");
    purge("east", "x").await.unwrap();
    cluster.world.fault("dest", "Purge", crate::fakes::Fault::Refuses("NOT_A_TOMBSTONE"));
    assert_refused(purge("east", "x").await, Code::FailedPrecondition, "NOT_A_TOMBSTONE");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_finds_is_told_although_the_destination_cannot_judge() {
    let cluster = Cluster::start().await;
    let mut request = cluster.request(Kind::Move, &[]);
    request.databases = vec!["missing".to_owned()];
    request.validate_only = true;
    let validate = || async {
        let answer = cluster.client.clone().start_operation(request.clone()).await.unwrap().into_inner();
        answer.findings[0].findings.iter().map(|finding| finding.code.clone()).collect::<Vec<_>>()
    };
    cluster.world.fault("dest", "Preflight", crate::fakes::Fault::Refuses("CORRUPT"));
    assert_eq!(validate().await, ["NO_DATABASE"]);
    cluster.world.fault("dest", "Preflight", crate::fakes::Fault::Fails);
    assert_eq!(validate().await[0], "NO_DATABASE");
}
