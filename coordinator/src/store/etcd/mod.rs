//! The store of several coordinators: an etcd. Only the one that leads writes, and every write of it is a transaction that is
//! refused once somebody else leads.
//!
//! Keys, all under the address's prefix: `data/...` are the store's, `leader` belongs to the one that leads and goes with its
//! lease, `base/...` are those of [`versions`].

mod address;
mod commit;
mod election;
mod follow;
mod index;
mod rpc;
mod versions;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt as _;
use proto::etcd::{
    etcdserverpb::{RangeRequest, TxnRequest},
    mvccpb::KeyValue,
};
use service::{Env, Tls, TlsFiles, dial::Dialer};
use tokio::sync::{RwLock, broadcast};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{Change, Changes, Entry, Error, Page, Revision, Store, Txn, Versioned};
use commit::{Fence, Plan, Refusal};
use follow::{Followed, Follower};
use index::Index;
use rpc::Client;
use versions::Versions;

pub use address::{EtcdAddress, EtcdTls};
pub use election::{Election, Lead, Seen, Until};

/// Keys that are looked for at once, of a large commit: as many operations as etcd takes in one transaction.
const LOOKS: usize = commit::OPS_MAX;
/// Further keys that a page read backwards may turn out to have.
const UNFORESEEN: usize = 256;

/// Where keys lie.
#[derive(Debug, Clone)]
struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    fn leader(&self) -> Vec<u8> {
        format!("{}leader", self.prefix).into_bytes()
    }

    fn base(&self, number: usize) -> Vec<u8> {
        // Their order is that of their numbers.
        format!("{}base/{number:08}", self.prefix).into_bytes()
    }

    fn data(&self, key: &str) -> Vec<u8> {
        format!("{}data/{key}", self.prefix).into_bytes()
    }

    /// The end of all data.
    fn data_end(&self) -> Vec<u8> {
        after(self.data(""))
    }

    /// Everything that is followed: data and bases.
    fn all(&self) -> (Vec<u8>, Vec<u8>) {
        (self.prefix.as_bytes().to_vec(), after(self.prefix.as_bytes().to_vec()))
    }

    fn data_of(&self, key: &[u8]) -> Option<String> {
        let key = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b"data/")?;
        String::from_utf8(key.to_vec()).ok()
    }

    fn is_base(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_bytes()).is_some_and(|key| key.starts_with(b"base/"))
    }
}

/// The end of the range of all keys that start with `prefix`, as etcd has it.
fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    // All keys.
    vec![0]
}

/// A store in an etcd, for the one that leads.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
    /// Follows etcd's changes as long as the store is used.
    _follower: Arc<Follower>,
}

struct Shared {
    client: Client,
    keys: Keys,
    fence: Fence,
    versions: Mutex<Versions>,
    /// The greatest of etcd's revisions that was heard of.
    last: AtomicI64,
    index: Index,
    /// Taken alone by a commit that looks first and writes then; shared by all others.
    turn: RwLock<()>,
    changes: broadcast::Sender<Followed>,
}

impl EtcdStore {
    /// The store under the lead whose key was made at the revision `fence`; nothing for a store that only this process uses.
    async fn open(client: Client, keys: Keys, fence: Fence) -> Result<Self, Error> {
        Self::open_behind(client, keys, fence, None).await
    }

    /// The same, following changes from one of etcd's revisions on instead of from now.
    async fn open_behind(client: Client, keys: Keys, fence: Fence, behind: Option<i64>) -> Result<Self, Error> {
        let changes = broadcast::channel(follow::CHANGES_MAX).0;
        let (versions, last, index, turn) = (Mutex::default(), AtomicI64::new(0), Index::default(), RwLock::new(()));
        let shared = Arc::new(Shared { client, keys, fence, versions, last, index, turn, changes });
        shared.read_versions().await?;
        let from = behind.unwrap_or_else(|| shared.last.load(Ordering::SeqCst));
        let follower = Arc::new(Follower::start(&shared, from));
        Ok(Self { shared, _follower: follower })
    }
}

/// A client for an address; `own` is the coordinator's certificate.
async fn client(env: &Env, address: &EtcdAddress, own: Option<&Tls>) -> Result<Client, Error> {
    let tls = match &address.tls {
        EtcdTls::Own => own.cloned(),
        EtcdTls::Off => None,
        EtcdTls::Files { ca, own } => {
            let loaded = match own {
                Some((cert, key)) => {
                    let files = TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone(), crl: None };
                    Tls::load(env, files).await
                }
                None => Tls::load_unproven(env, ca.clone(), None).await,
            };
            Some(loaded.map_err(|error| Error::EtcdDenied { reason: error.to_string() })?)
        }
    };
    Ok(Client::new(Dialer::new(env.clone(), tls), address.endpoints.clone(), address.limit))
}

impl Shared {
    async fn read_versions(&self) -> Result<(), Error> {
        let key = format!("{}base/", self.keys.prefix).into_bytes();
        let request = RangeRequest { range_end: after(key.clone()), key, ..RangeRequest::default() };
        let answer = self.client.range(request).await?;
        let mut steps = Vec::with_capacity(answer.kvs.len());
        for kv in &answer.kvs {
            steps.push((kv.create_revision, base_of(kv)?));
        }
        *self.versions() = Versions::new(steps);
        self.heard(answer.header.map_or(0, |header| header.revision));
        Ok(())
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().expect("no holder of this lock panics")
    }

    fn heard(&self, revision: i64) {
        self.last.fetch_max(revision, Ordering::SeqCst);
    }

    async fn range(&self, request: RangeRequest) -> Result<(Vec<KeyValue>, bool, i64), Error> {
        let answer = self.client.range(request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        self.heard(revision);
        Ok((answer.kvs, answer.more, revision))
    }

    fn versioned(&self, kv: KeyValue) -> Versioned {
        Versioned { version: self.versions().ours(kv.mod_revision), value: kv.value }
    }

    fn entry(&self, kv: KeyValue) -> Option<Entry> {
        // Only we put keys here, and ours are text.
        let key = self.keys.data_of(&kv.key)?;
        Some(Entry { key, versioned: self.versioned(kv) })
    }

    /// The last `limit` entries between two keys, from the greatest down. etcd reads forwards only, so the place to begin is
    /// taken from the index; what is there is etcd's word.
    async fn backwards(&self, low: String, mut high: Vec<u8>, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut found: Vec<Entry> = Vec::new();
        let mut revision = 0;
        loop {
            let wanted = limit - found.len();
            let begin = self.index.begin(&self.keys, &low, &high, wanted);
            let (key, limit_keys) = (self.keys.data(begin.as_deref().unwrap_or(&low)), wanted + UNFORESEEN);
            let limit_keys = i64::try_from(limit_keys).unwrap_or(i64::MAX);
            let request = RangeRequest {
                key: key.clone(),
                range_end: high.clone(),
                limit: limit_keys,
                revision,
                ..RangeRequest::default()
            };
            let (kvs, more, at) = self.range(request).await?;
            if more {
                // There are more than the index knows of.
                self.read_index().await?;
                continue;
            }
            // What follows is read as of the same moment.
            revision = if revision == 0 { at } else { revision };
            found.extend(kvs.into_iter().rev().take(wanted).filter_map(|kv| self.entry(kv)));
            if begin.is_none() || found.len() >= limit {
                return Ok(found);
            }
            high = key;
        }
    }

    async fn read_index(&self) -> Result<(), Error> {
        let (mut key, end) = (self.keys.data(""), self.keys.data_end());
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: end.clone(),
                limit: index::PAGE,
                keys_only: true,
                ..RangeRequest::default()
            };
            let (kvs, more, _) = self.range(request).await?;
            if let Some(last) = kvs.last() {
                key = last.key.clone();
                key.push(0);
            }
            self.index.add(kvs.iter().filter_map(|kv| self.keys.data_of(&kv.key)));
            if !more {
                return Ok(());
            }
        }
    }

    async fn commit(&self, txn: &Txn) -> Result<Revision, Error> {
        if Plan::is_large(txn) {
            let _alone = self.turn.write().await;
            let seen = self.look(txn).await?;
            return self.write(txn, Some(seen)).await;
        }
        let _shared = self.turn.read().await;
        self.write(txn, None).await
    }

    /// Finds that the keys that must be absent are; answers as of which revision.
    async fn look(&self, txn: &Txn) -> Result<i64, Error> {
        let mut seen = None;
        let absent: Vec<&String> =
            txn.checks.iter().filter(|(_, wanted)| wanted.is_none()).map(|(key, _)| key).collect();
        for keys in absent.chunks(LOOKS) {
            let success = keys.iter().map(|key| commit::get(self.keys.data(key))).collect();
            let answer = self.client.look(TxnRequest { success, ..TxnRequest::default() }).await?;
            // The first look is the oldest: nothing may have been put since.
            seen = seen.or(answer.header.map(|header| header.revision));
            let taken = keys.iter().zip(&answer.responses).find(|(_, answer)| commit::revisions(answer).is_some());
            if let Some((key, _)) = taken {
                return Err(Error::Conflict { key: (*key).clone() });
            }
        }
        Ok(seen.unwrap_or_else(|| self.last.load(Ordering::SeqCst)))
    }

    async fn write(&self, txn: &Txn, seen: Option<i64>) -> Result<Revision, Error> {
        loop {
            let versions = self.versions().clone();
            let last = self.last.load(Ordering::SeqCst);
            let plan = Plan::new(&self.keys, self.fence, &versions, txn, last, seen)?;
            let answer = self.client.txn(plan.request.clone()).await?;
            let revision = answer.header.map_or(0, |header| header.revision);
            if answer.succeeded {
                if let Some(base) = versions.needed(last, txn.above) {
                    self.versions().step(revision, base);
                }
                self.heard(revision);
                self.index.add(txn.puts.iter().map(|(key, _)| key.clone()));
                return Ok(self.versions().ours(revision));
            }
            self.heard(revision);
            let wanted = |key: &str| {
                let check = txn.checks.iter().find(|(checked, _)| checked == key)?;
                check.1.and_then(|version| versions.theirs(version))
            };
            match plan.refusal(self.fence, &answer.responses, wanted) {
                Refusal::Deposed => return Err(Error::Deposed),
                Refusal::NewBase => self.read_versions().await?,
                Refusal::Conflict(key) => return Err(Error::Conflict { key }),
                // Whoever asks looks again.
                Refusal::Moved => return Err(Error::Conflict { key: String::new() }),
            }
        }
    }
}

fn base_of(kv: &KeyValue) -> Result<u64, Error> {
    let damaged = || {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        Error::Value { key, reason: "it is no number".to_owned() }
    };
    std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok()).ok_or_else(damaged)
}

#[async_trait::async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, Error> {
        let request = RangeRequest { key: self.shared.keys.data(key), ..RangeRequest::default() };
        let (kvs, ..) = self.shared.range(request).await?;
        Ok(kvs.into_iter().next().map(|kv| self.shared.versioned(kv)))
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Vec<Entry>, Error> {
        let shared = &self.shared;
        let (mut key, mut end) = (shared.keys.data(prefix), after(shared.keys.data(prefix)));
        if let Some(place) = page.after.as_deref().map(|place| shared.keys.data(place)) {
            if page.descending {
                end = end.min(place);
            } else if place >= key {
                // The next key after it.
                key = [place.as_slice(), &[0]].concat();
            }
        }
        // etcd takes a limit of 0 for none, and an empty range for a mistake.
        if page.limit == 0 || key >= end {
            return Ok(Vec::new());
        }
        if page.descending {
            return shared.backwards(prefix.to_owned(), end, page.limit).await;
        }
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let request = RangeRequest { key, range_end: end, limit, ..RangeRequest::default() };
        let (kvs, ..) = shared.range(request).await?;
        Ok(kvs.into_iter().filter_map(|kv| shared.entry(kv)).collect())
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        self.shared.commit(&txn).await
    }

    fn watch(&self, prefix: &str) -> Changes {
        let prefix = prefix.to_owned();
        // What was committed before is followed, too, only later.
        let from = self.shared.last.load(Ordering::SeqCst);
        BroadcastStream::new(self.shared.changes.subscribe())
            .filter_map(move |followed| {
                let commit = match followed {
                    Ok(Followed::Commit(at, changes)) => {
                        let ours =
                            changes.iter().filter(|change| at > from && change.key.starts_with(&prefix)).cloned();
                        Some(ours.collect::<Vec<Change>>()).filter(|ours| !ours.is_empty()).map(Ok)
                    }
                    Ok(Followed::Lost) | Err(BroadcastStreamRecvError::Lagged(_)) => Some(Err(Error::Lagged)),
                };
                std::future::ready(commit)
            })
            .boxed()
    }
}

#[cfg(test)]
mod tests;
