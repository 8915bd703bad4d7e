//! Who holds the store, what a take-over carries over, and that a holder of old writes nothing.

use super::*;
use crate::host::RealHost;

fn store(dir: &Path, millis: u64) -> Arc<Store> {
    Arc::new(Store::new(dir, Half::Dest, Duration::from_millis(millis), Arc::new(RealHost)))
}

fn op(text: &str) -> OperationId {
    OperationId::parse(text).expect("an id")
}

#[tokio::test]
async fn a_dead_holder_is_followed_at_once_with_all_its_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(dir.path(), 60_000);
    assert!(matches!(first.check(), Err(Error::Misuse(_))));
    assert_eq!(first.take_over().await.expect("taken"), Epoch(1));
    assert_eq!(first.take_over().await.expect("held already"), Epoch(1));
    first.put(&op("a"), &"one").expect("put");
    first.put(&op("b"), &"two").expect("put");
    first.put(&op("b"), &"three").expect("put again");
    first.remove(&op("a"), CommandVersion(7)).expect("removed");
    first.remove(&op("a"), CommandVersion(6)).expect("removed again");
    drop(first);

    let second = store(dir.path(), 60_000);
    assert_eq!(second.take_over().await.expect("taken"), Epoch(2));
    assert_eq!(second.records::<String>().expect("read"), ["three"]);
    assert_eq!(second.record::<String>(&op("a")).expect("read"), None);
    assert_eq!(second.watermark().expect("read"), CommandVersion(7));
    assert!(!second.home().join("1").exists(), "the old directory stays");
}

#[tokio::test]
async fn a_stopped_holder_loses_the_lock_and_its_later_writes_count_for_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let zombie = store(dir.path(), 100);
    zombie.take_over().await.expect("taken");
    zombie.put(&op("a"), &"before").expect("put");

    let heir = store(dir.path(), 100);
    let started = std::time::Instant::now();
    assert_eq!(heir.take_over().await.expect("taken"), Epoch(2));
    assert!(started.elapsed() >= Duration::from_millis(100), "taken from one that might have been busy");
    assert!(heir.maybe_alive(Epoch(1)).expect("asked"));

    let superseded = |e: Error| assert!(matches!(e, Error::Superseded { ours: 1, newer: 2 }), "{e}");
    superseded(zombie.put(&op("a"), &"after").expect_err("a zombie wrote"));
    superseded(zombie.put(&op("b"), &"after").expect_err("a zombie wrote"));
    superseded(zombie.remove(&op("a"), CommandVersion(9)).expect_err("a zombie removed"));
    superseded(zombie.beat().expect_err("a zombie lives"));
    superseded(zombie.records::<String>().expect_err("a zombie reads"));
    superseded(zombie.take_over().await.expect_err("a zombie took over"));
    assert_eq!(heir.records::<String>().expect("read"), ["before"]);
    assert_eq!(heir.watermark().expect("read"), CommandVersion(0));

    heir.beat().expect("held");
    assert!(heir.maybe_alive(Epoch(1)).expect("asked"), "its lock is not taken away from one that lives");
    drop(zombie);
    assert!(!heir.maybe_alive(Epoch(1)).expect("asked"));
    heir.beat().expect("held");
    assert!(!heir.home().join("1").exists(), "the records of one that has ended stay");
    drop(heir);
    let third = store(dir.path(), 60_000);
    assert_eq!(third.take_over().await.expect("taken"), Epoch(3));
    assert_eq!(third.records::<String>().expect("read"), ["before"]);
}

#[tokio::test]
async fn a_living_holder_keeps_the_lock() {
    let dir = tempfile::tempdir().expect("a directory");
    let holder = store(dir.path(), 200);
    holder.take_over().await.expect("taken");
    let other = store(dir.path(), 200);
    let waiting = tokio::spawn(async move { other.take_over().await });
    for _ in 0..20 {
        holder.beat().expect("held");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(!waiting.is_finished(), "taken from a living holder");
    drop(holder);
    assert_eq!(waiting.await.expect("joined").expect("taken"), Epoch(2));
}

#[tokio::test]
async fn of_many_heirs_one_holds_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut heirs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let heir = store(dir.path(), 60_000);
        heirs.spawn(async move {
            let epoch = heir.take_over().await.expect("taken");
            heir.check().expect("held");
            heir.put(&op("a"), &epoch.0).expect("put");
            epoch.0
        });
    }
    let mut epochs = heirs.join_all().await;
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 8, "two held one epoch");
}

#[tokio::test]
async fn an_heir_that_died_half_way_does_not_lose_the_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(dir.path(), 60_000);
    first.take_over().await.expect("taken");
    first.put(&op("a"), &"one").expect("put");
    drop(first);
    // Published, but dead before it had copied everything.
    let half = dir.path().join(".causeway/dest/2");
    std::fs::create_dir(&half).expect("made");
    std::fs::write(half.join(LOCK), b"").expect("written");
    std::fs::create_dir(dir.path().join(".causeway/dest/claim-1-1")).expect("made");
    let third = store(dir.path(), 60_000);
    assert_eq!(third.take_over().await.expect("taken"), Epoch(3));
    assert_eq!(third.records::<String>().expect("read"), ["one"]);
    let left: Vec<_> = disk::list(third.home()).expect("listed");
    assert_eq!(left, [third.home().join("3")], "leftovers stay");
}

#[tokio::test]
async fn a_malformed_record_is_reported_without_its_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path(), 60_000);
    store.take_over().await.expect("taken");
    std::fs::write(store.home().join("1/role-x.json"), b"{\"format\":1,\"role\":\"secret\"}").expect("written");
    let error = store.records::<u64>().expect_err("a text is no number");
    assert!(matches!(error, Error::Corrupt(_)) && !error.to_string().contains("secret"), "{error}");
}
