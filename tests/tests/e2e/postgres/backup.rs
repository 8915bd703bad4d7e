//! A new chain of backups begins when a database comes online: the hook runs a real backup tool.

use super::filled;
use causeway_tests::Cluster;
use ledger::postgres::{Binaries, Options};
use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

/// Runs pgbackrest as the account of the servers.
const RUN: &str = r#"
    run() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }
    run pgbackrest --config="$CONFIG" --stanza=east "#;

#[test]
fn the_hook_makes_a_first_backup_that_holds_the_database() {
    let binaries = Binaries::find(Some(15)).expect("PostgreSQL 15 is installed");
    let dir = tempfile::tempdir().expect("a directory");
    // The servers' account writes there.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("open the directory");
    let config = dir.path().join("pgbackrest.conf");
    let script = |command: &str| RUN.replace("\"$CONFIG\"", &config.display().to_string()) + command;
    let archive = format!("pgbackrest --config={} --stanza=east archive-push %p", config.display());
    // West has it too, and archives nothing before the stanza exists.
    let options = Options::new(binaries).setting("archive_mode", "on").setting("archive_command", "true");
    let hook = script("--type=full backup");
    let cluster = Cluster::builder().postgres(options).flag("dest", format!("--on-online={hook}")).start();
    {
        let mut east = cluster.server("east");
        let settings = format!(
            "[global]\nrepo1-path={dir}/repo\nlog-path={dir}\nlock-path={dir}/lock\nspool-path={dir}/spool\nstart-fast=y\n\
             compress-type=none\nlog-level-console=warn\n[east]\npg1-path={data}\npg1-port={port}\npg1-socket-path={socket}\n",
            dir = dir.path().display(),
            data = east.dir().join("data").display(),
            port = east.port(),
            socket = east.dir().display(),
        );
        fs::write(&config, settings).expect("write the tool's settings");
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("let the tool read its settings");
        let made = Command::new("sh").arg("-c").arg(script("stanza-create")).output().expect("run the tool");
        assert!(made.status.success(), "{made:?}");
        east.set("archive_command", &archive).expect("set the archive command");
        east.reload().expect("reload");
    }
    filled(&cluster, "shop", 2);
    let op = cluster.start_move("shop");
    op.until_ready();
    op.complete();
    let moved = op.until_succeeded();
    let hook = moved.on_online.expect("the hook's outcome");
    assert!(hook.ok, "{hook:?}");
    println!("backup in {} ms: {}", hook.took_ms, hook.output);
    let info = Command::new("sh").arg("-c").arg(script("--output=json info")).output().expect("ask for the backups");
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).expect("it answers JSON");
    assert_eq!(info[0]["backup"].as_array().map(Vec::len), Some(1), "{info}");
    let oid = cluster.postgres("east").value("postgres", "SELECT oid FROM pg_database WHERE datname = 'shop'");
    let label = info[0]["backup"][0]["label"].as_str().expect("a backup has a label").to_owned();
    let files = dir.path().join(format!("repo/backup/east/{label}/pg_data/base/{oid}"));
    assert!(fs::read_dir(&files).expect("the database is in the backup").count() > 50);
}
