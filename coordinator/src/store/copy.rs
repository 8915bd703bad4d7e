//! Moving from one store to another, such as from a file to an etcd when one coordinator is no longer enough.

use super::{Error, Page, Revision, Store, Txn};

/// Stands in a store while it is being filled: a part of the operations is worse than none.
const INCOMPLETE: &str = "copy/incomplete";
/// Entries of one commit: below what etcd takes in a plain transaction.
const AT_ONCE: usize = 64;

/// Refuses a store that a copy into was not finished.
pub async fn check_whole(store: &dyn Store) -> Result<(), Error> {
    match store.get(INCOMPLETE).await? {
        Some(_) => Err(Error::Unfit(
            "a copy into this store was begun and not finished; copy again, or use the store that it was copied from"
                .to_owned(),
        )),
        None => Ok(()),
    }
}

/// Copies all entries, under revisions greater than they had, so that agents obey commands of the new store at once. Answers how
/// many there were. Nobody else may write either store meanwhile.
pub async fn copy(from: &dyn Store, to: &dyn Store) -> Result<usize, Error> {
    check_whole(from).await?;
    let begun = to.get(INCOMPLETE).await?.is_some();
    if !begun && !to.list("", Page::first(1)).await?.is_empty() {
        let reason =
            "the store to copy to is not empty: give one that is, such as another file or another prefix in etcd";
        return Err(Error::Unfit(reason.to_owned()));
    }
    to.commit(Txn::default().put(INCOMPLETE, Vec::new())).await?;
    if begun {
        clear(to).await?;
    }
    let (mut page, mut count) = (Page::first(AT_ONCE), 0);
    loop {
        let entries = from.list("", page.clone()).await?;
        let full = entries.len() == AT_ONCE;
        let above = entries.iter().map(|entry| entry.versioned.version).max().unwrap_or(Revision(0));
        page.after = entries.last().map(|entry| entry.key.clone());
        count += entries.len();
        let fill = |txn: Txn, entry: super::Entry| txn.put(entry.key, entry.versioned.value);
        let txn = entries.into_iter().fold(Txn { above, ..Txn::default() }, fill);
        if !txn.puts.is_empty() {
            to.commit(txn).await?;
        }
        if !full {
            break;
        }
    }
    to.commit(Txn::default().delete(INCOMPLETE)).await?;
    Ok(count)
}

/// Removes what a copy before this one left.
async fn clear(store: &dyn Store) -> Result<(), Error> {
    loop {
        let entries = store.list("", Page::first(AT_ONCE)).await?;
        let left: Vec<String> = entries.into_iter().map(|entry| entry.key).filter(|key| key != INCOMPLETE).collect();
        if left.is_empty() {
            return Ok(());
        }
        store.commit(Txn { deletes: left, ..Txn::default() }).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use service::Env;

    use super::*;
    use crate::store::RedbStore;

    async fn store(dir: &Path, name: &str) -> RedbStore {
        RedbStore::open(&Env::real(), &dir.join(name)).await.expect("open a store")
    }

    #[tokio::test]
    async fn all_goes_over_under_greater_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (store(dir.path(), "from").await, store(dir.path(), "to").await);
        from.commit(Txn { above: Revision(5000), ..Txn::default().put("op/000", b"x".to_vec()) })
            .await
            .expect("a commit");
        for n in 1..=150 {
            from.commit(Txn::default().put(format!("op/{n:03}"), vec![n])).await.expect("a commit");
        }
        assert_eq!(copy(&from, &to).await.expect("a copy"), 151);
        check_whole(&to).await.expect("it is whole");
        for n in 1..=150u8 {
            let key = format!("op/{n:03}");
            let (before, after) = (from.get(&key).await.expect("read"), to.get(&key).await.expect("read"));
            let (before, after) = (before.expect("there"), after.expect("copied"));
            assert!(before.value == after.value && after.version > before.version, "{before:?} {after:?}");
        }
        let again = copy(&from, &to).await.expect_err("it is not empty").to_string();
        assert!(again.contains("not empty"), "{again}");
    }

    #[tokio::test]
    async fn a_copy_that_was_not_finished_is_refused_and_done_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (store(dir.path(), "from").await, store(dir.path(), "to").await);
        from.commit(Txn::default().put("op/1", b"x".to_vec())).await.expect("a commit");
        to.commit(Txn::default().put(INCOMPLETE, Vec::new()).put("op/0", b"left".to_vec())).await.expect("a commit");
        let error = check_whole(&to).await.expect_err("half a copy").to_string();
        assert!(error.contains("copy again"), "{error}");
        assert!(copy(&to, &from).await.is_err(), "from half a copy");
        assert_eq!(copy(&from, &to).await.expect("a copy"), 1);
        check_whole(&to).await.expect("whole");
        assert_eq!(to.get("op/0").await.expect("read"), None);
    }
}
