//! The demo as a newcomer runs it: it proves its claim, and ends its processes on every path.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const SERVERS: [&str; 4] = ["causeway-coordinator", "causeway-agent-source", "causeway-agent-dest", "causeway-ledger"];
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with those that the demo starts beside it.
fn program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_causeway"));
    let dir = program.parent().expect("a program lies in a directory");
    // `make test` has built everything before, also where some of it is out of date.
    if env::var("CAUSEWAY_TEST_BUILD").as_deref() != Ok("0") {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "the programs of the demo do not build");
    }
    for server in SERVERS {
        assert!(dir.join(server).is_file(), "{server} is missing: run `cargo build --workspace --bins`");
    }
    program
}

fn demo(dir: &Path, seconds: u32, more: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(["demo", "--size-mb=4", "--dir"]).arg(dir).arg(format!("--seconds={seconds}")).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the demo starts")
}

/// Waits for its end: exit code, standard output, standard error.
fn ended(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the demo ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    (status.code().expect("no signal ended it"), text(stdout), text(stderr))
}

/// The processes with `dir` in their command line, but for the demo itself.
fn processes(dir: &Path) -> Vec<(i32, String)> {
    let mark = format!("{}/", dir.display());
    let entries = fs::read_dir("/proc").expect("a /proc").filter_map(Result::ok);
    let found = entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        line.contains(&mark).then_some((id, line))
    });
    found.collect()
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let due = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < due, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn signal(id: i32, signal: Signal) {
    kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("signal a process that runs");
}

#[track_caller]
fn assert_nothing_left(dir: &Path) {
    assert_eq!(processes(dir), [], "processes are left");
    let left: Vec<_> = fs::read_dir(dir).expect("the directory stays").collect();
    assert!(left.is_empty(), "files are left: {left:?}");
}

#[test]
fn a_move_is_proven_and_leaves_nothing() {
    proves_a_move("sqlite");
}

#[test]
fn a_move_of_postgres_is_proven_and_leaves_nothing() {
    proves_a_move("postgres");
}

fn proves_a_move(engine: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (exit, stdout, stderr) = ended(demo(dir.path(), 1, &["--engine", engine]));
    assert_eq!(exit, 0, "{stdout}{stderr}");
    for line in ["lost                              0", "invented                          0", "dropped", "✓ Proven"]
    {
        assert!(stdout.contains(line), "{line:?} is not in\n{stdout}");
    }
    assert_nothing_left(dir.path());
}

#[test]
fn a_copy_is_proven_and_can_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (exit, stdout, stderr) = ended(demo(dir.path(), 1, &["--mode=copy", "--keep"]));
    assert_eq!(exit, 0, "{stdout}{stderr}");
    for line in
        ["lost                              0", "untouched", "✓ Proven", "databases, certificates and logs are in"]
    {
        assert!(stdout.contains(line), "{line:?} is not in\n{stdout}");
    }
    assert_eq!(processes(dir.path()), [], "processes are left");
    let kept = fs::read_dir(dir.path()).unwrap().next().expect("it was kept").unwrap().path();
    assert!(kept.join("west/shop.db").is_file() && kept.join("east/shop.db").is_file());
}

#[test]
fn a_signal_ends_it_and_all_its_processes() {
    let dir = tempfile::tempdir().unwrap();
    let child = demo(dir.path(), 60, &[]);
    wait_for("the writers", || {
        processes(dir.path()).iter().any(|(_, line)| line.contains("causeway-ledger")).then_some(())
    });
    signal(i32::try_from(child.id()).unwrap(), Signal::TERM);
    let (exit, stdout, stderr) = ended(child);
    assert_eq!(exit, 130, "{stdout}{stderr}");
    assert!(stderr.contains("its processes are ended"), "{stderr}");
    assert_nothing_left(dir.path());
}

#[test]
fn a_server_that_falls_is_told_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let child = demo(dir.path(), 60, &[]);
    wait_for("the writers", || {
        processes(dir.path()).iter().any(|(_, line)| line.contains("causeway-ledger")).then_some(())
    });
    let agent =
        |(id, line): &(i32, String)| (line.contains("agent-dest") && line.contains("--instance=west")).then_some(*id);
    signal(wait_for("an agent", || processes(dir.path()).iter().find_map(agent)), Signal::KILL);
    let (exit, stdout, stderr) = ended(child);
    assert_eq!(exit, 1, "{stdout}{stderr}");
    for words in ["agent-dest-west ended with signal: 9", "--- the last lines of agent-source-west ---"] {
        assert!(stderr.contains(words), "{words:?} is not in\n{stderr}");
    }
    assert_eq!(processes(dir.path()), [], "processes are left");
}
