//! What people use today, each in its best setting on two cores as measured before.

use super::{Side, data};
use causeway_tests::Cluster;
use std::{fs::File, process::Stdio};

/// A way to copy a whole database, with every index, into an empty one of the same name at east.
pub struct Peer {
    pub name: &'static str,
    /// The program it needs; without it the peer is left out.
    pub program: &'static str,
    pub copy: fn(&Cluster, &str),
    /// The same while applications write.
    pub copy_live: fn(&Cluster, &str),
}

/// All of them.
pub const PEERS: [Peer; 3] = [
    Peer { name: "pg_dump | pg_restore", program: "pg_restore", copy: dump, copy_live: dump },
    Peer {
        name: "native subscription",
        program: "pg_restore",
        // Indexes afterwards is quicker.
        copy: |cluster, database| subscribe(cluster, database, false),
        // Without keys it cannot apply what is changed meanwhile, and never gets through.
        copy_live: |cluster, database| subscribe(cluster, database, true),
    },
    Peer { name: "pgcopydb", program: "pgcopydb", copy: pgcopydb, copy_live: pgcopydb },
];

/// Whether a program can be run here.
pub fn is_there(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn dump(cluster: &Cluster, database: &str) {
    let (west, east) = (Side::west(cluster), Side::east(cluster));
    let mut dump = west
        .command("pg_dump")
        .args(["-Fc", "-Z0", "--no-owner", database])
        .stdout(Stdio::piped())
        .spawn()
        .expect("run pg_dump");
    let piped = dump.stdout.take().expect("its output is a pipe");
    let restored =
        east.command("pg_restore").args(["--no-owner", "-d", database]).stdin(piped).status().expect("run pg_restore");
    assert!(restored.success() && dump.wait().expect("wait for pg_dump").success(), "dump and restore");
}

/// Schema first, rows through a subscription, and the rest of the schema before or, on two connections, after them.
fn subscribe(cluster: &Cluster, database: &str, keys_first: bool) {
    let (west, east) = (Side::west(cluster), Side::east(cluster));
    let dump = cluster.dir().join("native.dump");
    let file = File::create(&dump).expect("make a file");
    let dumped = west
        .command("pg_dump")
        .args(["-Fc", "-s", "--no-owner", "--no-publications", database])
        .stdout(file)
        .status()
        .expect("run pg_dump");
    assert!(dumped.success(), "dump the schema");
    let path = dump.to_str().expect("a path in UTF-8");
    west.sql(database, "DROP PUBLICATION IF EXISTS peers; CREATE PUBLICATION peers FOR ALL TABLES");
    let rest = || east.run("pg_restore", &["--section=post-data", "-j2", "-d", database, path]);
    east.run("pg_restore", &["--section=pre-data", "-d", database, path]);
    if keys_first {
        rest();
    }
    subscription(cluster, database, database, "copy_data = true");
    let left = "SELECT count(*) FILTER (WHERE srsubstate <> 'r') || '/' || (count(*) > 0) FROM pg_subscription_rel";
    east.until(database, left, "0/true");
    if !keys_first {
        rest();
    }
}

/// A subscription of `to` at east to everything in `from` at west.
pub fn subscription(cluster: &Cluster, from: &str, to: &str, options: &str) {
    let connection = format!("host=127.0.0.1 port={} user=postgres dbname={from}", Side::west(cluster).port);
    let create = format!("CREATE SUBSCRIPTION peers CONNECTION '{connection}' PUBLICATION peers WITH ({options})");
    Side::east(cluster).sql(to, &create);
}

/// Ends what a subscription left.
pub fn unsubscribe(cluster: &Cluster, from: &str, to: &str) {
    let east = Side::east(cluster);
    let subscriptions = "SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = current_database()";
    if east.has(to) && east.value(to, subscriptions) == "1" {
        east.sql(to, "DROP SUBSCRIPTION peers");
    }
    Side::west(cluster).sql(from, "DROP PUBLICATION IF EXISTS peers");
}

fn pgcopydb(cluster: &Cluster, database: &str) {
    let (west, east) = (Side::west(cluster), Side::east(cluster));
    let dir = cluster.dir().join("pgcopydb");
    let _ = std::fs::remove_dir_all(&dir);
    let log = File::create(cluster.dir().join("logs/pgcopydb.log")).expect("make a log");
    let errors = log.try_clone().expect("share the log");
    let mut clone = std::process::Command::new("pgcopydb");
    clone.arg("clone").arg("--dir").arg(&dir);
    clone.args(["--source", &west.uri(database), "--target", &east.uri(database), "--no-owner", "--no-acl"]);
    clone.args(["--table-jobs", "2", "--index-jobs", "2", "--split-tables-larger-than", "100MB"]);
    let status = clone.stdout(log).stderr(errors).status().expect("run pgcopydb");
    assert!(status.success(), "pgcopydb failed; see its log in {}", cluster.dir().display());
}

/// Makes the destination ready for a peer, and cleans up after the one before.
pub fn fresh(cluster: &Cluster, database: &str) {
    let east = Side::east(cluster);
    unsubscribe(cluster, database, database);
    data::empty(&east, database);
    super::settle(cluster);
}
