//! Databases that cannot be moved, and disks that are full: refused, or waited for, with a reason and a remedy.

use causeway_tests::{
    Cluster, DEST, Kind, State, content,
    operation::request,
    v1::{Severity, StartOperationRequest},
};
use rusqlite::Connection;
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The codes of the errors that the preflight finds.
#[track_caller]
fn errors(cluster: &Cluster, database: &str) -> Vec<String> {
    let validate = StartOperationRequest { validate_only: true, ..request(Kind::Move, &[database]) };
    let answer = cluster.try_start(validate).unwrap_or_else(|s| panic!("validate: {}", service::status::describe(&s)));
    let findings = answer.findings.into_iter().flat_map(|of| of.findings);
    let errors: Vec<_> = findings.filter(|finding| finding.severity() == Severity::Error).collect();
    assert!(errors.iter().all(|finding| !finding.remedy.is_empty()), "every error has a remedy: {errors:?}");
    if !errors.is_empty() {
        let refused = cluster.try_start(request(Kind::Move, &[database])).expect_err("what has errors does not start");
        assert_eq!(service::status::reason_of(&refused).map(|r| r.to_string()).as_deref(), Some("PREFLIGHT_FAILED"));
    }
    errors.into_iter().map(|finding| finding.code).collect()
}

/// A Chinook with some bytes overwritten.
fn spoiled(path: &Path, at: u64, bytes: &[u8]) {
    content::chinook(path);
    let file = fs::OpenOptions::new().write(true).open(path).expect("open the database");
    file.write_all_at(bytes, at).expect("spoil the database");
}

#[test]
fn what_is_damaged_encrypted_or_unknown_is_refused() {
    let cluster = Cluster::new();
    let west = cluster.west();
    spoiled(&west.database("payload.db"), 21, &[1, 2, 3]);
    assert_eq!(errors(&cluster, "payload.db"), ["CORRUPT"]);
    content::chinook(&west.database("short.db"));
    fs::OpenOptions::new().write(true).open(west.database("short.db")).expect("open").set_len(500_001).expect("cut");
    assert_eq!(errors(&cluster, "short.db"), ["CORRUPT"]);
    // Random bytes from the first on are what an encrypted database looks like.
    let random: Vec<u8> = (0u32..40_960).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(west.database("secret.db"), random).expect("write");
    assert_eq!(errors(&cluster, "secret.db"), ["ENCRYPTED_OR_NOT_SQLITE"]);
    spoiled(&west.database("future.db"), 18, &[5, 5]);
    assert_eq!(errors(&cluster, "future.db"), ["UNSUPPORTED_HEADER"]);
    spoiled(&west.database("fenced.db"), 18, &[3]);
    assert_eq!(errors(&cluster, "fenced.db"), ["UNSUPPORTED_HEADER"]);
    fs::write(west.database("empty.db"), b"").expect("write");
    assert_eq!(errors(&cluster, "empty.db"), ["EMPTY"]);
    assert_eq!(errors(&cluster, "absent.db"), ["DATABASE_NOT_FOUND"]);
    fs::create_dir(west.database("folder.db")).expect("make a directory");
    assert_eq!(errors(&cluster, "folder.db"), ["DATABASE_NOT_FOUND"]);
    content::chinook(&west.database("good.db"));
    assert_eq!(errors(&cluster, "good.db"), Vec::<String>::new());
}

#[test]
fn a_database_that_an_application_holds_for_itself_is_refused() {
    let cluster = Cluster::new();
    for (name, mode) in [("wal.db", "wal"), ("rollback.db", "delete")] {
        content::chinook(&cluster.west().database(name));
        let db = Connection::open(cluster.west().database(name)).expect("open");
        db.pragma_update(None, "locking_mode", "EXCLUSIVE").expect("ask for exclusive locking");
        db.pragma_update(None, "journal_mode", mode).expect("set the journal mode");
        db.execute_batch("CREATE TABLE mine(x); INSERT INTO mine VALUES(1)").expect("take the lock");
        assert_eq!(errors(&cluster, name), ["LOCKED_EXCLUSIVE"], "{name}");
        db.execute_batch("INSERT INTO mine VALUES(2)").expect("the application is not harmed by the look");
        drop(db);
        assert_eq!(errors(&cluster, name), Vec::<String>::new(), "{name}, released");
    }
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_file_left_alone() {
    let cluster = Cluster::new();
    content::chinook(&cluster.west().database("a.db"));
    fs::write(cluster.east().database("a.db"), b"somebody's file").expect("write");
    assert_eq!(errors(&cluster, "a.db"), ["NAME_TAKEN"]);
    assert_eq!(fs::read(cluster.east().database("a.db")).expect("read"), b"somebody's file");
}

/// A file system of the test's own; needs root.
struct Mount(PathBuf);

impl Mount {
    #[track_caller]
    fn new(args: &[&str], at: &Path) -> Self {
        let output = Command::new("mount").args(args).arg(at).output().expect("run mount");
        assert!(output.status.success(), "mount: {} (needs root)", String::from_utf8_lossy(&output.stderr));
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: an agent may still have files open when a test fails.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_database_that_cannot_be_written_is_refused() {
    let cluster = Cluster::new();
    let path = cluster.west().database("a.db");
    content::chinook(&path);
    // Root may write to everything but a read-only mount.
    let text = path.display().to_string();
    let _mount = Mount::new(&["--bind", &text], &path);
    let output = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&path).output().expect("run mount");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(errors(&cluster, "a.db"), ["READ_ONLY"]);
}

#[test]
fn a_destination_without_space_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let _mount = Mount::new(&["-t", "tmpfs", "-o", "size=90m", "causeway-test"], dir.path());
    let cluster = Cluster::builder().directory("east", dir.path()).start();
    content::filled(&cluster.west().database("a.db"), 60);
    let found = errors(&cluster, "a.db");
    assert!(found.iter().any(|code| code.contains("SPACE")), "{found:?}");
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let _mount = Mount::new(&["-t", "tmpfs", "-o", "size=300m", "causeway-test"], dir.path());
    let cluster =
        Cluster::builder().directory("east", dir.path()).flag("source", "--seed-bytes-per-second=10000000").start();
    content::filled(&cluster.west().database("a.db"), 40);
    // Few writes: the log that arrives before the seed is whole needs space at the destination, too.
    let mut application = cluster.application("a.db").with(|o| o.rate = 50.0).start();
    let op = cluster.start_move("a.db");
    op.until_it("some seed", |op| op.progress.as_ref().is_some_and(|p| p.seed_bytes_sent > 1 << 20));
    // Somebody else takes all the space there is.
    let ballast = dir.path().join("ballast");
    let status = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .stderr(std::process::Stdio::null())
        .status();
    assert!(!status.expect("run dd").success(), "dd goes on until the disk is full");
    let stuck = op.until_it("the destination says that its disk is full", |op| {
        op.waiting_for.iter().any(|party| party.contains("no space left"))
    });
    assert!(matches!(stuck.state(), State::Seeding | State::CatchingUp), "{stuck:?}");
    application.until_more_commits(50);
    fs::remove_file(&ballast).expect("free the disk");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.east().database("a.db"), 50);
    crate::journeys::assert_moved(&cluster, "a.db", &application.finish());
    cluster.kill(DEST);
}
