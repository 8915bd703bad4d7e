//! Locks, epochs and records against a real server.

use super::{
    super::{config::Setup, testing::Cluster},
    *,
};
use serde::Deserialize;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Role(u32);

fn op(name: &str) -> OperationId {
    OperationId::parse(name).expect("an id")
}

fn store(cluster: &Cluster) -> Store {
    Store::new(cluster.config(), Half::Source)
}

fn superseded<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Superseded { .. }))
}

#[tokio::test]
async fn records_memos_and_the_watermark_last() {
    let cluster = Cluster::start("");
    let one = store(&cluster);
    assert!(matches!(one.put_role(&op("a"), &Role(1)).await, Err(Error::Misuse(_))), "the lock comes first");
    let (dest, epoch) = (Store::new(cluster.config(), Half::Dest), one.take_over().await.expect("take over"));
    assert_eq!(dest.take_over().await.expect("the halves are apart"), epoch);
    assert_eq!(one.take_over().await.expect("held already"), epoch);
    one.put_role(&op("a"), &Role(1)).await.expect("put");
    one.put_role(&op("a"), &Role(2)).await.expect("put again");
    one.put_role(&op("b"), &Role(3)).await.expect("put another");
    one.set_memo(&op("a"), &"noted").await.expect("note");
    assert_eq!(dest.roles::<Role>().await.expect("read"), []);
    drop(one);
    let two = store(&cluster);
    assert!(two.take_over().await.expect("a dead holder's lock is free at once") > epoch);
    assert_eq!(two.roles::<Role>().await.expect("read"), [Role(2), Role(3)]);
    assert_eq!(two.memo::<String>(&op("a")).await.expect("read").as_deref(), Some("noted"));
    two.remove_role(&op("a"), CommandVersion(7)).await.expect("remove");
    two.remove_role(&op("c"), CommandVersion(5)).await.expect("remove an unknown one");
    assert_eq!(two.watermark().await.expect("read"), CommandVersion(7));
    assert_eq!(two.memo::<String>(&op("a")).await.expect("read"), None);
    assert_eq!(two.roles::<Role>().await.expect("read"), [Role(3)]);
}

#[tokio::test]
async fn a_silent_holder_is_taken_over_and_a_lively_one_is_not() {
    let cluster = Cluster::start("");
    let one = store(&cluster);
    one.take_over().await.expect("take over");
    let open = one.transaction("stay in a transaction").await.expect("begin");
    let two = store(&cluster);
    let beating = async {
        for _ in 0..15 {
            one.heartbeat().await.expect("the lock is held");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        epoch = two.take_over() => panic!("{epoch:?} taken from a living holder"),
        () = beating => {}
    }
    let epoch = two.take_over().await.expect("take over from a silent one, open transaction or not");
    assert!(open.put_role(&op("a"), &Role(1)).await.is_err(), "its session was ended");
    assert!(superseded(one.heartbeat().await));
    assert!(superseded(one.put_role(&op("a"), &Role(1)).await));
    assert!(superseded(one.check().await));
    assert!(superseded(one.roles::<Role>().await));
    assert_eq!(two.check().await.expect("the lock is held"), epoch);
    two.put_role(&op("a"), &Role(1)).await.expect("put");
}

#[tokio::test]
async fn a_restart_of_the_server_is_survived() {
    let cluster = Cluster::start("");
    let one = store(&cluster);
    let epoch = one.take_over().await.expect("take over");
    one.put_role(&op("a"), &Role(1)).await.expect("put");
    cluster.crash();
    assert!(one.heartbeat().await.is_err_and(|error| error.retryable()));
    cluster.up();
    one.put_role(&op("a"), &Role(2)).await.expect("a write needs no heartbeat before");
    one.heartbeat().await.expect("the lock is taken again");
    assert_eq!(one.check().await.expect("ours"), epoch);
    assert_eq!(one.roles::<Role>().await.expect("read"), [Role(2)]);

    cluster.crash();
    cluster.up();
    let two = store(&cluster);
    two.take_over().await.expect("the lock is free after a restart");
    assert!(superseded(one.heartbeat().await), "who comes second finds out");
}

#[tokio::test]
async fn a_failed_or_dropped_transaction_changes_nothing() {
    let cluster = Cluster::start("");
    let one = store(&cluster);
    one.take_over().await.expect("take over");
    let tx = one.transaction("fail").await.expect("begin");
    tx.put_role(&op("a"), &Role(1)).await.expect("put");
    assert!(tx.run("divide", "SELECT 1 / 0").await.is_err());
    assert!(tx.commit().await.is_err(), "a commit that rolls back says so");
    let tx = one.transaction("be dropped").await.expect("begin");
    tx.put_role(&op("a"), &Role(1)).await.expect("put");
    drop(tx);
    assert_eq!(one.roles::<Role>().await.expect("read"), []);
}

#[tokio::test]
async fn a_newer_store_is_left_alone() {
    let cluster = Cluster::start("");
    store(&cluster).take_over().await.expect("take over");
    cluster.run("postgres", "UPDATE causeway.version SET version = 2").await;
    let refused = store(&cluster).take_over().await.expect_err("an unknown version");
    assert_eq!(refused.code(), "STORE_VERSION");
}

/// A supervisor has to be told at once what no waiting mends; everything else is waited for.
#[tokio::test]
async fn a_server_that_will_not_have_the_agent_is_told_by_code() {
    let cluster = Cluster::start("");
    let rules = "local all all trust\nhost all locked all scram-sha-256\nhost all all all trust\n";
    std::fs::write(cluster.dir().join("data/pg_hba.conf"), rules).expect("write the rules");
    cluster.run("postgres", "CREATE ROLE plain LOGIN; CREATE ROLE locked LOGIN; SELECT pg_reload_conf()").await;
    let told = async |more: &str| {
        let dsn = format!("host=127.0.0.1 port={} {more}", cluster.port());
        let config = PostgresConfig::new(Setup::new(dsn)).expect("it can be read");
        let taken = tokio::time::timeout(Duration::from_secs(20), Store::new(config, Half::Dest).take_over()).await;
        let error = taken.expect("it does not wait").expect_err(more);
        println!("{more}: {error}; {}", error.remedy());
        assert!(!error.remedy().contains("by themselves"), "{}", error.remedy());
        error.code()
    };
    assert_eq!(told("user=nobody").await, "POSTGRES_LOGIN");
    assert_eq!(told("user=locked").await, "POSTGRES_LOGIN");
    assert_eq!(told("user=locked password=wrong").await, "POSTGRES_LOGIN");
    assert_eq!(told("user=postgres dbname=absent").await, "POSTGRES_CONFIG");
    assert_eq!(told("user=postgres sslmode=require").await, "POSTGRES_TLS");
    assert_eq!(told("user=plain").await, "RIGHTS");
    assert_eq!(told("user=postgres options='-c default_transaction_read_only=on'").await, "STANDBY");
}
