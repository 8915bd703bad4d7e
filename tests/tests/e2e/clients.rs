//! Clients that are not ours: grpcurl, which knows the services by reflection only, and Python's grpcio.

use causeway_tests::{Cluster, Party, State, binaries::workspace, builder::USER, content, wait};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Once,
};

/// A program of the environment that `tools/ensure-test-deps.sh` makes under `target/`, from pinned packages.
pub fn tool(name: &str) -> PathBuf {
    static ENSURED: Once = Once::new();
    let venv = std::env::var_os("CAUSEWAY_TEST_VENV").map(PathBuf::from);
    let venv = venv.unwrap_or_else(|| workspace().join("target/test-venv"));
    ENSURED.call_once(|| {
        let script = workspace().join("tools/ensure-test-deps.sh");
        let output = Command::new(&script).current_dir(workspace()).output();
        let output = output.unwrap_or_else(|e| panic!("run {}: {e}", script.display()));
        assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    });
    venv.join("bin").join(name)
}

/// grpcurl under a certificate of the cluster.
pub struct Grpcurl {
    certs: PathBuf,
    certificate: &'static str,
    address: String,
}

impl Grpcurl {
    fn of(cluster: &Cluster, party: Party, certificate: &'static str) -> Self {
        Self::at(cluster, cluster.address(party), certificate)
    }

    pub fn at(cluster: &Cluster, address: String, certificate: &'static str) -> Self {
        Self { certs: cluster.certs(), certificate, address }
    }

    fn run(&self, before: &[&str], after: &[&str]) -> Output {
        let file = |name: String| self.certs.join(name).display().to_string();
        let mut command = Command::new(tool("grpcurl"));
        command.args(["-cacert", &file("ca.pem".to_owned())]);
        command.args(["-cert", &file(format!("{}.pem", self.certificate))]);
        command.args(["-key", &file(format!("{}-key.pem", self.certificate))]);
        command.args(["-max-time", "60"]);
        command.args(before).arg(&self.address).args(after).output().expect("run grpcurl")
    }

    #[track_caller]
    fn says(&self, before: &[&str], after: &[&str]) -> String {
        let output = self.run(before, after);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "grpcurl {} {}: {error}", before.join(" "), after.join(" "));
        String::from_utf8(output.stdout).expect("grpcurl writes text")
    }

    /// Calls a method with a request in JSON; the answers, one for a plain call.
    #[track_caller]
    pub fn call(&self, method: &str, request: &Value) -> Vec<Value> {
        let text = self.says(&["-d", &request.to_string()], &[method]);
        let answers = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>();
        answers.unwrap_or_else(|e| panic!("{method}: {e} in {text}"))
    }

    /// Asks a reflection service directly, with the description that its other version gives.
    #[track_caller]
    fn reflects(&self, method: &str) {
        let protos = workspace().join("tests/clients");
        let import = format!("{}", protos.display());
        let request = json!({ "list_services": "*" }).to_string();
        let before = [
            "-import-path",
            &import,
            "-proto",
            "reflection.proto",
            "-proto",
            "reflection_v1alpha.proto",
            "-d",
            &request,
        ];
        let answer = self.says(&before, &[method]);
        assert!(answer.contains(COORDINATOR), "{method}: {answer}");
    }

    #[track_caller]
    fn refuses(&self, method: &str, request: &Value) -> String {
        let output = self.run(&["-d", &request.to_string()], &[method]);
        assert!(!output.status.success(), "{method} {request} was not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

const COORDINATOR: &str = "causeway.v1.Coordinator";

#[test]
fn grpcurl_drives_moves_through_the_coordinator() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    content::chinook(&cluster.west().database("b.db"));
    let grpcurl = Grpcurl::of(&cluster, Party::Coordinator, USER);
    let method = |name: &str| format!("{COORDINATOR}/{name}");

    let services = grpcurl.says(&[], &["list"]);
    for service in [COORDINATOR, "grpc.health.v1.Health"] {
        assert!(services.lines().any(|line| line == service), "{service} is missing in {services}");
    }
    // Newer clients ask by v1, this one by v1alpha; both are there, and each lists itself.
    for version in ["v1", "v1alpha"] {
        let method = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        grpcurl.reflects(&method);
    }
    let described = grpcurl.says(&[], &["describe", "causeway.v1.Operation"]);
    assert!(described.contains("seed_bytes_done") || described.contains("waiting_for"), "{described}");
    let health = grpcurl.call("grpc.health.v1.Health/Check", &json!({ "service": COORDINATOR }));
    assert_eq!(health[0]["status"], "SERVING");

    let start = json!({ "kind": "KIND_MOVE", "source": "west", "destination": "east", "databases": ["a.db", "b.db"] });
    let started = grpcurl.call(&method("StartOperation"), &start);
    let id = |n: usize| started[0]["operations"][n]["id"].as_str().expect("an id").to_owned();
    let (first, second) = (id(0), id(1));
    let state = |id: &str| grpcurl.call(&method("GetOperation"), &json!({ "id": id }))[0]["operation"]["state"].clone();
    for id in [&first, &second] {
        wait::until("ready", wait::PATIENCE, || (state(id) == "STATE_READY_FOR_COMPLETION").then_some(()));
    }
    grpcurl.call(&method("CancelOperation"), &json!({ "operations": { "ids": [second] } }));
    grpcurl.call(&method("CompleteOperation"), &json!({ "operations": { "ids": [first] } }));
    let watched = grpcurl.call(&method("WatchOperations"), &json!({ "ids": [first, second] }));
    let last = |id: &str| watched.iter().rev().find(|update| update["operation"]["id"] == id).cloned();
    assert_eq!(last(&first).expect("the first")["operation"]["state"], "STATE_SUCCEEDED");
    assert_eq!(last(&second).expect("the second")["operation"]["state"], "STATE_CANCELLED");
    let listed = grpcurl.call(&method("ListOperations"), &json!({}));
    assert_eq!(listed[0]["operations"].as_array().map(Vec::len), Some(2));
    assert!(cluster.west().is_tombstone("a.db") && cluster.west().is_writable("b.db"));

    let refused = grpcurl.refuses(&method("CancelOperation"), &json!({ "operations": { "ids": [first] } }));
    assert!(refused.contains("FailedPrecondition") && refused.contains("ENDED"), "{refused}");
    let refused = grpcurl.refuses(&method("StartOperation"), &json!({ "no_such_field": 1 }));
    assert!(refused.contains("no_such_field"), "{refused}");
}

/// The whole flip by hand against the two agents: what the coordinator does, command by command.
#[test]
fn grpcurl_moves_a_database_by_hand_against_the_agents() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    let before = cluster.west().content("a.db");
    let source = Grpcurl::of(&cluster, causeway_tests::SOURCE, "coordinator");
    let dest = Grpcurl::of(&cluster, causeway_tests::DEST, "coordinator");
    for (grpcurl, service) in [(&source, "SourceAgent"), (&dest, "DestAgent"), (&dest, "Transfer")] {
        let services = grpcurl.says(&[], &["list"]);
        assert!(services.contains(&format!("causeway.v1.{service}")), "{services}");
        assert!(grpcurl.says(&[], &["describe", &format!("causeway.v1.{service}")]).contains("rpc"), "{service}");
    }
    let on_source = |method: &str, request: Value| source.call(&format!("causeway.v1.SourceAgent/{method}"), &request);
    let on_dest = |method: &str, request: Value| dest.call(&format!("causeway.v1.DestAgent/{method}"), &request);

    let operation = "01890000-0000-7000-8000-00000000abcd";
    let token = "0123456789abcdef0123456789abcdef";
    let about =
        json!({ "operation": operation, "kind": "KIND_MOVE", "database": "a.db", "token": token, "version": 1 });
    let with = |more: Value| {
        let mut request = about.clone();
        let fields = more.as_object().expect("an object").clone();
        request.as_object_mut().expect("an object").extend(fields);
        request
    };
    on_dest("Prepare", about.clone());
    on_source("Begin", with(json!({ "dest_address": dest.address, "dest_instance": "east" })));
    wait::until("seeded", wait::PATIENCE, || {
        let status = on_source("GetStatus", json!({ "operation": operation }));
        (status[0]["seeded"] == true).then_some(())
    });
    let attempt = |version: u64| json!({ "operation": operation, "version": version, "attempt": 1 });
    let early = dest.refuses("causeway.v1.DestAgent/Promote", &attempt(2));
    assert!(early.contains("FailedPrecondition") && early.contains("NOT_PREPARED"), "{early}");
    let mut fence = attempt(3);
    fence["grace_ms"] = json!(300);
    let fenced = on_source("Fence", fence);
    assert!(fenced[0]["position"].is_string(), "{fenced:?}");
    assert!(!cluster.west().is_writable("a.db"), "fenced");
    let mut promote = attempt(4);
    promote["wait_ms"] = json!(20_000);
    on_dest("Promote", promote.clone());
    // Every command may come twice.
    promote["version"] = json!(5);
    on_dest("Promote", promote);
    on_source("Release", attempt(6));
    on_dest("Finish", json!({ "operation": operation, "version": 7 }));
    on_source("Cleanup", json!({ "operation": operation, "version": 8 }));
    on_dest("Forget", json!({ "operation": operation, "version": 9 }));
    on_dest("Forget", json!({ "operation": operation, "version": 9 }));

    assert_eq!(before, cluster.east().content("a.db"));
    assert!(cluster.west().is_tombstone("a.db") && cluster.east().is_writable("a.db"));
    let databases = on_source("ListDatabases", json!({}));
    assert_eq!(databases[0]["databases"][0]["state"], "tombstone", "{databases:?}");
}

/// Stubs made from the protocol's files, as any user of Python would make them.
pub fn python_stubs(into: &Path) {
    let output = Command::new(tool("python"))
        .args(["-m", "grpc_tools.protoc"])
        .arg(format!("-I{}", workspace().join("proto").display()))
        .arg(format!("--python_out={}", into.display()))
        .arg(format!("--grpc_python_out={}", into.display()))
        .args(["causeway/v1/operation.proto", "causeway/v1/coordinator.proto"])
        .args(["causeway/v1/agent.proto", "causeway/v1/transfer.proto"])
        .output()
        .expect("run grpc_tools.protoc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_python_client_copies_and_moves() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    content::chinook(&cluster.west().database("b.db"));
    let stubs = tempfile::tempdir().expect("a directory");
    python_stubs(stubs.path());
    let certs = cluster.certs();
    for (kind, database) in [("copy", "a.db"), ("move", "b.db")] {
        let output = Command::new(tool("python"))
            .arg(workspace().join("tests/clients/drive.py"))
            .arg(cluster.address(Party::Coordinator))
            .args([certs.join("ca.pem"), certs.join("user.pem"), certs.join("user-key.pem")])
            .args([kind, database])
            .env("PYTHONPATH", stubs.path())
            .output()
            .expect("run python");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let told: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
        let states = told["states"].as_array().expect("states");
        assert_eq!(states.last(), Some(&json!("STATE_SUCCEEDED")), "{told}");
        assert!(states.contains(&json!("STATE_READY_FOR_COMPLETION")), "{told}");
        assert_eq!(told["refused"], "FAILED_PRECONDITION ENDED", "{told}");
        assert_eq!(told["instances"], json!(["east", "west"]));
        assert_eq!(told["listed"], json!([told["id"]]));
        let op = cluster.operation(told["id"].as_str().expect("an id"));
        assert_eq!(op.now().state(), State::Succeeded);
    }
    assert_eq!(cluster.west().content("a.db"), cluster.east().content("a.db"));
    assert!(cluster.west().is_writable("a.db") && cluster.west().is_tombstone("b.db"));
}
