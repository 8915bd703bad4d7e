//! Names, markers, the flip, and giving up.

use super::fixture::{Change, DATABASE, EVERYTHING, Rig, batch, change, extras, position, rig, seed};
use crate::{
    Error,
    dest::{DestEngine as _, DestReplica},
    postgres::dest::{database, memo::Memo},
};
use handover::{
    OperationId,
    dest_role::{DestRole, Phase},
};
use std::sync::Arc;

const SMALL: &str = "CREATE SCHEMA shop; CREATE UNLOGGED TABLE shop.cache (k text PRIMARY KEY, v jsonb);
    CREATE TABLE shop.items (id integer PRIMARY KEY, v text); INSERT INTO shop.items VALUES (1, 'a'), (2, 'b');
    CREATE TABLE shop.log (what text);
    CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO shop.log VALUES (TG_NAME); RETURN NULL; END';
    CREATE TRIGGER ordinary AFTER INSERT ON shop.items FOR EACH ROW EXECUTE FUNCTION shop.f();
    CREATE TRIGGER always AFTER INSERT ON shop.items FOR EACH ROW EXECUTE FUNCTION shop.f();
    ALTER TABLE shop.items ENABLE ALWAYS TRIGGER always;
    CREATE PUBLICATION p FOR ALL TABLES;
    CREATE FUNCTION shop.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no DDL''; END';
    CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION shop.e(); ALTER EVENT TRIGGER no_ddl ENABLE ALWAYS";

async fn replica(rig: &Rig) -> Arc<dyn DestReplica> {
    let seed = seed(&rig.source, 1).await;
    let replica = rig.open().await;
    rig.load(&*replica, &seed).await;
    replica.sync().await.expect("sync");
    replica.seed_done().await.expect("the seed is whole");
    replica
}

async fn marker(rig: &Rig, replica: &dyn DestReplica, at: &str) {
    for batch in extras(&rig.source, at).await {
        replica.log(batch.clone()).await.expect("take an extra");
        replica.log(batch).await.expect("take it again");
    }
    replica.prepare_marker(&position(&format!("{at}+end"))).await.expect("prepare");
}

async fn names(rig: &Rig) -> Vec<String> {
    rig.dest
        .column(
            "postgres",
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1",
        )
        .await
}

/// A name is reserved from the beginning, by the record and then by the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_belongs_to_one() {
    let rig = rig(SMALL).await;
    rig.engine.prepare(&rig.role).await.expect("again");
    let other = DestRole { operation: OperationId::parse("other").expect("an id"), ..rig.role.clone() };
    assert!(matches!(rig.engine.prepare(&other).await, Err(Error::NameTaken(_))));
    let findings = rig.engine.preflight(&rig.role.database, &bytes::Bytes::new(), None).await.expect("judge");
    assert!(findings.iter().any(|finding| finding.code == "OPERATION_EXISTS"), "{findings:?}");
    assert!(names(&rig).await.is_empty(), "the plan makes the database");
    // Somebody else is faster than the plan.
    rig.dest.run("postgres", "CREATE DATABASE shop").await;
    assert!(matches!(rig.engine.prepare(&rig.role).await, Err(Error::NameTaken(_))));
    let seed = seed(&rig.source, 1).await;
    let replica = rig.open().await;
    assert!(matches!(replica.plan(&seed.plan).await, Err(Error::NameTaken(_))));
    let discarding = DestRole { phase: Phase::Discarding, ..rig.role.clone() };
    rig.engine.discard(&discarding).await.expect("discard");
    assert_eq!(names(&rig).await, ["shop"], "what is not ours stays");
}

/// Whatever a crash left half made is found and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_half_made_or_half_removed_goes() {
    let mut rig = rig(SMALL).await;
    let incoming = database::incoming(&rig.role.operation);
    rig.dest.run("postgres", &format!("CREATE DATABASE \"{incoming}\"")).await;
    let replica = replica(&rig).await;
    assert_eq!(names(&rig).await, ["shop"], "the half-made one went, and another was made");
    let infos = rig.engine.databases().await.expect("list");
    assert_eq!((infos.len(), infos[0].state.as_str()), (1, "incoming"));
    // Killed between the renaming and the drop, and while the next one was being made.
    let oid = rig.dest.value("postgres", "SELECT oid FROM pg_database WHERE datname = 'shop'").await;
    drop(replica);
    rig.restart().await;
    let memo = Memo { generation: 2, ..Memo::default() };
    rig.engine.shared.store.set_memo(&rig.role.operation, &memo).await.expect("note");
    rig.dest.run("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'").await;
    rig.dest.run("postgres", &format!("ALTER DATABASE shop RENAME TO \"causeway dropped {oid}\"")).await;
    rig.dest.run("postgres", &format!("CREATE DATABASE \"{incoming}\"")).await;
    rig.dest.run("postgres", "CREATE DATABASE \"causeway dropped 1\"").await;
    let discarding = DestRole { phase: Phase::Discarding, ..rig.role.clone() };
    rig.engine.put_role(&discarding).await.expect("record");
    rig.engine.discard(&discarding).await.expect("discard");
    rig.engine.discard(&discarding).await.expect("discard again");
    assert_eq!(names(&rig).await, ["causeway dropped 1"], "whose name lies about its OID is not ours");
}

/// Discarded at any moment, nothing is left, although a superuser is inside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discard_leaves_nothing() {
    for stage in 0..3 {
        let rig = rig(SMALL).await;
        if stage > 0 {
            let replica = replica(&rig).await;
            if stage > 1 {
                marker(&rig, &*replica, "0/100").await;
            }
            let guest = rig.dest.client(DATABASE).await.expect("a superuser comes in");
            guest.batch_execute("BEGIN; SELECT 1").await.expect("and stays");
        }
        let discarding = DestRole { phase: Phase::Discarding, ..rig.role.clone() };
        rig.engine.put_role(&discarding).await.expect("record");
        rig.engine.discard(&discarding).await.expect("discard");
        rig.engine.discard(&discarding).await.expect("discard again");
        assert!(names(&rig).await.is_empty(), "stage {stage}");
        rig.engine.remove_role(&rig.role.operation, rig.role.version).await.expect("forget");
        let left = "SELECT count(*) FROM causeway.role, causeway.memo";
        assert_eq!(rig.dest.value("postgres", left).await, "0");
    }
}

/// The log goes on after a closed attempt: nothing of the user's fires for it, and all of it fires after the flip.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_attempt_has_the_same_end() {
    let mut rig = rig(SMALL).await;
    let held = replica(&rig).await;
    marker(&rig, &*held, "0/100").await;
    assert_eq!(held.durable().await.expect("held").log, Some(position("0/100+end")));
    drop(held);
    rig.restart().await;
    let replica = rig.open().await;
    let durable = replica.durable().await.expect("held");
    assert_eq!((durable.held.log, durable.log), (Some(position("0/100+end")), Some(position("0/100+end"))));
    replica.prepare_marker(&position("0/100+end")).await.expect("once more, by another agent");
    let statement = "INSERT INTO shop.items VALUES (3, 'c'); UPDATE shop.items SET v = 'z' WHERE id = 1";
    let Change { payload, to } = change(&rig, statement).await;
    let gap = replica.log(batch("0/150", &to, payload.clone())).await;
    assert!(matches!(gap, Err(Error::Gap { .. })), "{gap:?}");
    replica.log(batch("0/100+end", &to, payload.clone())).await.expect("the log goes on");
    replica.log(batch("0/100+end", &to, payload)).await.expect("once more");
    let early = replica.prepare_marker(&position("0/100+end")).await;
    assert!(matches!(early, Err(Error::Gap { .. })), "{early:?}");
    marker(&rig, &*replica, &to).await;
    rig.promote(&position(&format!("{to}+end"))).await;
    rig.engine.promote(&rig.role).await.expect("promote again");
    assert_eq!(rig.dest.value(DATABASE, "SELECT string_agg(v, '' ORDER BY id) FROM shop.items").await, "zbc");
    assert_eq!(
        rig.dest.value(DATABASE, "SELECT count(*) FROM shop.log").await,
        "2",
        "those of the source: nothing fired for the log"
    );
    rig.engine.finish(&rig.role).await.expect("finish");
    rig.engine.finish(&rig.role).await.expect("finish again");
    let client = rig.dest.client(DATABASE).await.expect("connect");
    client
        .batch_execute("SET default_transaction_read_only = off")
        .await
        .expect("the database's own setting came along");
    client.batch_execute("INSERT INTO shop.items VALUES (4, 'd')").await.expect("write");
    assert_eq!(rig.dest.value(DATABASE, "SELECT count(*) FROM shop.log").await, "4", "both fire for a client");
    assert!(client.batch_execute("CREATE TABLE x ()").await.is_err(), "so does the event trigger");
    let published = "SELECT pubinsert AND pubtruncate FROM pg_publication WHERE pubname = 'p'";
    assert_eq!(rig.dest.value(DATABASE, published).await, "t");
}

/// A superuser that came in is shown out before the database opens; what was set since is not undone by a repetition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flip_opens_the_database_once() {
    let mut rig = rig(EVERYTHING).await;
    let replica = replica(&rig).await;
    marker(&rig, &*replica, "0/100").await;
    let guest = rig.dest.client(DATABASE).await.expect("a superuser comes in");
    rig.promote(&position("0/100+end")).await;
    assert!(guest.batch_execute("SELECT 1").await.is_err(), "it was shown out");
    replica.close().await;
    let state = "SELECT datconnlimit || ' ' || datdba::regrole || ' ' || (datacl IS NOT NULL) FROM pg_database WHERE datname = 'shop'";
    assert_eq!(rig.dest.value("postgres", state).await, "33 app_owner true");
    rig.dest.run("postgres", "ALTER DATABASE shop CONNECTION LIMIT 7; ALTER DATABASE shop RENAME TO renamed").await;
    rig.engine.promote(&rig.role).await.expect("promote again");
    rig.engine.finish(&rig.role).await.expect("finish under another name");
    let limit = "SELECT datconnlimit FROM pg_database WHERE datname = 'renamed'";
    assert_eq!(rig.dest.value("postgres", limit).await, "7");
    assert!(rig.engine.discard(&rig.role).await.is_err(), "a primary is never discarded");
}

/// Objects that differ are named, and nothing is opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_never_came_stop_the_flip() {
    let rig = rig(SMALL).await;
    let replica = replica(&rig).await;
    rig.dest.run(DATABASE, "INSERT INTO causeway.emptied VALUES ('shop.items'::regclass)").await;
    for batch in extras(&rig.source, "0/100").await {
        replica.log(batch).await.expect("take an extra");
    }
    let end = position("0/100+end");
    let error = replica.prepare_marker(&end).await.expect_err("the log tells of no TRUNCATE");
    assert!(matches!(&error, Error::Corrupt(what) if what.contains("shop.items")), "{error}");
    rig.dest.run(DATABASE, "DELETE FROM causeway.emptied").await;
    replica.prepare_marker(&end).await.expect("all is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_stops_the_flip() {
    let rig = rig(SMALL).await;
    let replica = replica(&rig).await;
    rig.source
        .run(DATABASE, "ALTER EVENT TRIGGER no_ddl DISABLE; ALTER TABLE shop.items ADD COLUMN slipped_through integer")
        .await;
    for batch in extras(&rig.source, "0/100").await {
        replica.log(batch).await.expect("take an extra");
    }
    let error = replica.prepare_marker(&position("0/100+end")).await.expect_err("they differ");
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("slipped_through")), "{error}");
}

/// Helpers go although a client holds a lock on a table that has one, and nobody waits for long meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helpers_go_while_clients_work() {
    let mut rig = rig(SMALL).await;
    let replica = replica(&rig).await;
    marker(&rig, &*replica, "0/100").await;
    rig.promote(&position("0/100+end")).await;
    replica.close().await;
    let helper = "SELECT count(*) FROM pg_class WHERE relname LIKE 'causeway%' OR relnamespace IN
         (SELECT oid FROM pg_namespace WHERE nspname = 'causeway')";
    assert_ne!(rig.dest.value(DATABASE, helper).await, "0");
    let client = rig.dest.client(DATABASE).await.expect("connect");
    client.batch_execute("BEGIN; SET TRANSACTION READ WRITE; INSERT INTO shop.log VALUES ('x')").await.expect("write");
    let finishing = tokio::spawn({
        let (engine, role) = (rig.engine.clone(), rig.role.clone());
        async move { engine.finish(&role).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert!(!finishing.is_finished());
    client.batch_execute("COMMIT").await.expect("commit");
    finishing.await.expect("no panic").expect("finish");
    assert_eq!(rig.dest.value(DATABASE, helper).await, "0");
}
