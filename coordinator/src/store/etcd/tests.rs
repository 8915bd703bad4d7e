//! Against a real etcd.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::StreamExt as _;
use service::{
    Env,
    certs::{Spec, issue_dev},
};

use super::*;
use crate::store::{conformance, copy};

#[path = "../../../../tests/src/etcd.rs"]
#[allow(dead_code, reason = "the end-to-end tests use more of it")]
mod server;

use server::Etcd;

/// A place of its own in an etcd for every store.
static PLACES: AtomicU32 = AtomicU32::new(0);

/// With a lease that outlasts a test which does not keep it.
fn address(etcd: &Etcd) -> EtcdAddress {
    address_with(etcd, 600)
}

fn address_with(etcd: &Etcd, lease_seconds: u32) -> EtcdAddress {
    let place = PLACES.fetch_add(1, Ordering::Relaxed);
    let text = format!("{}/test-{place}?tls=off&lease_seconds={lease_seconds}", etcd.endpoints());
    EtcdAddress::parse(&text).expect("an address")
}

async fn lead(address: &EtcdAddress) -> Lead {
    let election = Election::new(&Env::real(), address, None).await.expect("a client");
    election.lead_now("here:1").await.expect("etcd answers").unwrap_or_else(|leader| panic!("{leader} leads"))
}

fn put(key: &str) -> Txn {
    Txn::default().put(key, key.as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_store_does() {
    let etcd = Etcd::start(1);
    conformance::all(async || lead(&address(&etcd)).await.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leads_no_more_writes_nothing() {
    let etcd = Etcd::start(1);
    let address = address_with(&etcd, 2);
    let first = lead(&address).await;
    let stale = first.store.clone();
    stale.commit(put("a")).await.expect("the one that leads writes");
    let rival = Election::new(&Env::real(), &address, None).await.expect("a client");
    assert_eq!(rival.lead_now("there:2").await.expect("etcd answers").err().as_deref(), Some("here:1"));
    // Nobody keeps its lease, as when it is paused.
    let told = std::sync::Mutex::new(Vec::new());
    let second = rival.campaign("there:2", |seen| told.lock().expect("the lock").push(seen)).await;
    assert_eq!(told.lock().expect("the lock").first(), Some(&Seen::Leader("here:1".to_owned())));
    assert!(matches!(stale.commit(put("b")).await, Err(Error::Deposed)));
    assert!(matches!(stale.commit(put("a").check("a", Revision(1))).await, Err(Error::Deposed)));
    let large = (0..200).fold(Txn::default(), |txn, n| txn.absent(format!("k/{n}")).put(format!("k/{n}"), vec![1]));
    assert!(matches!(stale.commit(large).await, Err(Error::Deposed)));
    second.store.commit(put("b").absent("b")).await.expect("the one that leads now writes");
    // Its lease is gone, and it learns so.
    first.hold().await;
    second.resign().await;
    assert!(rival.lead_now("there:2").await.expect("etcd answers").is_ok(), "who resigns leaves at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_kept_lasts() {
    let etcd = Etcd::start(1);
    let address = address_with(&etcd, 2);
    let first = lead(&address).await;
    let kept = tokio::time::timeout(std::time::Duration::from_secs(5), first.hold()).await;
    assert!(kept.is_err(), "the lead was lost although it was kept");
    first.store.commit(put("a")).await.expect("it leads still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_a_hundred_databases_is_one_commit() {
    let etcd = Etcd::start(1);
    let lead = lead(&address(&etcd)).await;
    let mut changes = lead.store.watch("");
    let keys: Vec<String> = (0..302).map(|n| format!("busy/{n:03}")).collect();
    let all = || keys.iter().fold(Txn::default(), |txn, key| txn.absent(key).put(key, vec![1]));
    let revision = lead.store.commit(all()).await.expect("it is not too much");
    let commit = changes.next().await.expect("a change").expect("nothing is missing");
    assert_eq!(commit.len(), 302);
    assert!(commit.iter().all(|change| change.revision == revision));
    match lead.store.commit(all()).await {
        Err(Error::Conflict { key }) => assert!(keys.contains(&key), "{key}"),
        other => panic!("{other:?}"),
    }
    // A single one of them that is there refuses all.
    let deletes = keys.iter().skip(1).cloned().collect();
    lead.store.commit(Txn { deletes, ..Txn::default() }).await.expect("deletes");
    assert!(matches!(lead.store.commit(all()).await, Err(Error::Conflict { key }) if key == keys[0]));
    assert_eq!(lead.store.list("busy/", Page::first(1000)).await.expect("a list").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_are_read_without_reading_all() {
    let etcd = Etcd::start(1);
    let lead = lead(&address(&etcd)).await;
    for n in 0..700 {
        lead.store.commit(put(&format!("op/{n:04}"))).await.expect("a commit");
    }
    // Another process knows of nothing yet; and one that has written everything knows all.
    let fresh =
        EtcdStore::open(lead.store.shared.client.clone(), lead.store.shared.keys.clone(), None).await.expect("a store");
    for store in [&fresh, &lead.store] {
        let down = |after: Option<&str>, limit| Page { after: after.map(str::to_owned), limit, descending: true };
        let keys = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
        let newest = keys(store.list("op/", down(None, 3)).await.expect("a list"));
        assert_eq!(newest, ["op/0699", "op/0698", "op/0697"]);
        let next = keys(store.list("op/", down(Some("op/0697"), 2)).await.expect("a list"));
        assert_eq!(next, ["op/0696", "op/0695"]);
        assert_eq!(store.list("op/", down(None, 1000)).await.expect("a list").len(), 700);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_through_a_restart() {
    let mut etcd = Etcd::start(1);
    let lead = lead(&address(&etcd)).await;
    let mut changes = lead.store.watch("op/");
    let one = lead.store.commit(put("op/1")).await.expect("a commit");
    assert_eq!(changes.next().await.expect("a change").expect("whole")[0].revision, one);
    etcd.kill(0);
    let error = lead.store.commit(put("op/2")).await.expect_err("etcd is away");
    assert!(error.retryable() && error.to_string().contains("majority"), "{error}");
    etcd.restart(0);
    let two = loop {
        match lead.store.commit(put("op/2")).await {
            Ok(two) => break two,
            Err(error) => assert!(error.retryable(), "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(changes.next().await.expect("a change").expect("whole").last().expect("one").revision, two);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_copied_from_a_file() {
    let etcd = Etcd::start(1);
    let dir = tempfile::tempdir().expect("a directory");
    let file = crate::store::RedbStore::open(&Env::real(), &dir.path().join("store")).await.expect("a store");
    for n in 0..150 {
        file.commit(Txn { above: Revision(1 << 40), ..put(&format!("op/{n:03}")) }).await.expect("a commit");
    }
    let lead = lead(&address(&etcd)).await;
    assert_eq!(copy::copy(&file, &lead.store).await.expect("a copy"), 150);
    let (was, is) = (file.get("op/149").await.expect("read"), lead.store.get("op/149").await.expect("read"));
    let (was, is) = (was.expect("there"), is.expect("copied"));
    assert!(is.value == was.value && is.version > was.version, "{was:?} {is:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_copied_back_to_a_file() {
    let etcd = Etcd::start(1);
    let lead = lead(&address(&etcd)).await;
    for n in 0..150 {
        lead.store.commit(put(&format!("op/{n:03}"))).await.expect("a commit");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = crate::store::RedbStore::open(&Env::real(), &dir.path().join("store")).await.expect("a store");
    assert_eq!(copy::copy(&lead.store, &file).await.expect("a copy"), 150);
    for n in 0..150 {
        let key = format!("op/{n:03}");
        let (was, is) = (lead.store.get(&key).await.expect("read"), file.get(&key).await.expect("read"));
        let (was, is) = (was.expect("there"), is.expect("copied"));
        assert!(is.value == was.value && is.version > was.version, "{was:?} {is:?}");
    }
}

/// What a follower of changes missed may be compacted away by then: it is told so, lists again, and goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn who_missed_changes_that_are_gone_is_told() {
    let etcd = Etcd::start(1);
    let lead = lead(&address(&etcd)).await;
    for n in 0..20 {
        lead.store.commit(put(&format!("op/{n:02}"))).await.expect("a commit");
    }
    let theirs = lead.store.shared.last.load(Ordering::SeqCst);
    etcd.compact(theirs);
    // As if the connection had been lost before all of them.
    let (client, keys) = (lead.store.shared.client.clone(), lead.store.shared.keys.clone());
    let late = EtcdStore::open_behind(client, keys, None, Some(1)).await.expect("a store");
    let mut changes = late.watch("op/");
    let told = tokio::time::timeout(std::time::Duration::from_secs(30), changes.next()).await.expect("it is told");
    assert!(matches!(told, Some(Err(Error::Lagged))), "{told:?}");
    assert_eq!(late.list("op/", Page::first(100)).await.expect("a list").len(), 20);
    let new = lead.store.commit(put("op/20")).await.expect("a commit");
    // What is not gone may be told once more.
    while changes.next().await.expect("a change").expect("nothing is missing any more")[0].revision < new {}
}

/// Certificates in `dir` for a member of etcd, and for a coordinator.
fn certificates(dir: &std::path::Path) {
    let spec = |stem: &str, identity: &str| Spec::new(stem, identity, Env::real().now()).host("127.0.0.1");
    issue_dev(
        dir,
        &[spec("etcd", "spiffe://test/etcd"), spec("coordinator", "spiffe://test/coordinator")],
        Env::real().now(),
    )
    .expect("certificates");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_spoken_to_over_tls_and_refusals_are_told() {
    let (dir, stranger) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    certificates(dir.path());
    certificates(stranger.path());
    let file = |dir: &tempfile::TempDir, name: &str| dir.path().join(name).display().to_string();
    let etcd = Etcd::start_with(
        1,
        &[
            format!("--cert-file={}", file(&dir, "etcd.pem")),
            format!("--key-file={}", file(&dir, "etcd-key.pem")),
            format!("--trusted-ca-file={}", file(&dir, "ca.pem")),
            "--client-cert-auth".to_owned(),
        ],
    );
    let with = |options: String| {
        EtcdAddress::parse(&format!("{}/tls?lease_seconds=600&{options}", etcd.endpoints())).expect("an address")
    };
    let files = |ca: &tempfile::TempDir, own: &tempfile::TempDir| {
        let (cert, key) = (file(own, "coordinator.pem"), file(own, "coordinator-key.pem"));
        with(format!("ca={}&cert={cert}&key={key}", file(ca, "ca.pem")))
    };
    let lead = lead(&files(&dir, &dir)).await;
    lead.store.commit(put("a")).await.expect("a commit");
    let mut changes = lead.store.watch("");
    let b = lead.store.commit(put("b")).await.expect("a commit");
    assert_eq!(changes.next().await.expect("a change").expect("whole")[0].revision, b);
    lead.resign().await;

    let refusal = async |address: EtcdAddress| {
        let election = Election::new(&Env::real(), &address, None).await.expect("a client");
        election.lead_now("here:1").await.err().expect("it is refused").to_string()
    };
    for (address, part) in [
        (files(&stranger, &dir), "unknown CA"),
        (files(&dir, &stranger), "certificate"),
        (with(format!("ca={}", file(&dir, "ca.pem"))), "certificate"),
        (with("tls=off".to_owned()), "127.0.0.1"),
    ] {
        let told = refusal(address).await;
        assert!(told.contains(part), "{told:?} says {part:?}");
    }
}
