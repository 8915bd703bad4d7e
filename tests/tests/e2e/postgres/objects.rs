//! A database that holds one of every object kind is the same afterwards, on the same version and on newer ones.

mod newer;

use super::cluster;
use causeway_tests::{Cluster, Engine, postgres::pg_dump};
use ledger::driver::TableHash;
use std::process::Command;

const EVERYTHING: &str = include_str!("../../../data/everything.sql");
const ROLES: &str = include_str!("../../../data/everything_roles.sql");

/// Makes the database, owned by a role that is no superuser.
fn make(cluster: &Cluster) {
    for instance in ["west", "east"] {
        cluster.postgres(instance).sql("postgres", ROLES);
    }
    cluster.postgres("west").create("everything");
    cluster.postgres("west").sql("everything", EVERYTHING);
}

/// `pg_dump -s -C` of a database, without what names the session.
fn schema(cluster: &Cluster, instance: &str) -> String {
    let program = pg_dump();
    let output = Command::new(program.trim_start_matches("--pg-dump="))
        .args(["--schema-only", "--create", "--no-sync", "--dbname"])
        .arg(cluster.server(instance).dsn("everything"))
        .output()
        .expect("run pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The same lines, in whatever order: `pg_dump` orders some objects by their age.
#[track_caller]
fn assert_same_lines(before: &str, after: &str) {
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let (a, b) = (sorted(before), sorted(after));
    let only = |lines: &[String], others: &[String], sign: char| -> String {
        lines.iter().filter(|line| !others.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    assert!(a == b, "differs:\n{}{}", only(&a, &b, '-'), only(&b, &a, '+'));
}

#[track_caller]
fn assert_same_content(before: &[TableHash], after: &[TableHash]) {
    for (a, b) in before.iter().zip(after) {
        assert_eq!(a, b);
    }
    assert_eq!(before.len(), after.len());
}

#[test]
fn everything_moves_and_is_the_same() {
    let cluster = cluster();
    make(&cluster);
    let (west, east) = (cluster.postgres("west"), cluster.postgres("east"));
    // While the operation runs, some tables at the source have another replica identity.
    let definitions = west.definitions("everything");
    let op = cluster.start_move("everything");
    op.until_ready();
    // What the log does not carry, changed after the seed.
    west.sql("everything", CHANGES);
    let content = data(west.content("everything"));
    op.complete();
    op.until_succeeded();
    east.until_clean();
    assert_same_lines(&definitions.join("\n"), &east.definitions("everything").join("\n"));
    assert_same_content(&content, &data(east.content("everything")));
}

/// What is no definition.
fn data(content: Vec<TableHash>) -> Vec<TableHash> {
    content
        .into_iter()
        .filter(|hash| !["<definitions>", "<views>", "<settings>"].contains(&hash.table.as_str()))
        .collect()
}

/// Sequences, of which none may show in pg_sequences afterwards; large objects made, changed and unlinked.
const CHANGES: &str = "
    SELECT setval(seqrelid::regclass, seqmin + 41 * abs(seqincrement), false) FROM pg_sequence
      WHERE seqmax > seqmin + 100 * abs(seqincrement);
    SELECT lo_from_bytea(0, 'made after the seed');
    SELECT lo_put(min(oid), 0, 'changed') FROM pg_largeobject_metadata;
    SELECT lo_unlink(max(oid)) FROM pg_largeobject_metadata HAVING count(*) > 2";

#[test]
fn everything_is_copied_and_both_are_the_same() {
    let cluster = cluster();
    make(&cluster);
    let before = schema(&cluster, "west");
    let op = cluster.start_copy("everything");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    for instance in ["west", "east"] {
        cluster.postgres(instance).until_clean();
        assert_same_lines(&before, &schema(&cluster, instance));
    }
    assert_same_content(
        &cluster.postgres("west").content("everything"),
        &cluster.postgres("east").content("everything"),
    );
}

fn moves_to(major: u32) {
    let cluster = Cluster::builder().engine(Engine::Postgres(15, major)).start();
    make(&cluster);
    let (west, east) = (cluster.postgres("west"), cluster.postgres("east"));
    let content = data(west.content("everything"));
    let (definitions, texts) = (west.definitions("everything"), newer::texts(west));
    assert!(texts.len() > 10, "{texts:?}");
    let op = cluster.start_move("everything");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    assert!(east.value("everything", "SHOW server_version").starts_with(&major.to_string()));
    let expected: Vec<String> = newer::comparable(definitions).map(|line| newer::as_written_by(major, line)).collect();
    let found: Vec<String> = newer::comparable(east.definitions("everything")).collect();
    assert_same_lines(&expected.join("\n"), &found.join("\n"));
    for text in texts {
        assert_eq!(text.shown(east), text.shown_when_made_anew(east), "{text:?}");
    }
    assert_same_content(&content, &data(east.content("everything")));
}

#[test]
fn everything_moves_to_version_17() {
    moves_to(17);
}

#[test]
fn everything_moves_to_version_18() {
    moves_to(18);
}
