//! Who leads: whoever has put the key `leader`, for as long as the lease under it lasts.
//!
//! The revision at which the key was made is the fencing token: every write of a leader compares it. Whoever wakes up after its
//! lease ran out, and somebody else has put the key anew, cannot write any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::etcd::etcdserverpb::{
    RangeRequest, RequestOp, TxnRequest,
    compare::{CompareTarget, TargetUnion},
    request_op,
};
use proto::etcd::mvccpb::event::EventType;
use service::{Backoff, Env, Tls};

use super::{EtcdAddress, EtcdStore, Keys, client, commit, rpc::Client};
use crate::store::Error;

/// Pause before another try to keep the lease, within what is left of it.
const AGAIN: Duration = Duration::from_millis(200);

/// Takes part in the election of who leads.
pub struct Election {
    env: Env,
    client: Client,
    keys: Keys,
    lease: Duration,
}

/// Who leads, as it is seen by one who does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The one at this address.
    Leader(String),
    /// Nobody can be found out.
    Nobody(String),
}

/// The lead, until its lease runs out.
pub struct Lead {
    /// The store as it may be written under this lead.
    pub store: EtcdStore,
    client: Client,
    env: Env,
    lease: i64,
    until: Until,
}

/// Until when the lead is ours for sure, by the monotonic clock.
#[derive(Debug, Clone)]
pub struct Until {
    micros: Arc<AtomicU64>,
}

impl Until {
    fn new(at: Duration) -> Self {
        let until = Self { micros: Arc::default() };
        until.set(at);
        until
    }

    fn set(&self, at: Duration) {
        self.micros.store(u64::try_from(at.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The moment.
    pub fn at(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::SeqCst))
    }
}

impl Election {
    /// At the etcd of an address; `own` is this process's certificate.
    pub async fn new(env: &Env, address: &EtcdAddress, own: Option<&Tls>) -> Result<Self, Error> {
        let client = client(env, address, own).await?;
        let keys = Keys { prefix: address.prefix.as_str().into() };
        Ok(Self { env: env.clone(), client, keys, lease: address.lease })
    }

    /// Waits until this one leads, at `address` for the others; tells meanwhile who does.
    pub async fn campaign(&self, address: &str, tell: impl Fn(Seen)) -> Lead {
        let mut backoff = Backoff::default();
        loop {
            match self.stand(address, &tell).await {
                Ok(Some(lead)) => return lead,
                Ok(None) => backoff.reset(),
                Err(error) => {
                    tracing::warn!(%error, "stand for the lead, trying again");
                    tell(Seen::Nobody(error.to_string()));
                    backoff.wait(&self.env).await;
                }
            }
        }
    }

    /// Leads if nobody does, without waiting for it.
    pub async fn lead_now(&self, address: &str) -> Result<Result<Lead, String>, Error> {
        match self.put(address).await? {
            Ok(lead) => Ok(Ok(lead)),
            Err((leader, _)) => Ok(Err(leader)),
        }
    }

    /// One try; if somebody leads, it takes until they do no more.
    async fn stand(&self, address: &str, tell: &impl Fn(Seen)) -> Result<Option<Lead>, Error> {
        let range = RangeRequest { key: self.keys.leader(), ..RangeRequest::default() };
        let found = self.client.range(range).await?;
        let revision = found.header.map_or(0, |header| header.revision);
        let (leader, revision) = match found.kvs.first() {
            Some(kv) => (String::from_utf8_lossy(&kv.value).into_owned(), revision),
            None => match self.put(address).await? {
                Ok(lead) => return Ok(Some(lead)),
                Err(other) => other,
            },
        };
        tell(match leader == address {
            // We were killed a moment ago and started again.
            true => Seen::Nobody("the lease of this coordinator's former life has not run out yet".to_owned()),
            false => Seen::Leader(leader),
        });
        let mut events = self.client.watch(self.keys.leader(), Vec::new(), revision.saturating_add(1)).await?;
        loop {
            let answer = events.next().await?;
            let gone = answer.events.iter().any(|event| event.r#type() == EventType::Delete);
            if gone || answer.canceled || answer.compact_revision > 0 {
                return Ok(None);
            }
        }
    }

    /// Puts the key under a lease, if there is none; else who has put it, and as of which revision.
    async fn put(&self, address: &str) -> Result<Result<Lead, (String, i64)>, Error> {
        let asked = self.env.monotonic();
        let granted = self.client.grant(self.lease).await?;
        let ttl = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(0));
        let absent = commit::equal(self.keys.leader(), CompareTarget::Create, TargetUnion::CreateRevision(0));
        let range = RangeRequest { key: self.keys.leader(), ..RangeRequest::default() };
        let look = RequestOp { request: Some(request_op::Request::RequestRange(range)) };
        let put = commit::put(self.keys.leader(), address.as_bytes().to_vec(), granted.id);
        let request = TxnRequest { compare: vec![absent], success: vec![put], failure: vec![look] };
        let answer = match self.client.txn(request).await {
            Ok(answer) => answer,
            Err(error) => {
                // If it was put after all, it shall go again.
                let _ = self.client.revoke(granted.id).await;
                return Err(error);
            }
        };
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.succeeded {
            let store = EtcdStore::open(self.client.clone(), self.keys.clone(), Some(revision)).await;
            return match store {
                Ok(store) => {
                    let (client, env, lease) = (self.client.clone(), self.env.clone(), granted.id);
                    Ok(Ok(Lead { store, client, env, lease, until: Until::new(asked + ttl) }))
                }
                Err(error) => {
                    let _ = self.client.revoke(granted.id).await;
                    Err(error)
                }
            };
        }
        let _ = self.client.revoke(granted.id).await;
        let leader = answer.responses.first().and_then(commit::range_of).and_then(|range| range.kvs.first());
        let leader = leader.map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        Ok(Err((leader.unwrap_or_default(), revision)))
    }
}

impl Lead {
    /// Until when it is ours for sure.
    pub fn until(&self) -> Until {
        self.until.clone()
    }

    /// Keeps the lease alive; completes when the lead is lost, or may be.
    pub async fn hold(&self) {
        loop {
            let left = self.until.at().saturating_sub(self.env.monotonic());
            if left.is_zero() {
                tracing::error!(
                    "the lease of the lead has run out without an answer from etcd; this coordinator does nothing until it leads again"
                );
                return;
            }
            self.env.sleep(left / 3).await;
            let asked = self.env.monotonic();
            let Some(left) = self.until.at().checked_sub(asked).filter(|left| !left.is_zero()) else { continue };
            match self.client.keep_alive(self.lease, left).await {
                Ok(ttl) if ttl.is_zero() => {
                    tracing::error!("the lease of the lead has run out at etcd; another coordinator may lead");
                    return;
                }
                Ok(ttl) => self.until.set(asked + ttl),
                Err(error) => {
                    tracing::warn!(%error, "keep the lease of the lead, trying again");
                    self.env.sleep(AGAIN.min(left)).await;
                }
            }
        }
    }

    /// Gives the lead up, so that another has it at once.
    pub async fn resign(self) {
        if let Err(error) = self.client.revoke(self.lease).await {
            tracing::debug!(%error, "give up the lead; it ends with its lease");
        }
    }
}
