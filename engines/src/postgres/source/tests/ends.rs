//! The end: a move drops, everything else leaves the source as it was.

use super::rig::{Rig, SHOP};
use crate::source::SourceEngine as _;
use handover::Kind;
use std::time::Duration;

const TABLES: &str = "CREATE TABLE t(id int PRIMARY KEY); CREATE TABLE keyless(a int)";

#[tokio::test]
async fn a_cleanup_at_any_stage_leaves_nothing() {
    let mut rig = Rig::new(TABLES).await;
    for stage in 0..4 {
        rig.begin(Kind::Move).await;
        let stream = if stage > 0 { Some(rig.open().await) } else { None };
        if let Some(stream) = &stream {
            let plan = stream.plan(&crate::source::Held::default()).await.expect("plan");
            stream.chunk(0, 0, 100, None).await.expect("read");
            if stage > 1 {
                stream.seed_done().await.expect("seeded");
                rig.cluster.run(SHOP, "INSERT INTO keyless VALUES (1)").await;
                stream.log(&plan.log_resume, 1 << 20, None).await.expect("read log");
            }
            if stage > 2 {
                rig.fence(1, Duration::ZERO).await.expect("fence");
            }
        }
        rig.cleanup().await;
        assert_eq!(rig.leftovers().await, Vec::<String>::new(), "stage {stage}");
        rig.cluster.run(SHOP, "CREATE TABLE again(a int); DROP TABLE again; UPDATE keyless SET a = 2").await;
        drop(stream);
    }
}

#[tokio::test]
async fn a_database_that_is_gone_is_cleaned_up_too() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let slot = rig.names().slot;
    rig.cluster.run("postgres", &format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    rig.cluster.run("postgres", "DROP DATABASE shop WITH (FORCE)").await;
    rig.cleanup().await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
    // One of that name that came since is another, and is neither touched nor released.
    rig.cluster.run("postgres", "CREATE DATABASE shop").await;
    rig.begin(Kind::Move).await;
    rig.cluster.run("postgres", &format!("SELECT pg_drop_replication_slot('{}')", rig.names().slot)).await;
    rig.cluster.run("postgres", "DROP DATABASE shop WITH (FORCE)").await;
    rig.cluster.run("postgres", "CREATE DATABASE shop").await;
    let role = rig.role();
    let stream = rig.open().await;
    let error = stream.plan(&crate::source::Held::default()).await.expect_err("it is another one");
    assert_eq!(error.code(), "SOURCE_CHANGED");
    rig.source.release(&role, "east").await.expect("there is nothing to release");
    rig.cluster.run(SHOP, "SELECT 1").await;
}

#[tokio::test]
async fn a_moved_database_is_known_to_be_elsewhere() {
    let mut rig = Rig::new(TABLES).await;
    rig.begin(Kind::Move).await;
    let (_stream, _) = rig.seeded().await;
    rig.fence(1, Duration::ZERO).await.expect("fence");
    rig.release(1).await.expect("release");
    let facts = rig.source.preflight(&rig.role().database, Kind::Move, None).await.expect("examine");
    let finding = facts.findings.iter().find(|finding| finding.code == "DATABASE_NOT_FOUND").expect("it is gone");
    assert!(finding.message.contains("east"), "{finding:?}");
}
