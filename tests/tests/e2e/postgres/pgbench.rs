//! A database of pgbench's, moved and copied while eight of its clients work, each keeping a ledger of what was acknowledged to it.

use super::cluster;
use causeway_tests::{Cluster, Kind, Op, operation::request, postgres::Instance};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const CLIENTS: usize = 8;
/// Longer than any operation here takes; they are ended before.
const SECONDS: &str = "3000";
/// Transactions before, while and after each step: enough that all clients are in the middle of theirs.
const SOME: usize = 400;

/// pgbench's own transaction. Its client numbers them, and the history keeps the number.
const SCRIPT: &str = r"
\set n :n + 1
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime, filler)
    VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP, ':' || :client_id || ':' || :n);
END;
";

/// The clients at work.
struct Clients {
    process: Child,
    ledger: PathBuf,
}

/// Of each client, the numbers of its transactions.
type Numbers = BTreeMap<usize, BTreeSet<u64>>;

fn pgbench(instance: &Instance, database: &str) -> Command {
    let server = instance.server();
    let mut command = Command::new(server.binaries().program("pgbench"));
    command.args(["--host=127.0.0.1", "--username=app", "--no-vacuum"]);
    command.arg(format!("--port={}", server.port())).env("PGDATABASE", database);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn make(cluster: &Cluster, scale: u32) {
    let west = cluster.postgres("west");
    west.create("bench");
    let made = pgbench(west, "bench").args(["--initialize", "--quiet", &format!("--scale={scale}")]).status();
    assert!(made.expect("run pgbench").success(), "pgbench --initialize fails");
}

impl Clients {
    /// Starts them; they number their transactions from a number on.
    fn start(cluster: &Cluster, instance: &str, scale: u32, from: u64) -> Self {
        let script = cluster.dir().join("transaction.sql");
        fs::write(&script, SCRIPT).expect("write the script");
        let ledger = cluster.dir().join(format!("ledger-{instance}-{from}"));
        let process = pgbench(cluster.postgres(instance), "bench")
            .args(["--time", SECONDS, "--jobs=1", "--log", &format!("--client={CLIENTS}"), &format!("--scale={scale}")])
            .arg(format!("--define=n={from}"))
            .arg(format!("--file={}", script.display()))
            .arg(format!("--log-prefix={}", ledger.display()))
            .spawn()
            .expect("run pgbench");
        let ledger = ledger.with_file_name(format!("ledger-{instance}-{from}.{}", process.id()));
        Self { process, ledger }
    }

    /// Waits until so many more transactions were acknowledged.
    #[track_caller]
    fn until_more(&mut self, count: usize) {
        let lines = |path: &Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
        let (before, began) = (lines(&self.ledger), Instant::now());
        while lines(&self.ledger) < before + count {
            assert!(self.process.try_wait().expect("look after pgbench").is_none(), "the clients have ended");
            assert!(began.elapsed() < Duration::from_secs(120), "the clients do not go on");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the last of them was ended by the server, or ends them; what was acknowledged.
    fn ended(mut self, by_the_server: bool) -> Numbers {
        if !by_the_server {
            let pid = rustix::process::Pid::from_child(&self.process);
            // As when its time is over: it writes its ledger down first.
            rustix::process::kill_process(pid, rustix::process::Signal::ALARM).expect("end pgbench");
        }
        let began = Instant::now();
        while self.process.try_wait().expect("look after pgbench").is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "the clients go on");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.acknowledged()
    }

    /// A line a transaction, once its COMMIT was answered: the client and which of its transactions it was. The file may lack
    /// the newest.
    fn acknowledged(&self) -> Numbers {
        let text = fs::read_to_string(&self.ledger).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut numbers = Numbers::new();
        for line in whole.lines() {
            let mut fields = line.split(' ').map(|field| field.parse::<u64>().expect("a number"));
            let (client, number) = (fields.next().expect("a client"), fields.next().expect("a transaction"));
            assert!(numbers.entry(client as usize).or_default().insert(number), "{line} comes twice");
        }
        numbers
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a database has: of each client the numbers from a number on. Panics if one is there twice, or if the sums differ.
#[track_caller]
fn found(instance: &Instance, from: u64) -> Numbers {
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
        (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)";
    let sums = &instance.sql("bench", sums)[0];
    assert!(sums.iter().all(|sum| *sum == sums[0]), "accounts, tellers, branches and history differ: {sums:?}");
    let mut numbers = Numbers::new();
    for row in instance.column("bench", "SELECT trim(filler) FROM pgbench_history") {
        let mut fields = row.split(':').skip(1).map(|field| field.parse::<u64>().expect("a number"));
        let (client, number) = (fields.next().expect("a client") as usize, fields.next().expect("a number"));
        if number > from {
            assert!(numbers.entry(client).or_default().insert(number - from), "{row} is there twice");
        }
    }
    numbers
}

/// Every acknowledged transaction is there; of each client at most the one is more whose answer it did not live to see.
#[track_caller]
fn assert_kept(acknowledged: &Numbers, found: &Numbers) {
    let count = |numbers: &Numbers| numbers.values().map(BTreeSet::len).sum::<usize>();
    println!("{} acknowledged, {} found", count(acknowledged), count(found));
    assert!(count(acknowledged) > 0, "nothing was acknowledged, so nothing was tested");
    for client in 0..CLIENTS {
        let none = BTreeSet::new();
        let (told, there) = (acknowledged.get(&client).unwrap_or(&none), found.get(&client).unwrap_or(&none));
        let lost: Vec<_> = told.difference(there).collect();
        assert!(lost.is_empty(), "client {client} lost {lost:?}");
        let next = told.last().map_or(1, |last| last + 1);
        let more: Vec<_> = there.difference(told).collect();
        assert!(more.iter().all(|number| **number == next), "client {client} never had {more:?} acknowledged");
    }
}

/// An operation that is ready for completion, and the clients at the source, at work before, while and after it became so.
fn ready(cluster: &Cluster, kind: Kind, scale: u32) -> (Op<'_>, Clients) {
    make(cluster, scale);
    let mut clients = Clients::start(cluster, "west", scale, 0);
    clients.until_more(SOME);
    let op = cluster.start(request(kind, &["bench"]));
    op.until_ready_within(Duration::from_secs(900));
    clients.until_more(SOME);
    (op, clients)
}

fn moves(scale: u32) {
    let cluster = cluster();
    let (op, clients) = ready(&cluster, Kind::Move, scale);
    op.complete();
    op.until_succeeded();
    let east = cluster.postgres("east");
    assert_kept(&clients.ended(true), &found(east, 0));
    // It goes on at its new place.
    let from = 1 << 32;
    let mut clients = Clients::start(&cluster, "east", scale, from);
    clients.until_more(SOME);
    assert_kept(&clients.ended(false), &found(east, from));
    cluster.postgres("west").until_clean();
    east.until_clean();
}

fn copies(scale: u32) {
    let cluster = cluster();
    let (op, mut clients) = ready(&cluster, Kind::Copy, scale);
    let before = clients.acknowledged();
    op.complete();
    op.until_succeeded();
    clients.until_more(SOME);
    let acknowledged = clients.ended(false);
    let (west, east) = (cluster.postgres("west"), cluster.postgres("east"));
    let (source, copy) = (found(west, 0), found(east, 0));
    assert_kept(&acknowledged, &source);
    // One moment of the source: what was acknowledged before it was asked for, and of each client nothing after a gap.
    for client in 0..CLIENTS {
        let (told, there) = (&before[&client], &copy[&client]);
        assert!(told.is_subset(there), "client {client} lost {:?}", told.difference(there));
        assert!(
            there.is_subset(&source[&client]),
            "client {client} never made {:?}",
            there.difference(&source[&client])
        );
        assert_eq!(there.last(), Some(&(there.len() as u64)), "client {client} has a gap");
    }
    west.until_clean();
    east.until_clean();
}

#[test]
fn a_move_under_pgbench_keeps_every_acknowledged_transaction() {
    moves(3);
}

#[test]
fn a_copy_under_pgbench_is_one_moment_of_it() {
    copies(3);
}

#[test]
#[ignore = "a soak: `make soak` runs it"]
fn a_move_of_1300_mb_under_pgbench_keeps_every_acknowledged_transaction() {
    moves(100);
}

#[test]
#[ignore = "a soak: `make soak` runs it"]
fn a_copy_of_1300_mb_under_pgbench_is_one_moment_of_it() {
    copies(100);
}
