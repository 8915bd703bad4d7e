//! The ledger on PostgreSQL: writers, checker, content hashes, and the server they are tried on.

use std::{process::Command, thread, time::Duration};

use causeway_ledger::{
    CheckOptions, Process, Program, WriteOptions, check,
    postgres::{Binaries, Options, PostgresView, Server, fill},
    transaction::{Chain, Transaction},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_causeway-ledger"))
}

/// A server with an ordinary role and its database; nothing if there is no PostgreSQL on this machine.
fn server() -> Option<Server> {
    let binaries = Binaries::find(None).ok()?;
    let server = Server::start(Options::new(binaries).setting("fsync", "off")).expect("a server");
    server.sql("postgres", "CREATE ROLE app LOGIN").expect("a role");
    server.sql("postgres", "CREATE DATABASE shop OWNER app").expect("a database");
    Some(server)
}

fn restless(server: &Server, dir: &std::path::Path) -> WriteOptions {
    WriteOptions {
        writers: 4,
        processes: true,
        duration: 0.0,
        readers: 1,
        reader_hold_ms: 50,
        churn: 3000,
        truncate_every: 150,
        reopen_every: 97,
        vacuum_every: 200,
        big_every: 121,
        rollback_every: 31,
        savepoint_every: 3,
        linger_every: 7,
        ..WriteOptions::new(server.place("app", "shop"), dir.join("history"))
    }
}

#[test]
fn restless_writers_leave_what_their_ledger_says() {
    let Some(server) = server() else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = restless(&server, dir.path());
    let mut process = Process::spawn(&program(), &options).unwrap();
    process.wait_for_commits(1500, PATIENCE).unwrap();
    let while_writing = check(&CheckOptions::new(&options.db, &options.history)).unwrap();
    assert!(while_writing.is_ok(), "{while_writing}");
    let summary = process.stop().unwrap();
    assert_eq!((summary.errors, summary.torn, summary.losses_noticed), (0, 0, 0), "{summary:?}");
    let report = check(&CheckOptions::new(&options.db, &options.history).with_content_hash()).unwrap();
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.acknowledged, report.integrity.as_deref()), (summary.committed, Some("ok")));

    // A check that cannot fail proves nothing.
    server
        .sql("shop", "DELETE FROM ledger WHERE writer = 1 AND seq = 7; UPDATE account SET balance = 1 WHERE id = 5")
        .unwrap();
    let report = check(&CheckOptions::new(&options.db, &options.history)).unwrap();
    assert!(report.has("lost") && report.has("half-applied"), "{report}");
}

/// The faults that a move could commit, each planted in a twin of its own, each found and called by its name.
#[test]
fn each_planted_fault_is_named() {
    let Some(server) = server() else { return };
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("history");
    let options = WriteOptions {
        writers: 2,
        processes: true,
        duration: 0.0,
        ..WriteOptions::new(server.place("app", "shop"), &history)
    };
    let mut process = Process::spawn(&program(), &options).unwrap();
    process.wait_for_commits(200, PATIENCE).unwrap();
    process.stop().unwrap();
    let report = check(&CheckOptions::new(&options.db, &history)).unwrap();
    assert!(report.is_ok() && report.acknowledged >= 200, "{report}");

    let last: u64 = server.value("shop", "SELECT max(seq) FROM ledger WHERE writer = 0").unwrap().parse().unwrap();
    let rows = (1..last).map(|seq| Transaction::of(0, seq, options.payload));
    let chain = rows.fold(Chain::default(), |chain, row| chain.after(&row));
    let digest: String = chain.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    // Nothing of the newest transaction is left, in no table: only the history knows of it.
    let lost = format!(
        "UPDATE account SET balance = balance + amount FROM ledger WHERE writer = 0 AND seq = {last} AND id = src;
         UPDATE account SET balance = balance - amount FROM ledger WHERE writer = 0 AND seq = {last} AND id = dst;
         DELETE FROM list WHERE writer = 0 AND seq = {last}; DELETE FROM ledger WHERE writer = 0 AND seq = {last};
         UPDATE chain SET seq = {}, digest = '\\x{digest}' WHERE writer = 0",
        last - 1
    );
    let invented = "INSERT INTO ledger SELECT writer, seq + 1, src, dst, amount, note FROM ledger WHERE writer = 0
                    ORDER BY seq DESC LIMIT 1";
    let key = server.value("shop", "SELECT key FROM list GROUP BY key HAVING count(*) > 1 LIMIT 1").unwrap();
    let reordered = format!(
        "UPDATE list SET position = -position WHERE key = {key} AND position < 3;
         UPDATE list SET position = 3 + position WHERE position < 0"
    );
    let half = "UPDATE account SET balance = balance - 5 WHERE id = (SELECT dst FROM ledger LIMIT 1)";
    let faults = [("lost", lost.as_str()), ("invented", invented), ("reordered", &reordered), ("half-applied", half)];
    for (number, (kind, fault)) in faults.into_iter().enumerate() {
        let twin = format!("twin{number}");
        server.sql("postgres", &format!("CREATE DATABASE {twin} TEMPLATE shop OWNER app")).unwrap();
        let options = CheckOptions::new(server.place("app", &twin), &history);
        assert!(check(&options).unwrap().is_ok(), "the twin is as the first was");
        server.sql(&twin, fault).unwrap();
        let report = check(&options).unwrap();
        assert!(report.has(kind), "{kind}: {report}");
        assert!(kind != "lost" || report.problems.len() == 1, "nothing but the history tells: {report}");
    }
}

#[test]
fn writers_follow_their_database_and_survive_a_kill_of_the_server() {
    let Some(mut server) = server() else { return };
    let dir = tempfile::tempdir().unwrap();
    server.sql("postgres", "CREATE DATABASE moved OWNER app CONNECTION LIMIT 0").unwrap();
    let mut options = restless(&server, dir.path());
    let moved = server.place("app", "moved");
    options.follow = vec![moved.clone()];
    (options.readers, options.truncate_every) = (0, 0);
    let mut process = Process::spawn(&program(), &options).unwrap();
    process.wait_for_commits(200, PATIENCE).unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    process.wait_for_more_commits(200, PATIENCE).unwrap();

    // What a fence does, and what an engine would do about the data.
    server.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false").unwrap();
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'").unwrap();
    process.wait_for_fence(4, PATIENCE).unwrap();
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'";
    while server.value("postgres", gone).unwrap() != "0" {
        thread::sleep(Duration::from_millis(5));
    }
    server.sql("postgres", "DROP DATABASE moved").unwrap();
    server.sql("postgres", "CREATE DATABASE moved TEMPLATE shop OWNER app").unwrap();
    process.wait_for_commits_at(&moved, 100, PATIENCE).unwrap();
    let summary = process.stop().unwrap();
    assert!(summary.freeze_ms.is_some_and(|ms| ms > 0.0), "{summary:?}");
    let report = check(&CheckOptions::new(&moved, &options.history)).unwrap();
    assert!(report.is_ok(), "{report}");
}

#[test]
fn equal_content_hashes_mean_equal_databases() {
    let Some(server) = server() else { return };
    fill(&server.dsn("shop"), 2).unwrap();
    let everything = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE \"od\"\"d\"(a mood, b int[], c numeric DEFAULT 3);
        INSERT INTO \"od\"\"d\" VALUES ('ok', '{1,2}', 7), ('ok', '{1,2}', 7); CREATE TABLE nothing(); INSERT INTO nothing DEFAULT VALUES;
        CREATE VIEW v AS SELECT * FROM filler; CREATE SEQUENCE s START 7; CREATE MATERIALIZED VIEW m AS SELECT 1 AS x;
        GRANT SELECT ON filler TO PUBLIC; COMMENT ON TABLE filler IS 'x'; ALTER DATABASE shop SET work_mem = '5MB';
        SELECT lo_from_bytea(0, 'abc')";
    server.sql("shop", everything).unwrap();
    server.sql("postgres", "CREATE DATABASE twin TEMPLATE shop OWNER app").unwrap();
    server.sql("postgres", "ALTER DATABASE twin SET work_mem = '5MB'").unwrap();
    let content = |database: &str| {
        let view = PostgresView::open(&server.dsn(database)).unwrap();
        (causeway_ledger::driver::View::content(&view).unwrap(), view.definitions().unwrap())
    };
    let before = content("shop");
    assert_eq!(before, content("twin"));
    for (change, where_) in [
        ("DELETE FROM \"od\"\"d\" WHERE ctid = '(0,2)'", "public.\"od\"\"d\""),
        ("SELECT nextval('s')", "<sequence public.s>"),
        ("SELECT lo_put(oid, 0, 'x') FROM pg_largeobject_metadata", "<large objects>"),
        ("REVOKE SELECT ON filler FROM PUBLIC", "<definitions>"),
        ("COMMENT ON TABLE filler IS 'y'", "<definitions>"),
        ("CREATE OR REPLACE VIEW v AS SELECT id, tag, body FROM filler WHERE id > 1", "<views>"),
        ("ALTER DATABASE twin SET work_mem = '6MB'", "<settings>"),
    ] {
        server.sql("twin", change).unwrap();
        let (old, new) = (&before.0, content("twin").0);
        let differs: Vec<&str> = old.iter().zip(&new).filter(|(a, b)| a != b).map(|(a, _)| a.table.as_str()).collect();
        assert!(differs.contains(&where_), "{change}: {differs:?}");
    }
}

#[test]
fn a_server_ends_with_its_owner_and_takes_its_files_along() {
    let Some(server) = server() else { return };
    let (dir, pid) = (server.dir().to_owned(), server.pid().expect("it runs"));
    drop(server);
    assert!(!dir.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists());

    // The owner is this very test, run again as a child that is killed.
    if std::env::var_os("CAUSEWAY_TEST_OWNER").is_some() {
        let server = self::server().expect("a server");
        println!("DIR {}", server.dir().display());
        thread::sleep(PATIENCE);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_server_ends_with_its_owner_and_takes_its_files_along", "--nocapture"])
        .env("CAUSEWAY_TEST_OWNER", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let dir =
        lines.find_map(|line| line.unwrap().strip_prefix("DIR ").map(std::path::PathBuf::from)).expect("its directory");
    assert!(dir.join("data/postmaster.pid").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let started = std::time::Instant::now();
    while dir.exists() {
        assert!(started.elapsed() < PATIENCE, "{} is still there", dir.display());
        thread::sleep(Duration::from_millis(20));
    }
}
