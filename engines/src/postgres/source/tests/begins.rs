//! The beginning: its order, its traps, and that nothing of it stays.

use super::rig::{Rig, SHOP, has, read_log};
use crate::{Error, postgres::OnDdl, source::SourceEngine as _};
use handover::{Attempt, Kind};

const KEYLESS: &str = "CREATE TABLE keyed(id int PRIMARY KEY, v text); CREATE TABLE keyless(a int);
    CREATE TABLE deferred(a int PRIMARY KEY DEFERRABLE); CREATE TABLE nothing(a int PRIMARY KEY);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING; CREATE TABLE indexed(a int NOT NULL UNIQUE);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_a_key;
    CREATE TABLE computed(a int, b int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY);
    CREATE TABLE parent(a int, k int) PARTITION BY LIST (k); CREATE TABLE leaf PARTITION OF parent FOR VALUES IN (1);
    CREATE UNLOGGED TABLE unlogged(a int); INSERT INTO keyless VALUES (1); INSERT INTO leaf VALUES (1, 1);
    ALTER TABLE keyless OWNER TO app; ALTER TABLE keyed OWNER TO app; GRANT ALL ON SCHEMA public TO app";

const IDENTITIES: &str =
    "SELECT relname || relreplident::text FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384
    AND relnamespace = 'public'::regnamespace ORDER BY 1";

#[tokio::test]
async fn updates_never_fail_and_identities_come_back() {
    let mut rig = Rig::new(KEYLESS).await;
    let before = rig.cluster.column(SHOP, IDENTITIES).await;
    let client = rig.cluster.client(SHOP).await.expect("connect");
    let writer = async {
        loop {
            // Fails at once on a table that is published without an identity.
            client.batch_execute("UPDATE keyless SET a = a + 1; UPDATE leaf SET a = a + 1").await.expect("update");
        }
    };
    tokio::select! {
        () = writer => {}
        role = rig.begin(Kind::Move) => drop(role),
    }
    let during = rig.cluster.column(SHOP, IDENTITIES).await;
    let expected =
        ["computedf", "deferredf", "indexedi", "keyedd", "keylessf", "leaff", "nothingf", "parentd", "unloggedd"];
    assert_eq!(during, expected);
    let role = rig.role();
    rig.source.begin(&role).await.expect("begin again");
    rig.cleanup().await;
    assert_eq!(rig.cluster.column(SHOP, IDENTITIES).await, before);
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// An agent may die behind any of the steps; the next one finds the record, and is not told to begin again.
#[tokio::test]
async fn a_beginning_that_was_cut_off_is_completed() {
    let mut rig = Rig::new(KEYLESS).await;
    let role = rig.invent(Kind::Move).await;
    rig.source.put_role(&role).await.expect("record");
    rig.restart().await;
    let (stream, seed) = rig.seeded().await;
    let during = rig.cluster.column(SHOP, IDENTITIES).await;
    assert!(during.contains(&"keylessf".to_owned()), "{during:?}");
    assert!(rig.cluster.client(SHOP).await.expect("connect").batch_execute("CREATE TABLE t(a int)").await.is_err());
    rig.cluster.run(SHOP, "INSERT INTO keyed VALUES (7, 'in the log')").await;
    let end = rig.source.mark(&role, Attempt(1)).await.expect("mark");
    let batches = read_log(&*stream, seed.plan.log_resume.clone(), &end).await;
    assert!(batches.iter().any(|batch| has(&batch.payload, "in the log")));
    drop(stream);
    rig.cleanup().await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn ddl_is_refused_and_temporary_objects_are_not() {
    let mut rig = Rig::new(KEYLESS).await;
    rig.begin(Kind::Move).await;
    let app = {
        let config = format!("host=127.0.0.1 port={} user=app dbname=shop", rig.cluster.port());
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.expect("connect");
        tokio::spawn(connection);
        client
    };
    for refused in [
        "CREATE TABLE t(a int)",
        "CREATE TABLE t AS SELECT 1 AS a",
        "ALTER TABLE keyed ADD x float DEFAULT random()",
        "DROP TABLE keyless",
        "CREATE INDEX ON keyed(v)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COMMENT ON TABLE keyed IS 'x'",
        "GRANT SELECT ON keyed TO PUBLIC",
        "DO 'BEGIN CREATE TABLE t(a int); END'",
    ] {
        let error = app.batch_execute(refused).await.expect_err(refused);
        let error = error.as_db_error().expect("from the server");
        assert_eq!(error.code().code(), "55006", "{refused}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("op-")), "{error:?}");
    }
    app.batch_execute(
        "CREATE TEMP TABLE t(id serial PRIMARY KEY, a int); CREATE INDEX ON t(a); ALTER TABLE t ADD b int;
         CREATE TEMP VIEW v AS SELECT * FROM t; DROP VIEW v; DROP TABLE t; CREATE TEMP TABLE u AS SELECT 1 AS a;
         CREATE TABLE IF NOT EXISTS keyed(id int); DROP TABLE IF EXISTS nobody; ANALYZE keyed; TRUNCATE keyed",
    )
    .await
    .expect("temporary objects pass");
    rig.cleanup().await;
    app.batch_execute("CREATE TABLE t(a int)").await.expect("DDL passes afterwards");
}

#[tokio::test]
async fn with_the_other_policy_new_tables_get_an_identity() {
    let mut rig = Rig::new(KEYLESS).await;
    rig.setup.on_ddl = OnDdl::Cancel;
    rig.restart().await;
    rig.begin(Kind::Move).await;
    rig.cluster
        .run(SHOP, "CREATE TABLE made(a int); INSERT INTO made VALUES (1); UPDATE made SET a = 2; CREATE TABLE ok(a int PRIMARY KEY)")
        .await;
    let during = rig.cluster.column(SHOP, IDENTITIES).await;
    assert!(during.contains(&"madef".to_owned()) && during.contains(&"okd".to_owned()), "{during:?}");
}

#[tokio::test]
async fn a_writer_in_another_database_is_named() {
    let mut rig = Rig::new(KEYLESS).await;
    let writer = rig.cluster.client("postgres").await.expect("connect");
    writer.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("write");
    let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).await.expect("ask").get(0);
    let role = rig.invent(Kind::Move).await;
    let error = rig.source.begin(&role).await.expect_err("the slot has to wait");
    assert!(matches!(&error, Error::Busy(why) if why.contains(&pid.to_string())), "{error}");
    let left = rig.leftovers().await;
    assert!(!left.iter().any(|left| left.starts_with("slot")), "{left:?}");
    writer.batch_execute("COMMIT").await.expect("commit");
    rig.source.begin(&role).await.expect("begin again");
    rig.cleanup().await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_beginning_that_failed_goes_with_its_record() {
    let mut rig = Rig::new(KEYLESS).await;
    let writer = rig.cluster.client("postgres").await.expect("connect");
    writer.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("write");
    let role = rig.invent(Kind::Move).await;
    rig.source.begin(&role).await.expect_err("the slot has to wait");
    assert!(rig.leftovers().await.iter().any(|left| left.starts_with("trigger")));
    // The agent knows no session for it, so it only forgets.
    rig.source.remove_role(&role.operation, rig.role().version).await.expect("forget");
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// After a crash at any step the beginning is taken up again, or cleaned up.
#[tokio::test]
async fn a_crash_at_any_step_of_the_beginning_is_recovered_from() {
    let mut rig = Rig::new(KEYLESS).await;
    let mut ms = 0;
    loop {
        let role = rig.invent(Kind::Move).await;
        // Dropping the engine with its sessions is what a kill does to the server.
        let begun = tokio::time::timeout(std::time::Duration::from_millis(ms), rig.source.begin(&role)).await;
        let finished = begun.is_ok();
        rig.restart().await;
        if ms % 2 == 0 && rig.source.roles().await.expect("read").contains(&role) {
            rig.source.begin(&role).await.expect("take the beginning up again");
            let (_, seed) = rig.seeded().await;
            assert!(seed.plan.generation >= 1);
        }
        rig.cleanup().await;
        assert_eq!(rig.leftovers().await, Vec::<String>::new(), "after {ms} ms");
        if finished {
            return;
        }
        ms += 3 + ms / 8;
    }
}

#[tokio::test]
async fn slots_of_forgotten_operations_are_dropped() {
    let mut rig = Rig::new(KEYLESS).await;
    rig.begin(Kind::Move).await;
    rig.cluster.run(SHOP, "SELECT pg_create_logical_replication_slot('causeway_forgotten', 'pgoutput')").await;
    rig.cluster.run(SHOP, "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')").await;
    rig.restart().await;
    let slots = rig.cluster.column("postgres", "SELECT slot_name FROM pg_replication_slots ORDER BY 1").await;
    assert_eq!(slots, [rig.names().slot, "theirs".to_owned()]);
}
