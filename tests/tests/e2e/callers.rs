//! Who may do what, with the real programs: certificates, tokens, policies, revocation, and what is written down.

use crate::clients;
use causeway_tests::{
    Cluster, DEST, Party, SOURCE, State, binaries, content,
    operation::{request, selector},
    v1::{self, Kind, coordinator_client::CoordinatorClient},
    wait::{self, PATIENCE},
};
use serde_json::Value;
use service::{
    Env,
    certs::{Spec, revoke_dev},
    status::{describe, reason_of},
};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use tonic::{Code, Status, transport::Channel};

/// The user of the cluster keeps the instances; ann moves databases from west to east, bob looks, carl is nobody.
const POLICY: &str = r#"
@id("keeper")
permit (principal == User::"tester", action, resource);
@id("ann moves")
permit (principal == User::"ann", action in [Action::"read", Action::"write"], resource);
@id("bob looks at one database")
permit (principal == User::"bob", action == Action::"read", resource) when { resource is Database && resource.name == "a.db" };
@id("movers of the file")
permit (principal in Group::"movers", action in [Action::"read", Action::"write"], resource);
"#;

struct Guarded {
    cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("policy.cedar"), POLICY).expect("write the policy");
        fs::write(at("groups.toml"), "movers = [\"group:ci\"]\n").expect("write the groups");
        fs::write(at("tokens.toml"), "").expect("write the tokens");
        let flag = |name: &str, file: &str| format!("--{name}={}", at(file).display());
        let cluster = Cluster::builder()
            .flag("coordinator", flag("policy", "policy.cedar"))
            .flag("coordinator", flag("groups", "groups.toml"))
            .flag("coordinator", flag("tokens", "tokens.toml"))
            .flag("coordinator", flag("audit", "audit.jsonl"))
            .start();
        for user in ["ann", "bob", "carl"] {
            let spec = Spec::new(user, format!("spiffe://causeway/user/{user}"), Env::real().now());
            cluster.issue(spec);
        }
        Self { cluster, dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn as_user(&self, user: &str) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.cluster.channel(&self.cluster.address(Party::Coordinator), user))
    }

    /// `causeway` under the certificate of a user; with a token instead where `certificate` is none.
    fn causeway(&self, certificate: Option<&str>, token: Option<&Path>, args: &[&str]) -> Output {
        let certs = self.cluster.certs();
        let mut command = Command::new(binaries::path("causeway"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUSEWAY_")) {
            command.env_remove(name);
        }
        command.env("CAUSEWAY_COORDINATOR", self.cluster.address(Party::Coordinator));
        command.arg("--ca").arg(certs.join("ca.pem"));
        if let Some(user) = certificate {
            command.arg("--cert").arg(certs.join(format!("{user}.pem")));
            command.arg("--key").arg(certs.join(format!("{user}-key.pem")));
        }
        if let Some(token) = token {
            command.arg("--token-file").arg(token);
        }
        command.args(args).output().expect("run causeway")
    }

    fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.at("audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

#[track_caller]
fn exits(output: Output, code: i32) -> String {
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}{error}");
    format!("{said}{error}")
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T, Status>, part: &str) {
    let refused = answer.expect_err("it is denied");
    assert_eq!(refused.code(), Code::PermissionDenied, "{}", describe(&refused));
    assert_eq!(reason_of(&refused).as_deref(), Some("RIGHT_MISSING"));
    assert!(refused.message().contains(part), "{part} in {}", describe(&refused));
}

#[test]
fn certificates_have_the_rights_their_policies_give_them() {
    let guarded = Guarded::start();
    let cluster = &guarded.cluster;
    for name in ["a.db", "b.db"] {
        content::chinook(&cluster.west().database(name));
    }
    let (mut ann, mut bob, mut carl) = (guarded.as_user("ann"), guarded.as_user("bob"), guarded.as_user("carl"));
    let batch = request(Kind::Move, &["a.db", "b.db"]);
    denied(cluster.call(carl.start_operation(batch.clone())), "write on database:west/a.db");
    denied(cluster.call(bob.start_operation(batch.clone())), "read on resource-group:");
    // An agent's certificate lies on a machine of others: it has no rights here at all.
    let mut agent = CoordinatorClient::new(cluster.channel(&cluster.address(Party::Coordinator), "source-west"));
    denied(cluster.call(agent.start_operation(batch.clone())), "service:spiffe://causeway/agent-source/west lacks");
    let started = cluster.call(ann.start_operation(batch)).expect("ann may").operations;
    let op = cluster.operation(started[0].id.clone());
    op.until_ready();
    let (complete, cancel) = (
        || v1::CompleteOperationRequest { operations: selector(&[&op.id]), ..Default::default() },
        || v1::CancelOperationRequest { operations: selector(&[&op.id]) },
    );
    denied(cluster.call(bob.complete_operation(complete())), "user:bob lacks");
    denied(cluster.call(bob.cancel_operation(cancel())), "write on database:east/a.db");
    let unseen = cluster.call(carl.cancel_operation(cancel())).expect_err("carl sees nothing");
    assert_eq!(unseen.code(), Code::NotFound, "{}", describe(&unseen));
    denied(
        cluster.call(ann.force_unfence(v1::ForceUnfenceRequest { id: op.id.clone(), confirm: op.id.clone() })),
        "admin on database:west/a.db",
    );

    // A list shows what one may read, also to a person.
    let list = |client: &mut CoordinatorClient<Channel>| {
        let listed = cluster.call(client.list_operations(v1::ListOperationsRequest::default())).expect("a list");
        listed.operations.into_iter().map(|operation| operation.database).collect::<Vec<_>>()
    };
    assert_eq!((list(&mut ann).len(), list(&mut bob), list(&mut carl)), (2, vec!["a.db".to_owned()], vec![]));
    let shown = exits(guarded.causeway(Some("bob"), None, &["move", "list"]), 0);
    assert!(shown.contains("a.db") && !shown.contains("b.db"), "{shown}");
    let shown = exits(guarded.causeway(Some("bob"), None, &["operation", "show", &started[1].id]), 5);
    assert!(shown.contains("OPERATION_NOT_FOUND"), "{shown}");

    cluster.call(ann.complete_operation(complete())).expect("ann may");
    op.until(State::Succeeded);
    cluster
        .call(ann.cancel_operation(v1::CancelOperationRequest { operations: selector(&[&started[1].id]) }))
        .expect("ann may");
    cluster.operation(started[1].id.clone()).until(State::Cancelled);
    let shown = exits(guarded.causeway(Some("ann"), None, &["operation", "show", &op.id]), 0);
    assert!(shown.contains("Started by   user:ann at 20") && shown.contains("Completed by user:ann at 20"), "{shown}");

    // What was asked and decided stands in the log, one line each, and no secret.
    let line = |method: &str, who: &str, outcome: &str| {
        wait::until(&format!("the line of {method} by {who}"), PATIENCE, || {
            let found =
                |line: &&Value| line["method"] == method && line["principal"] == who && line["outcome"] == outcome;
            guarded.audit().iter().find(found).cloned()
        })
    };
    let start = line("StartOperation", "user:ann", "OK");
    assert_eq!(start["operations"], serde_json::json!([started[0].id, started[1].id]));
    assert_eq!(start["policies"], serde_json::json!(["ann moves"]));
    assert_eq!(line("StartOperation", "user:carl", "PERMISSION_DENIED")["decision"], "denied");
    assert_eq!(line("CompleteOperation", "user:ann", "OK")["operations"], serde_json::json!([op.id]));
    assert_eq!(line("ListOperations", "user:bob", "OK")["hidden"], 1);
    line("StartOperation", "service:spiffe://causeway/agent-source/west", "PERMISSION_DENIED");
}

#[test]
fn users_with_tokens_need_no_certificate() {
    let guarded = Guarded::start();
    let cluster = &guarded.cluster;
    content::chinook(&cluster.west().database("a.db"));
    let made = guarded.causeway(None, None, &["auth", "token", "--user", "robot", "--group", "ci", "-o", "json"]);
    let made: Value = serde_json::from_str(&exits(made, 0)).expect("JSON");
    let (secret, token) = (made["token"].as_str().expect("a token"), guarded.at("robot.token"));
    fs::write(&token, secret).expect("write the token");
    // Before it is in the file of tokens it is worth nothing.
    let refused = exits(guarded.causeway(None, Some(&token), &["auth", "whoami"]), 6);
    assert!(refused.contains("TOKEN_REFUSED"), "{refused}");
    fs::write(guarded.at("tokens.toml"), made["entry"].as_str().expect("an entry")).expect("write the tokens");
    let me = wait::until("the token is taken up", PATIENCE, || {
        let output = guarded.causeway(None, Some(&token), &["auth", "whoami"]);
        output.status.success().then(|| exits(output, 0))
    });
    assert!(me.contains("user:robot (by token)") && me.contains("ci, movers"), "{me}");
    // Neither a certificate nor a token.
    let refused = exits(guarded.causeway(None, None, &["move", "list"]), 2);
    assert!(refused.contains("--cert"), "{refused}");
    // Of the agents, whose doors are for certificates alone, a token opens none.
    let agent = cluster.address(DEST);
    let refused = exits(guarded.causeway(None, Some(&token), &["--coordinator", &agent, "auth", "whoami"]), 3);
    assert!(refused.contains("certificate"), "{refused}");

    let moves = |verb: &str| {
        ["move", verb, "--source", "west", "--dest", "east", "--database", "a.db", "--watch"].map(str::to_owned)
    };
    for verb in ["start", "complete"] {
        let args = moves(verb);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        exits(guarded.causeway(None, Some(&token), &args), 0);
    }
    for (who, action, on, exit, part) in [
        (
            "robot",
            "write",
            "database:west/a.db",
            0,
            "allowed: user:robot write database:west/a.db, by movers of the file",
        ),
        ("robot", "admin", "coordinator", 6, "denied: user:robot admin coordinator, no policy permits it"),
    ] {
        let said = exits(guarded.causeway(None, Some(&token), &["auth", "check", who, action, on]), exit);
        assert!(said.contains(part), "{part} in {said}");
    }
    let said = exits(guarded.causeway(None, Some(&token), &["auth", "check", "bob", "read", "database:west/a.db"]), 6);
    assert!(said.contains("admin on coordinator"), "{said}");
    let said = exits(guarded.causeway(Some("user"), None, &["auth", "check", "bob", "read", "database:west/a.db"]), 0);
    assert!(said.contains("by bob looks at one database"), "{said}");

    let everything = [fs::read_to_string(guarded.at("audit.jsonl")).expect("the audit log"), logs(cluster)].concat();
    assert!(everything.contains("user:robot") && !everything.contains(secret), "the token is nowhere");
}

/// All that the processes have said.
fn logs(cluster: &Cluster) -> String {
    [Party::Coordinator, SOURCE, DEST].map(|party| cluster.log_tail(party, usize::MAX / 2)).concat()
}

#[test]
fn a_revoked_certificate_is_refused_and_its_connections_end() {
    let guarded = Guarded::start();
    let cluster = &guarded.cluster;
    let certs = cluster.certs();
    let revoke = |stem: &str| revoke_dev(&certs, &[stem.to_owned()], Env::real().now()).expect("revoke");
    revoke("carl");
    let crl = format!("--crl={}", certs.join("crl.pem").display());
    for party in [Party::Coordinator, DEST] {
        cluster.set_flag(party, &crl);
        cluster.kill(party);
        cluster.restart(party);
    }
    let refused = exits(guarded.causeway(Some("carl"), None, &["auth", "whoami"]), 3);
    assert!(refused.contains("says our certificate has been revoked"), "{refused}");
    let log = cluster.log_tail(Party::Coordinator, 50);
    assert!(log.contains("the certificate of the client has been revoked"), "{log}");
    exits(guarded.causeway(Some("bob"), None, &["auth", "whoami"]), 0);

    // Revoked while a connection is open, at a process that runs: that one ends, too.
    let mut bob = guarded.as_user("bob");
    cluster.call(bob.who_am_i(v1::WhoAmIRequest {})).expect("bob is known");
    revoke("bob");
    let refused =
        wait::until("the open connection ends", PATIENCE, || cluster.call(bob.who_am_i(v1::WhoAmIRequest {})).err());
    println!("{}", describe(&refused));
    wait::until("new ones are refused, too", PATIENCE, || {
        let output = guarded.causeway(Some("bob"), None, &["auth", "whoami"]);
        String::from_utf8_lossy(&output.stderr).contains("revoked").then_some(())
    });
    let refused = exits(guarded.causeway(Some("carl"), None, &["auth", "whoami"]), 3);
    assert!(refused.contains("revoked"), "what was revoked before stays so: {refused}");
    exits(guarded.causeway(Some("ann"), None, &["auth", "whoami"]), 0);

    // An agent obeys nobody whose certificate was revoked, be it the coordinator.
    content::chinook(&cluster.west().database("a.db"));
    revoke("coordinator");
    wait::until("the destination refuses the coordinator", PATIENCE, || {
        let refused =
            cluster.try_start(v1::StartOperationRequest { validate_only: true, ..request(Kind::Move, &["a.db"]) });
        let found = refused.ok()?.findings.into_iter().flat_map(|of| of.findings);
        found.into_iter().find(|finding| finding.message.contains("revoked"))
    });
}

/// A client in another language that floods, opens watches it never reads and connects without a word: others are served, and
/// an operation is completed as if nothing were.
#[test]
fn a_client_that_floods_and_stalls_harms_nobody_else() {
    let guarded = Guarded::start();
    let cluster = &guarded.cluster;
    // As it is by default; the cluster's own flag is for tests that look all the time.
    cluster.set_flag(Party::Coordinator, "--requests-per-second=200");
    cluster.kill(Party::Coordinator);
    cluster.restart(Party::Coordinator);
    content::chinook(&cluster.west().database("a.db"));
    let mut ann = guarded.as_user("ann");
    let started = cluster.call(ann.start_operation(request(Kind::Move, &["a.db"]))).expect("ann may").operations;
    let id = started[0].id.clone();
    let ask = |ann: &mut CoordinatorClient<Channel>| {
        let asked = Instant::now();
        let answer =
            cluster.call(ann.get_operation(v1::GetOperationRequest { id: id.clone() })).expect("she is served");
        (asked.elapsed(), answer.operation.expect("an operation").state())
    };
    let until = |ann: &mut CoordinatorClient<Channel>, state: State| {
        let mut slowest = Duration::ZERO;
        wait::until(state.as_str_name(), PATIENCE, || {
            // Ten times a second is no flood.
            std::thread::sleep(Duration::from_millis(100));
            let (took, now) = ask(ann);
            slowest = slowest.max(took);
            (now == state).then_some(slowest)
        })
    };
    until(&mut ann, State::ReadyForCompletion);

    let stubs = tempfile::tempdir().expect("a directory");
    clients::python_stubs(stubs.path());
    let certs = cluster.certs();
    let mut flood = Command::new(clients::tool("python"))
        .arg(binaries::workspace().join("tests/clients/flood.py"))
        .arg(cluster.address(Party::Coordinator))
        .args([certs.join("ca.pem"), certs.join("bob.pem"), certs.join("bob-key.pem")])
        .args([id.as_str(), "6"])
        .env("PYTHONPATH", stubs.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run python");
    let mut said = BufReader::new(flood.stdout.take().expect("its output"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "flooding");
    let before = cluster.peak_rss_bytes(Party::Coordinator);
    let complete = v1::CompleteOperationRequest { operations: selector(&[&id]), ..Default::default() };
    cluster.call(ann.complete_operation(complete)).expect("ann may");
    let slowest = until(&mut ann, State::Succeeded);
    line.clear();
    said.read_line(&mut line).expect("a line");
    assert!(flood.wait().expect("its end").success(), "{line}");
    let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let grown = cluster.peak_rss_bytes(Party::Coordinator).saturating_sub(before);
    println!("{told}; others waited {slowest:?} at the most; memory grew by {} KiB", grown >> 10);
    let count = |field: &Value| field.as_u64().unwrap_or(0);
    let (through, limited) = (count(&told["answers"]["OK"]), count(&told["answers"]["RESOURCE_EXHAUSTED"]));
    assert!(limited > through && through < 10_000, "{told}");
    // Those of an operation that ended are over, too.
    assert!(count(&told["watches_open"]) <= 256 && count(&told["watches_refused"]) >= 100, "{told}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert!(grown < 128 << 20, "{grown} bytes for one caller");
}
