//! What stands in the way is found before anything happens, all of it at once, with code and remedy.

use super::{cluster, filled};
use causeway_tests::{Cluster, Kind, POSTGRES, operation::request, v1};
use ledger::postgres::{Binaries, Options};

/// The codes of what a validation finds: errors and warnings.
#[track_caller]
fn found(cluster: &Cluster, database: &str) -> (Vec<String>, Vec<String>) {
    let validate = v1::StartOperationRequest { validate_only: true, ..request(Kind::Move, &[database]) };
    let answer = cluster.try_start(validate).unwrap_or_else(|s| panic!("validate: {}", service::status::describe(&s)));
    let findings: Vec<_> = answer.findings.into_iter().flat_map(|of| of.findings).collect();
    assert!(findings.iter().all(|f| !f.remedy.is_empty() && !f.message.is_empty()), "{findings:?}");
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.severity() == v1::Severity::Error);
    let codes = |findings: Vec<v1::Finding>| {
        let mut codes: Vec<String> = findings.into_iter().map(|finding| finding.code).collect();
        codes.sort();
        codes
    };
    (codes(errors), codes(warnings))
}

#[test]
fn every_obstacle_in_a_database_is_found() {
    let cluster = cluster();
    let (west, east) = (cluster.postgres("west"), cluster.postgres("east"));
    filled(&cluster, "shop", 1);
    assert_eq!(found(&cluster, "shop").0, Vec::<String>::new());
    assert!(found(&cluster, "postgres").0.contains(&"SYSTEM_DATABASE".to_owned()));
    assert!(found(&cluster, "template1").0.contains(&"SYSTEM_DATABASE".to_owned()));
    assert!(found(&cluster, "nowhere").0.contains(&"DATABASE_NOT_FOUND".to_owned()));

    let errors = |make: &str, code: &str, undo: &str| {
        west.sql("shop", make);
        let codes = found(&cluster, "shop").0;
        assert!(codes.contains(&code.to_owned()), "{make}: {codes:?}");
        west.sql("shop", undo);
        let codes = found(&cluster, "shop").0;
        assert!(!codes.contains(&code.to_owned()), "{undo}: {codes:?}");
    };
    errors("BEGIN; DELETE FROM trail; PREPARE TRANSACTION 'x'", "PREPARED_TRANSACTIONS", "ROLLBACK PREPARED 'x'");
    errors("CREATE SCHEMA causeway", "SCHEMA_TAKEN", "DROP SCHEMA causeway");
    errors(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)",
        "SUBSCRIPTION",
        "ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    );
    errors(
        "CREATE ROLE only_west; GRANT SELECT ON filler TO only_west",
        "ROLE_MISSING",
        "DROP OWNED BY only_west; DROP ROLE only_west",
    );

    east.create("shop");
    assert!(found(&cluster, "shop").0.contains(&"NAME_TAKEN".to_owned()));
    east.sql("postgres", "DROP DATABASE shop");
}

#[test]
fn what_has_to_be_redone_is_a_warning() {
    let cluster = cluster();
    let west = cluster.postgres("west");
    filled(&cluster, "shop", 1);
    west.sql("shop", "CREATE PUBLICATION theirs FOR TABLE filler; CREATE UNLOGGED TABLE fast(x int)");
    west.sql("shop", "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')");
    let (errors, warnings) = found(&cluster, "shop");
    assert_eq!(errors, Vec::<String>::new());
    for code in ["PUBLICATIONS", "UNLOGGED_TABLES", "LOGICAL_SLOTS", "NO_KEY"] {
        assert!(warnings.contains(&code.to_owned()), "{code} is not in {warnings:?}");
    }
    west.sql("shop", "SELECT pg_drop_replication_slot('cdc')");
}

#[test]
fn servers_that_cannot_take_part_say_why() {
    let binaries = Binaries::find(Some(15)).expect("PostgreSQL 15 is installed");
    let options = Options::new(binaries).setting("wal_level", "replica").setting("max_replication_slots", "0");
    let cluster = Cluster::builder().postgres(options).start();
    filled(&cluster, "shop", 1);
    let errors = found(&cluster, "shop").0;
    for code in ["WAL_LEVEL", "NO_FREE_SLOT"] {
        assert!(errors.contains(&code.to_owned()), "{code} is not in {errors:?}");
    }
}

#[test]
fn missing_roles_are_made_if_the_operator_wants_it() {
    let cluster = Cluster::builder().engine(POSTGRES).flag("dest", "--create-missing-roles").start();
    filled(&cluster, "shop", 1);
    cluster.postgres("west").sql("shop", "CREATE ROLE clerk; GRANT SELECT ON filler TO clerk");
    assert_eq!(found(&cluster, "shop").0, Vec::<String>::new());
    let op = cluster.start_copy("shop");
    op.until_ready();
    op.complete();
    op.until_succeeded();
    let granted = cluster.postgres("east").value("shop", "SELECT has_table_privilege('clerk', 'filler', 'SELECT')");
    assert_eq!(granted, "t");
}
