//! Findings: all at once, each with what to do.

use super::rig::{Rig, SHOP};
use crate::{
    postgres::payload::{Requirements, decode},
    source::SourceEngine as _,
};
use handover::{DatabaseName, Finding, Kind, Severity};

async fn findings(rig: &Rig, name: &str) -> Vec<Finding> {
    let name = DatabaseName::parse(name).expect("a name");
    rig.source.preflight(&name, Kind::Move, None).await.expect("examine").findings
}

fn codes(findings: &[Finding], severity: Severity) -> Vec<&str> {
    let mut codes: Vec<_> = findings.iter().filter(|f| f.severity == severity).map(|f| f.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[tokio::test]
async fn a_good_database_has_no_errors_and_says_what_it_needs() {
    let rig = Rig::with(
        "max_slot_wal_keep_size = 20GB",
        "CREATE EXTENSION hstore; CREATE TABLE t(id int PRIMARY KEY); ALTER TABLE t OWNER TO app; GRANT SELECT ON t TO pg_monitor",
    )
    .await;
    let name = DatabaseName::parse(SHOP).expect("a name");
    let facts = rig.source.preflight(&name, Kind::Copy, None).await.expect("examine");
    assert_eq!(facts.findings, []);
    let needs: Requirements = decode(&facts.requirements).expect("requirements");
    assert_eq!(
        (needs.owner.as_str(), needs.locale.encoding.as_str(), needs.server_version / 10_000),
        ("app", "UTF8", 15)
    );
    assert!(needs.extensions.iter().any(|extension| extension.name == "hstore"));
    let roles: Vec<_> = needs.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(roles, ["app", "postgres"]);
    assert!(facts.seed_bytes > 1 << 20);
    let listed = rig.source.databases().await.expect("list");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].state.as_str()), (SHOP, "online"));
}

#[tokio::test]
async fn a_disk_without_room_for_log_is_told() {
    let rig = Rig::with("max_slot_wal_keep_size = 20GB", "SELECT 1").await;
    let told = async |free| {
        rig.disk.tell(free).await;
        let found = findings(&rig, SHOP).await;
        found.into_iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(told(Some(1 << 40)).await, Vec::<String>::new());
    assert_eq!(told(Some(40 << 30)).await, ["LOG_SPACE_SMALL"]);
    assert_eq!(told(Some(255 << 20)).await, ["LOG_SPACE"]);
    // From here on the agent does not see the directory.
    let mut rig = rig;
    rig.disk.tell(None).await;
    rig.restart().await;
    let found = findings(&rig, SHOP).await;
    assert_eq!(codes(&found, Severity::Warning), ["LOG_SPACE_NOT_CHECKED"]);
}

#[tokio::test]
async fn everything_in_the_way_is_told_at_once() {
    let rig = Rig::with(
        "wal_level = replica\nmax_replication_slots = 0\nmax_prepared_transactions = 5\nmax_slot_wal_keep_size = 1MB",
        "CREATE TABLE keyless(a int); CREATE UNLOGGED TABLE u(a int); CREATE TYPE c AS (a int); CREATE TABLE comp(id int PRIMARY KEY, c c);
         CREATE PUBLICATION theirs FOR TABLE keyless; CREATE SCHEMA causeway;
         CREATE SUBSCRIPTION sub CONNECTION 'dbname=nobody' PUBLICATION p WITH (connect = false)",
    )
    .await;
    rig.cluster.run(SHOP, "BEGIN; INSERT INTO keyless VALUES (1); PREPARE TRANSACTION 'held'").await;
    let found = findings(&rig, SHOP).await;
    assert_eq!(
        codes(&found, Severity::Error),
        ["NO_FREE_SLOT", "PREPARED_TRANSACTIONS", "SCHEMA_TAKEN", "SUBSCRIPTION", "WAL_LEVEL"]
    );
    assert_eq!(
        codes(&found, Severity::Warning),
        ["DISTRIBUTED_TRANSACTIONS", "NO_KEY", "PUBLICATIONS", "TEXT_FORMAT", "UNLOGGED_TABLES", "WAL_KEEP_SMALL"]
    );
    assert!(found.iter().all(|finding| !finding.remedy.is_empty()));
    assert!(codes(&findings(&rig, "postgres").await, Severity::Error).contains(&"SYSTEM_DATABASE"));
    assert!(codes(&findings(&rig, "template1").await, Severity::Error).contains(&"SYSTEM_DATABASE"));
    rig.cluster.run("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false").await;
    assert!(codes(&findings(&rig, SHOP).await, Severity::Error).contains(&"NOT_CONNECTABLE"));
    rig.cluster.run("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS true").await;
    rig.cluster.run(SHOP, "COMMIT PREPARED 'held'").await;
    rig.cluster.run(SHOP, "ALTER SUBSCRIPTION sub SET (slot_name = NONE)").await;
    rig.cluster.run(SHOP, "DROP SUBSCRIPTION sub").await;
}

#[tokio::test]
async fn an_ordinary_role_and_a_missing_pg_dump_are_named() {
    let mut rig = Rig::new("SELECT 1").await;
    rig.setup.pg_dump = "/nowhere/pg_dump".into();
    rig.restart().await;
    assert!(codes(&findings(&rig, SHOP).await, Severity::Error).contains(&"PG_DUMP"));
    rig.cluster.run("postgres", "CREATE ROLE agent LOGIN REPLICATION; GRANT ALL ON SCHEMA causeway TO agent; GRANT ALL ON ALL TABLES IN SCHEMA causeway TO agent").await;
    rig.setup.dsn = format!("host=127.0.0.1 port={} user=agent dbname=postgres", rig.cluster.port());
    let source = super::rig::engine(&rig.setup, rig.limits, &rig.disk);
    let old = std::mem::replace(&mut rig.source, source);
    drop(old);
    rig.source.take_over().await.expect("take over");
    let found = findings(&rig, SHOP).await;
    let rights = found.iter().find(|finding| finding.code == "RIGHTS").expect("it is told");
    assert!(rights.message.contains("agent") && rights.message.contains("superuser"), "{rights:?}");
}
