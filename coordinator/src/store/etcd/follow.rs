//! Follows etcd's changes, from one revision to the next, over lost connections; commits come out whole and in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::etcd::{
    etcdserverpb::WatchResponse,
    mvccpb::{Event, event::EventType},
};
use service::Backoff;
use tokio::task::AbortHandle;

use super::{Change, Error, Shared, base_of};

/// Commits a watcher may be behind, as with the embedded store.
pub(super) const CHANGES_MAX: usize = 8192;

/// What happened.
#[derive(Clone)]
pub(super) enum Followed {
    /// All that changed at one of etcd's revisions.
    Commit(i64, Arc<[Change]>),
    /// Some changes are missing: etcd has compacted them away.
    Lost,
}

/// The task that follows; it ends when this is dropped.
pub(super) struct Follower {
    task: AbortHandle,
}

impl Follower {
    /// Follows what comes after one of etcd's revisions.
    pub(super) fn start(shared: &Arc<Shared>, after: i64) -> Self {
        let followed = shared.clone();
        let task = shared.client.env().spawn("follow etcd", async move { follow(&followed, after).await });
        Self { task: task.abort_handle() }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(shared: &Shared, after: i64) {
    let mut next = after.saturating_add(1);
    let mut backoff = Backoff::default();
    loop {
        let (key, end) = shared.keys.all();
        let error = match shared.client.watch(key, end, next).await {
            Err(error) => error,
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(answer) => {
                        backoff.reset();
                        if answer.compact_revision > 0 {
                            next = next.max(answer.compact_revision);
                            // Nobody may be watching.
                            let _ = shared.changes.send(Followed::Lost);
                        } else if let Some(last) = take(shared, &answer) {
                            next = last.saturating_add(1);
                        }
                        if answer.canceled {
                            let reason = answer.cancel_reason;
                            break Error::Etcd { action: "watch", endpoint: "a member".to_owned(), reason };
                        }
                    }
                    Err(error) => break error,
                }
            },
        };
        tracing::debug!(%error, revision = next, "follow etcd's changes again");
        backoff.wait(shared.client.env()).await;
    }
}

/// Tells the commits of an answer, and gives the revision of the last.
fn take(shared: &Shared, answer: &WatchResponse) -> Option<i64> {
    let mut commits: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
    for event in &answer.events {
        let at = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        commits.entry(at).or_default().push(event);
    }
    for (at, events) in &commits {
        // First the base: it holds for this commit already.
        for kv in events.iter().filter_map(|event| event.kv.as_ref()).filter(|kv| shared.keys.is_base(&kv.key)) {
            match base_of(kv) {
                Ok(base) => shared.versions().step(*at, base),
                Err(error) => tracing::error!(%error, "follow etcd's changes"),
            }
        }
        let revision = shared.versions().ours(*at);
        let changes: Vec<Change> = events
            .iter()
            .filter_map(|event| {
                let kv = event.kv.as_ref()?;
                let key = shared.keys.data_of(&kv.key)?;
                let value = (event.r#type() == EventType::Put).then(|| kv.value.clone());
                if value.is_none() {
                    shared.index.remove(&key);
                }
                Some(Change { key, revision, value })
            })
            .collect();
        shared.index.add(changes.iter().filter(|change| change.value.is_some()).map(|change| change.key.clone()));
        if !changes.is_empty() {
            let _ = shared.changes.send(Followed::Commit(*at, changes.into()));
        }
    }
    commits.keys().next_back().copied()
}
