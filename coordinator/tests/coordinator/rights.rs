//! Who may do what: what is denied names every missing right, what may not be read does not exist, and all of it is written
//! down.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use causeway_coordinator::auth::{AuthConfig, JwtConfig};
use proto::v1::{self, Kind, Side};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::cluster::{Client, Cluster, PATIENCE, assert_refused, client, selector};

const POLICY: &str = r#"
@id("root")
permit (principal == User::"root", action, resource);
@id("shop team")
permit (principal in Group::"shop", action in [Action::"read", Action::"write"], resource in ResourceGroup::"prod/shop");
@id("shop team at the target")
permit (principal in Group::"shop", action == Action::"write", resource in ResourceGroup::"prod/target");
@id("a sees one database")
permit (principal == User::"reader", action == Action::"read", resource == Database::"east/a");
@id("all but the group")
permit (principal == User::"lacks-group", action, resource) unless { resource is ResourceGroup };
@id("all but the source")
permit (principal == User::"lacks-source", action, resource) unless { action == Action::"write" && resource in Instance::"west" };
@id("all but the destination")
permit (principal == User::"lacks-dest", action, resource) unless { action == Action::"write" && resource in Instance::"east" };
@id("looks at instances")
permit (principal == User::"reader", action == Action::"read", resource == Instance::"west");
@id("keeps a group")
permit (principal == User::"keeper", action == Action::"admin", resource in ResourceGroup::"mine");
@id("sees one more database")
permit (principal == User::"reader", action == Action::"read", resource == Database::"west/x");
"#;

pub const ISSUER: &str = "https://id.example";
/// The public key of RFC 8037, A.1.
const JWKS: &str =
    r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A cluster with policies, tokens and an audit log, and the files of these.
pub struct Guarded {
    pub cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Guarded {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut AuthConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("policy.cedar"), POLICY).unwrap();
        std::fs::write(at("groups.toml"), "shop = [\"ann\", \"group:idp:team-shop\"]\n").unwrap();
        std::fs::write(at("jwks.json"), JWKS).unwrap();
        let users = ["root", "ann", "reader", "nobody", "keeper", "lacks-group", "lacks-source", "lacks-dest"]
            .map(|user| entry(user, ""))
            .concat();
        std::fs::write(at("tokens.toml"), users).unwrap();
        let mut auth = AuthConfig {
            policy: Some(at("policy.cedar")),
            groups: Some(at("groups.toml")),
            tokens: Some(at("tokens.toml")),
            jwt: Some(JwtConfig {
                keys: at("jwks.json"),
                issuer: ISSUER.to_owned(),
                audience: "causeway".to_owned(),
                user_claim: "email".to_owned(),
                groups_claim: "groups".to_owned(),
                user_prefix: "idp:".to_owned(),
            }),
            audit: Some(at("audit.jsonl")),
            requests_per_second: 10_000,
            requests_at_once: 10_000,
        };
        adjust(&mut auth);
        let cluster = Cluster::guarded(auth, &bearer("root"), |_| {}).await;
        Self { cluster, dir }
    }

    pub fn as_user(&self, user: &str) -> Client {
        client(&self.cluster.address, &bearer(user))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lines of the audit log, once one is as wanted.
    pub async fn audit(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let lines = lines(&self.file("audit.jsonl"));
            if lines.iter().any(&wanted) {
                return lines;
            }
            assert!(begun.elapsed() < PATIENCE, "no such line: {lines:#?}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last may be in the middle of being written.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub fn secret(user: &str) -> String {
    format!("secret-of-{user}-0123456789")
}

pub fn bearer(user: &str) -> String {
    format!("Bearer {}", secret(user))
}

pub fn entry(user: &str, more: &str) -> String {
    let hash: String = Sha256::digest(secret(user)).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[token]]\nuser = \"{user}\"\nsha256 = \"{hash}\"\n{more}\n")
}

fn complete(id: &str) -> v1::CompleteOperationRequest {
    v1::CompleteOperationRequest { operations: Some(selector(id)), ..Default::default() }
}

fn cancel(id: &str) -> v1::CancelOperationRequest {
    v1::CancelOperationRequest { operations: Some(selector(id)) }
}

fn names(operations: &[v1::Operation]) -> Vec<&str> {
    operations.iter().map(|operation| operation.database.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_needs_read_on_the_group_and_write_at_both_ends() {
    let guarded = Guarded::start().await;
    let cluster = &guarded.cluster;
    let request = cluster.request(Kind::Move, &["a", "b"]);
    let mut nobody = guarded.as_user("nobody");
    let refused =
        assert_refused(nobody.start_operation(request.clone()).await, Code::PermissionDenied, "RIGHT_MISSING");
    for missing in [
        "user:nobody lacks",
        "read on resource-group:prod/shop",
        "write on database:west/a",
        "write on database:east/a",
        "write on database:west/b",
        "write on database:east/b",
    ] {
        assert!(refused.message().contains(missing), "{missing} in {}", refused.message());
    }
    let validate = v1::StartOperationRequest { validate_only: true, ..request.clone() };
    assert_refused(nobody.start_operation(validate).await, Code::PermissionDenied, "RIGHT_MISSING");
    assert!(cluster.world.lock().calls.is_empty(), "no agent was asked for somebody without rights");

    // With all three it goes through, and with two of them never.
    let mut ann = guarded.as_user("ann");
    let id =
        ann.start_operation(cluster.request(Kind::Move, &["a"])).await.unwrap().into_inner().operations.remove(0).id;
    cluster.ready(&id).await;
    for (user, missing) in [
        ("lacks-group", "read on resource-group:prod/shop"),
        ("lacks-source", "write on database:west/a"),
        ("lacks-dest", "write on database:east/a"),
    ] {
        let mut client = guarded.as_user(user);
        let another = cluster.request(Kind::Move, &["a"]);
        let by_name = v1::OperationSelector {
            source: "west".to_owned(),
            destination: "east".to_owned(),
            databases: vec!["a".to_owned()],
            ..Default::default()
        };
        let by_name = v1::CancelOperationRequest { operations: Some(by_name) };
        for refused in [
            client.start_operation(another).await.map(drop),
            client.complete_operation(complete(&id)).await.map(drop),
            client.cancel_operation(cancel(&id)).await.map(drop),
            client.cancel_operation(by_name).await.map(drop),
        ] {
            let refused = assert_refused(refused, Code::PermissionDenied, "RIGHT_MISSING");
            assert_eq!(refused.message(), format!("user:{user} lacks {missing}"));
        }
    }
    assert_eq!(cluster.get(&id).await.state(), v1::State::ReadyForCompletion, "nobody could touch it");
    ann.complete_operation(complete(&id)).await.unwrap();
    let done = cluster.succeeded(&id).await;
    let deeds: Vec<(&str, &str)> = done.deeds.iter().map(|deed| (deed.what.as_str(), deed.by.as_str())).collect();
    assert_eq!(deeds, [("start", "user:ann"), ("complete", "user:ann")]);
    assert!(done.deeds.iter().all(|deed| deed.at.is_some()));
    cluster.assert_moved("a");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_does_not_exist() {
    let guarded = Guarded::start().await;
    let cluster = &guarded.cluster;
    let request = cluster.request(Kind::Copy, &["a", "b"]);
    let started = cluster.try_start(request).await.unwrap();
    let (seen, unseen) = (started[0].id.clone(), started[1].id.clone());
    let batch = started[0].batch.clone();
    let mut reader = guarded.as_user("reader");
    let listed = reader.list_operations(v1::ListOperationsRequest::default()).await.unwrap().into_inner().operations;
    assert_eq!(names(&listed), ["a"]);
    let mut nobody = guarded.as_user("nobody");
    assert!(
        nobody.list_operations(v1::ListOperationsRequest::default()).await.unwrap().into_inner().operations.is_empty()
    );
    assert!(nobody.list_instances(v1::ListInstancesRequest {}).await.unwrap().into_inner().instances.is_empty());
    let instances = reader.list_instances(v1::ListInstancesRequest {}).await.unwrap().into_inner().instances;
    assert_eq!(instances.iter().map(|instance| instance.name.as_str()).collect::<Vec<_>>(), ["west"]);
    // Of an instance that one may look at only the databases that one may read.
    let west = v1::ListDatabasesRequest { instance: "west".to_owned() };
    cluster.world.put_database("west", "x");
    let databases = reader.list_databases(west.clone()).await.unwrap().into_inner().databases;
    assert_eq!(databases.iter().map(|database| database.name.as_str()).collect::<Vec<_>>(), ["x"]);
    let databases = guarded.as_user("ann").list_databases(west.clone()).await.unwrap().into_inner().databases;
    assert_eq!(databases.len(), 3, "a right on a group holds for all in it");
    assert_refused(nobody.list_databases(west).await, Code::PermissionDenied, "RIGHT_MISSING");

    // Exactly what is said of one that does not exist, whatever is asked of it.
    let get = |id: &str| v1::GetOperationRequest { id: id.to_owned() };
    reader.get_operation(get(&seen)).await.unwrap();
    let hidden = assert_refused(reader.get_operation(get(&unseen)).await, Code::NotFound, "OPERATION_NOT_FOUND");
    let nowhere = "01890000-0000-7000-8000-000000000000";
    let none = assert_refused(reader.get_operation(get(nowhere)).await, Code::NotFound, "OPERATION_NOT_FOUND");
    assert_eq!(hidden.message().replace(&unseen, nowhere), none.message());
    assert_eq!(hidden.details().len(), none.details().len());
    let explain = v1::ExplainOperationRequest { id: unseen.clone() };
    assert_refused(reader.explain_operation(explain).await, Code::NotFound, "OPERATION_NOT_FOUND");
    assert_refused(reader.complete_operation(complete(&unseen)).await, Code::NotFound, "OPERATION_NOT_FOUND");
    assert_refused(reader.cancel_operation(cancel(&unseen)).await, Code::NotFound, "OPERATION_NOT_FOUND");
    let watch = v1::WatchOperationsRequest { ids: vec![unseen.clone()], ..Default::default() };
    assert_refused(reader.watch_operations(watch).await.map(drop), Code::NotFound, "OPERATION_NOT_FOUND");
    // Of a batch one watches what one may read.
    let watch = |batch: &str| v1::WatchOperationsRequest { batch: batch.to_owned(), ..Default::default() };
    assert_refused(nobody.watch_operations(watch(&batch)).await.map(drop), Code::NotFound, "BATCH_NOT_FOUND");
    let mut updates = reader.watch_operations(watch(&batch)).await.unwrap().into_inner();
    for id in [&seen, &unseen] {
        cluster.cancel(id).await;
    }
    let mut told = BTreeSet::new();
    while let Some(update) = updates.message().await.unwrap() {
        told.insert(update.operation.unwrap().database);
    }
    assert_eq!(told, BTreeSet::from(["a".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_and_instances_need_admin() {
    let guarded = Guarded::start().await;
    let cluster = &guarded.cluster;
    let id = cluster.start_move("a").await;
    cluster.ready(&id).await;
    let mut ann = guarded.as_user("ann");
    let (id, confirm) = (|| id.clone(), || id.clone());
    let forget = v1::ForgetOperationRequest { id: id(), side: Side::Dest.into(), confirm: confirm() };
    let west = v1::Instance {
        name: "west".to_owned(),
        engine: "memory".to_owned(),
        source_agent: "127.0.0.1:1".to_owned(),
        // Into a group of one's own, to get at its databases.
        resource_group: "mine".to_owned(),
        ..Default::default()
    };
    for refused in [
        ann.forget_operation(forget).await.map(drop),
        ann.force_unfence(v1::ForceUnfenceRequest { id: id(), confirm: confirm() }).await.map(drop),
        ann.force_promote(v1::ForcePromoteRequest { id: id(), confirm: confirm() }).await.map(drop),
        ann.register_instance(v1::RegisterInstanceRequest { instance: Some(west) }).await.map(drop),
        ann.remove_instance(v1::RemoveInstanceRequest { name: "east".to_owned() }).await.map(drop),
        ann.purge_database(v1::PurgeDatabaseRequest { instance: "nowhere".to_owned(), database: "a".to_owned() })
            .await
            .map(drop),
    ] {
        let refused = assert_refused(refused, Code::PermissionDenied, "RIGHT_MISSING");
        assert!(refused.message().starts_with("user:ann lacks "), "{}", refused.message());
    }
    assert!(cluster.get(&id()).await.overrides.is_empty());
    // Who keeps a group may put new instances into it, and not those of others.
    let mine = |name: &str| v1::Instance {
        name: name.to_owned(),
        engine: "memory".to_owned(),
        source_agent: "127.0.0.1:1".to_owned(),
        resource_group: "mine".to_owned(),
        ..Default::default()
    };
    let mut keeper = guarded.as_user("keeper");
    keeper.register_instance(v1::RegisterInstanceRequest { instance: Some(mine("north")) }).await.unwrap();
    let taken = keeper.register_instance(v1::RegisterInstanceRequest { instance: Some(mine("west")) }).await;
    let refused = assert_refused(taken, Code::PermissionDenied, "RIGHT_MISSING");
    assert_eq!(refused.message(), "user:keeper lacks admin on instance:west");
    // What one may is no secret; what others may is.
    let check = |principal: &str, action: &str, resource: &str| v1::CheckAccessRequest {
        principal: principal.to_owned(),
        action: action.to_owned(),
        resource: resource.to_owned(),
    };
    let answer = ann.check_access(check("", "write", "database:west/a")).await.unwrap().into_inner();
    assert!(answer.allowed && answer.policies == ["shop team"] && answer.principal == "user:ann", "{answer:?}");
    let answer = ann.check_access(check("ann", "admin", "instance:west")).await.unwrap().into_inner();
    assert!(!answer.allowed && answer.policies.is_empty(), "{answer:?}");
    let others = check("reader", "read", "database:east/a");
    assert_refused(ann.check_access(others.clone()).await, Code::PermissionDenied, "RIGHT_MISSING");
    let mut root = cluster.client.clone();
    let answer = root.check_access(others).await.unwrap().into_inner();
    assert!(answer.allowed && answer.policies == ["a sees one database"], "{answer:?}");
    let answer = root.check_access(check("ann", "read", "resource-group:prod/shop")).await.unwrap().into_inner();
    assert!(answer.allowed, "groups of the file count, too: {answer:?}");
    for (principal, action, resource, field) in [
        ("robot:x", "read", "coordinator", "principal"),
        ("ann", "own", "coordinator", "action"),
        ("ann", "read", "coordinator", "action"),
        ("ann", "write", "instance:west", "action"),
        ("ann", "read", "database:west", "resource"),
        ("ann", "read", "west", "resource"),
    ] {
        let refused = root.check_access(check(principal, action, resource)).await;
        let refused = assert_refused(refused, Code::InvalidArgument, "INVALID_FIELDS");
        assert!(service::status::describe(&refused).contains(&format!("\n  {field}: ")), "{refused:?}");
    }
    let me = ann.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.principal.as_str(), me.proof.as_str(), me.policy), ("user:ann", "token", true));
    assert_eq!(me.groups, ["shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_written_down_and_no_secret() {
    let guarded = Guarded::start().await;
    let cluster = &guarded.cluster;
    let mut ann = guarded.as_user("ann");
    let id =
        ann.start_operation(cluster.request(Kind::Move, &["a"])).await.unwrap().into_inner().operations.remove(0).id;
    guarded.as_user("reader").list_operations(v1::ListOperationsRequest::default()).await.unwrap();
    let mut nobody = guarded.as_user("nobody");
    nobody.cancel_operation(cancel(&id)).await.unwrap_err();
    nobody.list_operations(v1::ListOperationsRequest::default()).await.unwrap();
    let request = cluster.request(Kind::Move, &["z"]);
    nobody.start_operation(request).await.unwrap_err();
    let watch = v1::WatchOperationsRequest { ids: vec![id.clone()], ..Default::default() };
    drop(ann.watch_operations(watch).await.unwrap());
    client(&cluster.address, "Bearer wrong-secret")
        .get_operation(v1::GetOperationRequest { id: id.clone() })
        .await
        .unwrap_err();
    ann.cancel_operation(cancel(&id)).await.unwrap();
    cluster.cancelled(&id).await;

    let of = |line: &Value, method: &str, who: &str| line["method"] == method && line["principal"] == who;
    // A watch is written down when it has ended: here, when its reader went away.
    let lines = guarded.audit(|line| of(line, "WatchOperations", "user:ann")).await;
    let one = |method: &str, who: &str| {
        let found: Vec<&Value> = lines.iter().filter(|line| of(line, method, who)).collect();
        assert_eq!(found.len(), 1, "{method} {who}: {found:#?}");
        found[0].clone()
    };
    let start = one("StartOperation", "user:ann");
    assert_eq!(
        (&start["decision"], &start["outcome"], &start["proof"]),
        (&"allowed".into(), &"OK".into(), &"token".into())
    );
    assert_eq!(start["operations"], serde_json::json!([id]));
    assert_eq!(start["policies"], serde_json::json!(["shop team", "shop team at the target"]));
    assert!(start["time"].as_str().unwrap().contains('T') && start["from"].as_str().unwrap().starts_with("127.0.0.1:"));
    let denied = one("StartOperation", "user:nobody");
    assert_eq!((&denied["decision"], &denied["outcome"]), (&"denied".into(), &"PERMISSION_DENIED".into()));
    assert_eq!(denied["reason"], "RIGHT_MISSING");
    assert_eq!(denied["checks"][0]["resource"], "resource-group:prod/shop");
    let hidden = one("CancelOperation", "user:nobody");
    assert_eq!((&hidden["outcome"], &hidden["hidden"]), (&"NOT_FOUND".into(), &1.into()));
    assert_eq!(one("ListOperations", "user:nobody")["hidden"], 1);
    assert_eq!(one("CancelOperation", "user:ann")["operations"], serde_json::json!([id]));
    let unknown = one("GetOperation", "");
    assert_eq!((&unknown["decision"], &unknown["outcome"]), (&"unauthenticated".into(), &"UNAUTHENTICATED".into()));
    assert_eq!(one("WatchOperations", "user:ann")["outcome"], "CANCELLED");

    let everything = std::fs::read_to_string(guarded.file("audit.jsonl")).unwrap();
    for secret in [&secret("ann"), "wrong-secret", "Bearer", &secret("nobody")] {
        assert!(!everything.contains(secret), "{secret}");
    }
}
