//! The program itself against a coordinator that answers from a script: what it prints, and how it exits.

mod coordinator;

use std::{collections::BTreeMap, process::Output};

use coordinator::Fake;
use tokio::process::Command;

/// What a run of the program came to.
struct Run {
    exit: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr))
    }

    #[track_caller]
    fn exits(self, wanted: i32) -> Self {
        assert_eq!(self.exit, wanted, "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn complains(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in\n{}", self.stderr);
        }
        self
    }
}

async fn run(address: &str, line: &str) -> Run {
    run_with(address, line, &BTreeMap::new()).await
}

async fn run_with(address: &str, line: &str, env: &BTreeMap<&str, &str>) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    std::env::vars().filter(|(name, _)| name.starts_with("CAUSEWAY_")).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.env("CAUSEWAY_COORDINATOR", address).env("CAUSEWAY_INSECURE", "true").envs(env);
    command.args(line.split_whitespace()).stdin(std::process::Stdio::null());
    let Output { status, stdout, stderr } = command.output().await.expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    Run { exit: status.code().expect("no signal ended it"), stdout: text(stdout), stderr: text(stderr) }
}

#[tokio::test]
async fn a_start_prints_what_was_started_and_how_to_follow_it() {
    let fake = Fake::serve().await;
    let started = run(&fake, "move start --source west --dest east --database shop").await.exits(0);
    assert!(started.stdout.contains("0197-shop") && started.stdout.contains("STATUS"), "{}", started.stdout);
    started.complains(&["follow with: causeway operation watch 0197-shop"]);
    let json = run(&fake, "move start --source west --dest east --database shop -o json").await.exits(0).json();
    assert_eq!(json["operations"][0]["state"], "preparing");
    assert_eq!(json["operations"][0]["kind"], "move");
}

#[tokio::test]
async fn findings_are_all_told_with_their_remedies() {
    let fake = Fake::serve().await;
    let line = "copy start --source west --dest east --database shop --database taken";
    let refused = run(&fake, line).await.exits(1);
    refused.complains(&["✗ error NAME_TAKEN", "remedy: drop or rename", "! warning LATER", "PREFLIGHT_FAILED"]);
    let validated = run(&fake, &format!("{line} --validate-only")).await.exits(1);
    assert!(
        validated.stdout.contains("✗ error NAME_TAKEN") && validated.stdout.contains("✓ nothing"),
        "{}",
        validated.stdout
    );
    let json = run(&fake, &format!("{line} --validate-only -o json")).await.exits(1).json();
    assert_eq!(json["findings"][1]["findings"][0]["severity"], "error");
    assert_eq!(json["operations"], serde_json::json!([]));
    run(&fake, "copy start --source west --dest east --database shop --validate-only").await.exits(0);
}

#[tokio::test]
async fn a_watch_goes_on_through_a_lost_stream_and_ends_at_ready() {
    let fake = Fake::serve().await;
    let watched = run(&fake, "move start --source west --dest east --database lost --watch").await.exits(0);
    watched.complains(&[
        "move lost west -> east: seeding",
        "lost the coordinator",
        "the coordinator is back",
        "ready_for_completion",
        "complete with: causeway move complete --source west --dest east --database lost",
    ]);
    let events = run(&fake, "operation watch 0197-lost --until ready -o json").await.exits(0);
    let states: Vec<serde_json::Value> = events
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].clone())
        .collect();
    assert_eq!(states.last().unwrap(), "ready_for_completion", "{states:?}");
}

#[tokio::test]
async fn a_completion_ends_by_its_outcome() {
    let fake = Fake::serve().await;
    run(&fake, "move complete 0197-shop --watch").await.exits(0).complains(&["succeeded"]);
    let frozen = run(&fake, "move complete 0197-frozen --max-freeze 20ms --watch").await.exits(1);
    frozen.complains(&["reason: FREEZE_EXCEEDED", "remedy: give a larger --max-freeze"]);
    run(&fake, "move cancel 0197-shop").await.exits(0);
    let watched = run(&fake, "operation watch 0197-frozen --until ready").await.exits(0);
    watched.complains(&["ready_for_completion"]);
}

#[tokio::test]
async fn each_refusal_has_its_exit_code_reason_and_remedy() {
    let fake = Fake::serve().await;
    run(&fake, "move complete 0197-early")
        .await
        .exits(4)
        .complains(&["error: complete the move of 0197-early", "reason: NOT_READY"]);
    run(&fake, "operation show 0197-unknown").await.exits(5).complains(&["reason: OPERATION_NOT_FOUND", "remedy: "]);
    run(&fake, "instance remove west").await.exits(6).complains(&["reason: IDENTITY_NOT_ALLOWED"]);
    run(&fake, "database list down").await.exits(3).complains(&["reason: AGENT_UNREACHABLE"]);
    run(&fake, "instance register bad --dest-agent nowhere")
        .await
        .exits(2)
        .complains(&["instance.dest_agent: not an address"]);
    let json = run(&fake, "operation show 0197-unknown -o json").await.exits(5);
    let error: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!((&error["error"]["reason"], &error["exit_code"]), (&"OPERATION_NOT_FOUND".into(), &5.into()));
    assert_eq!(json.stdout, "");
}

#[tokio::test]
async fn nobody_there_and_bad_flags() {
    // Port 1 of this machine: nothing listens there.
    run("127.0.0.1:1", "instance list")
        .await
        .exits(3)
        .complains(&["127.0.0.1:1", "remedy: check that the process runs"]);
    run("nonsense", "instance list").await.exits(2).complains(&["host:port"]);
    run("db9.example:7440", "instance list").await.exits(2).complains(&["plain text"]);
    let secure = run_with("127.0.0.1:1", "instance list", &[("CAUSEWAY_INSECURE", "false")].into()).await;
    secure.exits(2).complains(&["--ca, --cert and --key"]);
    run("127.0.0.1:1", "move start").await.exits(2).complains(&["--source"]);
    run("127.0.0.1:1", "version").await.exits(0);
    run("127.0.0.1:1", "demo --engine oracle").await.exits(2).complains(&["sqlite", "postgres"]);
}

#[tokio::test]
async fn overrides_want_the_id_a_second_time() {
    let fake = Fake::serve().await;
    run(&fake, "operation force-promote 0197-shop").await.exits(2).complains(&["add --yes-i-know 0197-shop"]);
    run(&fake, "operation force-promote 0197-shop --yes-i-know 0197-crm").await.exits(2).complains(&["second time"]);
    let done = run(&fake, "operation force-promote 0197-shop --yes-i-know 0197-shop -o json").await.exits(0);
    assert_eq!(done.json()["id"], "0197-shop");
    let forgot = run(&fake, "operation forget 0197-shop --side dest --yes-i-know 0197-shop").await.exits(0);
    assert!(forgot.stdout.contains("0197-shop"));
}

#[tokio::test]
async fn lists_go_through_all_pages_up_to_the_limit() {
    let fake = Fake::serve().await;
    let of = async |line: &str| run(&fake, line).await.exits(0).json()["operations"].as_array().unwrap().len();
    assert_eq!(of("operation list --limit 0 -o json").await, coordinator::LISTED);
    assert_eq!(of("operation list --limit 7 -o json").await, 7);
    run(&fake, "operation list --limit 7").await.exits(0).complains(&["more than 7"]);
}

#[tokio::test]
async fn a_file_gives_defaults_and_flags_win() {
    let fake = Fake::serve().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cli.toml");
    std::fs::write(&file, "coordinator = '127.0.0.1:1'\ninsecure = true\noutput = 'json'\n").unwrap();
    let flag = format!("operation show 0197-shop --config {} --coordinator {fake}", file.display());
    let shown = run_with("", &flag, &BTreeMap::new()).await;
    assert_eq!(shown.exits(0).json()["id"], "0197-shop");
    std::fs::write(&file, "coordinater = 'x'\n").unwrap();
    run(&fake, &format!("instance list --config {}", file.display()))
        .await
        .exits(2)
        .complains(&["coordinater", "coordinator"]);
}

#[tokio::test]
async fn an_explanation_says_what_is_going_on_and_what_can_be_done() {
    let fake = Fake::serve().await;
    let told = run(&fake, "operation explain 0197-shop").await.exits(0).stdout;
    for words in [
        "move of shop from west to east: completing since 2023-11-14T22:13:20Z",
        "Attempt 1 is being given up.",
        "Nobody: west is closed, and east is not open.",
        "source agent of west: it is fenced",
        "destination agent of east: it does not answer: refused",
        "It waits for",
        "  destination agent east: it does not answer (since 2023-11-14T22:14:20Z, ",
        "causeway operation force-unfence 0197-shop  (override, asks twice)",
        "Only if east is gone for ever.",
    ] {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
    let json = run(&fake, "operation explain 0197-shop -o json").await.exits(0).json();
    assert_eq!(json["operation"]["state"], "completing");
    assert_eq!(json["choices"][1]["is_override"], true);
    assert_eq!(json["waits"][0]["since"], "2023-11-14T22:14:20Z");
    run(&fake, "operation explain 0197-unknown").await.exits(5);
}

#[tokio::test]
async fn a_token_says_who_one_is_and_a_denial_has_its_exit_code() {
    let fake = Fake::serve().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "secret-of-ann\n").expect("write the token");
    let env = BTreeMap::from([("CAUSEWAY_TOKEN_FILE", file.to_str().expect("a plain path"))]);
    let me = run_with(&fake, "auth whoami", &env).await.exits(0);
    assert!(me.stdout.contains("user:ann (by token)") && me.stdout.contains("groups: team"), "{}", me.stdout);
    assert!(run(&fake, "auth whoami").await.exits(0).stdout.contains("user:nobody"));
    let allowed = run(&fake, "auth check ann read database:west/shop").await.exits(0);
    assert_eq!(allowed.stdout.trim(), "allowed: user:ann read database:west/shop, by readers");
    let denied = run(&fake, "auth check ann write database:west/shop").await.exits(6);
    assert_eq!(denied.stdout.trim(), "denied: user:ann write database:west/shop, no policy permits it");
    let json = run(&fake, "auth check ann write database:west/shop -o json").await.exits(6).json();
    assert_eq!((&json["allowed"], &json["policies"]), (&false.into(), &serde_json::json!([])));
    run(&fake, "auth check ann own database:west/shop").await.exits(2).complains(&["read, write, admin"]);
    std::fs::write(&file, " \n").expect("empty it");
    run_with(&fake, "auth whoami", &env).await.exits(2).complains(&["holds no token"]);
    // Made without a coordinator; each is another.
    let made = run("127.0.0.1:1", "auth token --user ann --group dba -o json").await.exits(0).json();
    let (token, entry) = (made["token"].as_str().expect("a token"), made["entry"].as_str().expect("an entry"));
    assert!(entry.contains("user = \"ann\"") && entry.contains("groups = [\"dba\"]") && entry.contains("expires = 20"));
    assert!(token.len() > 64 && !entry.contains(token), "the entry holds a hash only");
    assert_ne!(run("127.0.0.1:1", "auth token --user ann -o json").await.exits(0).json()["token"], token);
}
