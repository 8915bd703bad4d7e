//! DDL while an operation runs: refused with a clear word, or let through and noticed.

use super::{assert_moved, cluster, filled, reason};
use causeway_tests::{Cluster, POSTGRES, State};

#[test]
fn ddl_is_refused_by_name_and_everything_temporary_passes() {
    let cluster = cluster();
    filled(&cluster, "shop", 1);
    cluster
        .postgres("west")
        .sql("shop", "CREATE MATERIALIZED VIEW tags AS SELECT DISTINCT tag FROM filler; ALTER TABLE tags OWNER TO app");
    let mut application = cluster.application("shop").start();
    let op = cluster.start_move("shop");
    op.until_ready();
    let west = cluster.postgres("west");
    for refused in [
        "CREATE TABLE more(x int)",
        "ALTER TABLE filler ADD COLUMN luck double precision DEFAULT random()",
        "CREATE TABLE many AS SELECT * FROM filler",
        "DROP TABLE scratch",
        "CREATE INDEX filler_body ON filler(left(body, 10))",
        "DROP MATERIALIZED VIEW tags",
        "DO $$ BEGIN EXECUTE 'CREATE VIEW v AS SELECT 1'; END $$",
    ] {
        let refusal = west.try_sql("app", "shop", refused).expect_err(refused);
        assert_eq!(refusal.state, "55006", "{refused}: {refusal}");
        println!("{refusal}");
    }
    let temporary = "CREATE TEMP TABLE t(x int); ALTER TABLE t ADD y int; DROP TABLE t; CREATE TEMP VIEW w AS SELECT 1; DROP VIEW w";
    west.try_sql("app", "shop", temporary).expect("what is temporary passes");
    west.try_sql("app", "shop", "REFRESH MATERIALIZED VIEW tags").expect("a refresh passes");
    // Whoever reads the message has to find the operation.
    let hinted = west.try_sql(
        "app",
        "shop",
        "DO $$ DECLARE h text; BEGIN CREATE TABLE x(); EXCEPTION WHEN object_in_use THEN
        GET STACKED DIAGNOSTICS h = PG_EXCEPTION_HINT; RAISE EXCEPTION '%', h; END $$",
    );
    let hint = hinted.expect_err("it raises the hint").message;
    assert!(hint.contains(&op.id), "{hint}");

    op.complete();
    op.until_succeeded();
    application.until_commits_at(&cluster.database("east", "shop"), 50);
    assert_moved(&cluster, "shop", &application.finish());
    cluster.postgres("east").try_sql("app", "shop", "CREATE TABLE more(x int)").expect("afterwards it is allowed");
}

#[test]
fn ddl_that_is_let_through_ends_the_operation_and_harms_nobody() {
    let cluster = Cluster::builder().engine(POSTGRES).flag("source", "--on-ddl=cancel").start();
    filled(&cluster, "shop", 1);
    let mut application = cluster.application("shop").start();
    let op = cluster.start_move("shop");
    op.until_ready();
    cluster
        .postgres("west")
        .try_sql("app", "shop", "ALTER TABLE filler ADD COLUMN luck double precision DEFAULT random()")
        .expect("it passes");
    let ended = op.until_ended();
    println!("{:?}", ended.reason);
    assert!(matches!(ended.state(), State::Failed | State::Cancelled), "{ended:?}");
    assert!(!reason(&ended).is_empty());
    cluster.postgres("west").until_clean();
    cluster.postgres("east").until_clean();
    assert_eq!(cluster.postgres("east").databases(), Vec::<String>::new());
    application.until_more_commits(50);
    let summary = application.finish();
    assert_eq!((summary.errors, summary.fenced), (0, 0), "{summary:?}");
}
