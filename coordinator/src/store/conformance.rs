//! What every store must do. A store's own tests run these on fresh stores.

use futures::{FutureExt as _, StreamExt as _};

use super::{Change, Error, Page, Revision, Store, Txn};

/// Every test, each on a store that `fresh` makes.
pub(super) async fn all<S: Store, F: Future<Output = S>>(fresh: impl Fn() -> F) {
    a_put_is_read_with_its_revision(&fresh().await).await;
    a_version_that_differs_changes_nothing(&fresh().await).await;
    a_commit_is_all_or_nothing(&fresh().await).await;
    revisions_grow_over_all_keys(&fresh().await).await;
    a_deleted_key_is_absent(&fresh().await).await;
    lists_are_ordered_and_keep_to_their_prefix(&fresh().await).await;
    pages_go_on_where_they_ended(&fresh().await).await;
    watchers_see_commits_in_order(&fresh().await).await;
    one_of_many_rivals_wins(&fresh().await).await;
}

fn put(key: &str, value: &str) -> Txn {
    Txn::default().put(key, value.as_bytes().to_vec())
}

async fn value<S: Store>(store: &S, key: &str) -> Option<String> {
    let found = store.get(key).await.unwrap();
    found.map(|found| String::from_utf8(found.value).unwrap())
}

async fn keys<S: Store>(store: &S, prefix: &str, page: Page) -> Vec<String> {
    store.list(prefix, page).await.unwrap().into_iter().map(|entry| entry.key).collect()
}

async fn a_put_is_read_with_its_revision<S: Store>(store: &S) {
    assert_eq!(store.get("a").await.unwrap(), None);
    let first = store.commit(put("a", "1")).await.unwrap();
    let found = store.get("a").await.unwrap().unwrap();
    assert_eq!((found.version, found.value.as_slice()), (first, &b"1"[..]));
    let second = store.commit(put("a", "2")).await.unwrap();
    assert!(second > first);
    assert_eq!(store.get("a").await.unwrap().unwrap().version, second);
    store.commit(put("empty", "")).await.unwrap();
    assert_eq!(value(store, "empty").await.as_deref(), Some(""));
    let large = vec![7u8; 1 << 20];
    store.commit(Txn::default().put("large", large.clone())).await.unwrap();
    assert_eq!(store.get("large").await.unwrap().unwrap().value, large);
}

async fn a_version_that_differs_changes_nothing<S: Store>(store: &S) {
    let first = store.commit(put("a", "1").absent("a")).await.unwrap();
    let refused = |result: Result<Revision, Error>| match result {
        Err(Error::Conflict { key }) => assert_eq!(key, "a"),
        other => panic!("{other:?}"),
    };
    refused(store.commit(put("a", "2").absent("a")).await);
    refused(store.commit(put("a", "2").check("a", Revision(first.0 + 1))).await);
    assert_eq!(value(store, "a").await.as_deref(), Some("1"));
    let second = store.commit(put("a", "2").check("a", first)).await.unwrap();
    refused(store.commit(put("a", "3").check("a", first)).await);
    store.commit(Txn::default().delete("a").check("a", second)).await.unwrap();
    refused(store.commit(put("a", "4").check("a", second)).await);
}

async fn a_commit_is_all_or_nothing<S: Store>(store: &S) {
    store.commit(put("old", "1")).await.unwrap();
    let both = put("a", "1").put("b", b"1".to_vec()).delete("old");
    let refused = store.commit(both.clone().absent("old")).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    assert_eq!((value(store, "a").await, value(store, "b").await), (None, None));
    assert!(value(store, "old").await.is_some());
    let revision = store.commit(both.absent("a").absent("b")).await.unwrap();
    for key in ["a", "b"] {
        assert_eq!(store.get(key).await.unwrap().unwrap().version, revision);
    }
    assert_eq!(value(store, "old").await, None);
}

async fn revisions_grow_over_all_keys<S: Store>(store: &S) {
    let mut last = Revision(0);
    for key in ["a", "b", "a", "c"] {
        let revision = store.commit(put(key, "x")).await.unwrap();
        assert!(revision > last);
        last = revision;
    }
    let above = Revision(last.0 + 1000);
    let jumped = store.commit(Txn { above, ..put("a", "y") }).await.unwrap();
    assert!(jumped > above);
    assert!(store.commit(put("b", "y")).await.unwrap() > jumped);
    let past = store.commit(Txn { above: Revision(1), ..put("a", "z") }).await.unwrap();
    assert!(past > jumped);
}

async fn a_deleted_key_is_absent<S: Store>(store: &S) {
    store.commit(put("a", "1")).await.unwrap();
    store.commit(Txn::default().delete("a").delete("never")).await.unwrap();
    assert_eq!(value(store, "a").await, None);
    store.commit(put("a", "2").absent("a")).await.unwrap();
    assert_eq!(value(store, "a").await.as_deref(), Some("2"));
}

async fn lists_are_ordered_and_keep_to_their_prefix<S: Store>(store: &S) {
    for key in ["op/2", "op/10", "op/1", "opera", "o", "op/é", "op0", "p"] {
        store.commit(put(key, key)).await.unwrap();
    }
    let ordered = ["op/1", "op/10", "op/2", "op/é"];
    assert_eq!(keys(store, "op/", Page::first(100)).await, ordered);
    let down = Page { descending: true, ..Page::first(100) };
    let mut reversed = ordered;
    reversed.reverse();
    assert_eq!(keys(store, "op/", down).await, reversed);
    assert_eq!(keys(store, "", Page::first(100)).await.len(), 8);
    assert_eq!(keys(store, "none/", Page::first(100)).await.len(), 0);
    let entries = store.list("op/1", Page::first(1)).await.unwrap();
    assert_eq!(entries[0].versioned.value, b"op/1");
    assert_eq!(keys(store, "op/", Page::first(0)).await.len(), 0);
}

async fn pages_go_on_where_they_ended<S: Store>(store: &S) {
    for key in ["k/a", "k/b", "k/c", "k/d", "k/e", "j", "l"] {
        store.commit(put(key, "x")).await.unwrap();
    }
    let page = |after: &str, descending| Page { after: Some(after.to_owned()), limit: 2, descending };
    assert_eq!(keys(store, "k/", page("k/b", false)).await, ["k/c", "k/d"]);
    assert_eq!(keys(store, "k/", page("k/d", false)).await, ["k/e"]);
    assert!(keys(store, "k/", page("k/e", false)).await.is_empty());
    assert_eq!(keys(store, "k/", page("k/c", true)).await, ["k/b", "k/a"]);
    assert!(keys(store, "k/", page("k/a", true)).await.is_empty());
    // A key that is gone meanwhile, or outside of the prefix, is a place all the same.
    assert_eq!(keys(store, "k/", page("k/bb", false)).await, ["k/c", "k/d"]);
    assert_eq!(keys(store, "k/", page("a", false)).await, ["k/a", "k/b"]);
    assert_eq!(keys(store, "k/", page("z", true)).await, ["k/e", "k/d"]);
    assert!(keys(store, "k/", page("z", false)).await.is_empty());
    assert!(keys(store, "k/", page("a", true)).await.is_empty());
}

async fn watchers_see_commits_in_order<S: Store>(store: &S) {
    store.commit(put("op/before", "x")).await.unwrap();
    let mut changes = store.watch("op/");
    let one = store.commit(put("op/1", "a").put("other", b"x".to_vec())).await.unwrap();
    let two = store.commit(Txn::default().delete("op/1").delete("op/never")).await.unwrap();
    let refused = store.commit(put("op/2", "x").check("op/2", Revision(1))).await;
    assert!(refused.is_err());
    let three = store.commit(put("op/3", "c")).await.unwrap();
    let change = |key: &str, revision, value: Option<&[u8]>| Change {
        key: key.to_owned(),
        revision,
        value: value.map(<[u8]>::to_vec),
    };
    let four = store.commit(put("op/4", "d").put("other", b"y".to_vec()).put("op/5", b"e".to_vec())).await.unwrap();
    for expected in [
        vec![change("op/1", one, Some(b"a"))],
        vec![change("op/1", two, None)],
        vec![change("op/3", three, Some(b"c"))],
        vec![change("op/4", four, Some(b"d")), change("op/5", four, Some(b"e"))],
    ] {
        assert_eq!(changes.next().await.unwrap().unwrap(), expected);
    }
    assert!(changes.next().now_or_never().is_none());
}

async fn one_of_many_rivals_wins<S: Store>(store: &S) {
    let start = store.commit(put("a", "start")).await.unwrap();
    let rivals = (0..16).map(|n| store.commit(put("a", &n.to_string()).check("a", start)));
    let results = futures::future::join_all(rivals).await;
    let winners: Vec<usize> = (0..16).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(value(store, "a").await, Some(winners[0].to_string()));
}
