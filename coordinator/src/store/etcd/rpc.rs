//! Requests to etcd: one member at a time, each within its limit, the next member when one fails.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    lease_client::LeaseClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use service::dial::{DialOptions, Dialer};
use service::status;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataValue, transport::Channel};

use super::super::Error;

/// etcd takes pings of a client at most every five seconds (`--grpc-keepalive-min-time`), and ends connections that ask more.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Largest answer: pages are of hundreds of values, and values of kilobytes. It bounds memory, no more.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A client of an etcd. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    endpoints: Vec<String>,
    limit: Duration,
    current: Mutex<Current>,
    /// Which member is asked: counts up, for streams to move along.
    turns: watch::Sender<usize>,
}

#[derive(Default)]
struct Current {
    turn: usize,
    channel: Option<Channel>,
}

/// What is watched.
pub(super) struct Events {
    stream: Streaming<WatchResponse>,
    turns: watch::Receiver<usize>,
    turn: usize,
    client: Client,
    // A watch lasts as long as its requests do not end.
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

impl Client {
    pub(super) fn new(dialer: Dialer, endpoints: Vec<String>, limit: Duration) -> Self {
        let (current, turns) = (Mutex::default(), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { dialer, endpoints, limit, current, turns }) }
    }

    pub(super) fn env(&self) -> &service::Env {
        self.shared.dialer.env()
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.repeatedly("read", |channel| {
            let request = asked(request.clone());
            async move { KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).range(request).await }
        })
        .await
    }

    /// A transaction that may be made twice: one that only reads.
    pub(super) async fn look(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.repeatedly("read", |channel| {
            let request = asked(request.clone());
            async move { KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).txn(request).await }
        })
        .await
    }

    /// A transaction. An error leaves open whether it was made.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.once("write", self.shared.limit, |channel| async move { KvClient::new(channel).txn(asked(request)).await })
            .await
    }

    /// A lease for at least `ttl`.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseGrantResponse, Error> {
        let request = LeaseGrantRequest { ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX), id: 0 };
        self.repeatedly("write", |channel| async move { LeaseClient::new(channel).lease_grant(asked(request)).await })
            .await
    }

    /// Ends a lease.
    pub(super) async fn revoke(&self, id: i64) -> Result<(), Error> {
        let request = LeaseRevokeRequest { id };
        let revoke = |channel| async move { LeaseClient::new(channel).lease_revoke(asked(request)).await };
        self.once("write", self.shared.limit, revoke).await.map(drop)
    }

    /// Keeps a lease alive; gives for how long it then lasts, nothing if it is gone.
    pub(super) async fn keep_alive(&self, id: i64, limit: Duration) -> Result<Duration, Error> {
        let limit = limit.min(self.shared.limit);
        let answer = self
            .once("write", limit, |channel| async move {
                let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
                let mut answers = LeaseClient::new(channel).lease_keep_alive(asked(requests)).await?.into_inner();
                let answer = answers.next().await;
                answer
                    .unwrap_or_else(|| Err(Status::unavailable("the stream ended without an answer")))
                    .map(Response::new)
            })
            .await?;
        Ok(Duration::from_secs(u64::try_from(answer.ttl).unwrap_or(0)))
    }

    /// What happens to the keys from `revision` on.
    pub(super) async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, revision: i64) -> Result<Events, Error> {
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        let create = WatchCreateRequest { key, range_end, start_revision: revision };
        // There is room for one.
        let _ = requests.try_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let mut turns = self.shared.turns.subscribe();
        let turn = *turns.borrow_and_update();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let stream = self
            .once("watch", self.shared.limit, |channel| async move {
                WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).watch(asked(stream)).await
            })
            .await?;
        Ok(Events { stream, turns, turn, client: self.clone(), _requests: requests })
    }

    /// A call that does no harm if it is made twice: each member is asked, and the first once more.
    async fn repeatedly<T, F, Fut>(&self, action: &'static str, call: F) -> Result<T, Error>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut left = self.shared.endpoints.len();
        loop {
            match self.once(action, self.shared.limit, &call).await {
                Err(Error::Etcd { .. }) if left > 0 => left -= 1,
                answered => return answered,
            }
        }
    }

    async fn once<T, F, Fut>(&self, action: &'static str, limit: Duration, call: F) -> Result<T, Error>
    where
        F: FnOnce(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let (turn, channel) = self.channel(action)?;
        let status = match self.env().timeout(limit, call(channel)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded(format!("no answer within {} ms", limit.as_millis())),
        };
        Err(self.failed(action, turn, &status))
    }

    /// What a failure means, and the next member's turn if it was this one's.
    fn failed(&self, action: &'static str, turn: usize, status: &Status) -> Error {
        let endpoint = self.endpoint(turn);
        let error = explain(action, endpoint, status);
        if matches!(error, Error::Etcd { .. }) {
            let mut current = self.current();
            // Calls that fail together are one reason to move on.
            if current.turn == turn {
                tracing::debug!(endpoint, %error, "go on to the next member of etcd");
                *current = Current { turn: turn + 1, channel: None };
                drop(current);
                self.shared.turns.send_replace(turn + 1);
            }
        }
        error
    }

    fn channel(&self, action: &'static str) -> Result<(usize, Channel), Error> {
        let mut current = self.current();
        let turn = current.turn;
        if let Some(channel) = &current.channel {
            return Ok((turn, channel.clone()));
        }
        let endpoint = self.endpoint(turn);
        let options = DialOptions {
            keepalive_interval: PING_EVERY,
            connect_timeout: self.shared.limit,
            ..DialOptions::default()
        };
        let channel = self.shared.dialer.channel_with(endpoint, &options);
        let channel = channel.map_err(|error| {
            // The address itself is no good: nothing to be tried again, but other members may do.
            current.turn += 1;
            Error::Etcd { action, endpoint: endpoint.to_owned(), reason: error.to_string() }
        })?;
        current.channel = Some(channel.clone());
        Ok((turn, channel))
    }

    fn endpoint(&self, turn: usize) -> &str {
        &self.shared.endpoints[turn % self.shared.endpoints.len()]
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.shared.current.lock().expect("no holder of this lock panics")
    }
}

impl Events {
    /// The next answer; an error when this member cannot be watched any longer.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, Error> {
        let ended = tokio::select! {
            biased;
            answer = self.stream.message() => match answer {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => Status::unavailable("the watch ended"),
                Err(status) => status,
            },
            // Others found out first that this member does not answer.
            _ = self.turns.changed() => Status::unavailable("another member is asked now"),
        };
        Err(self.client.failed("watch", self.turn, &ended))
    }
}

/// A member without a leader shall say so at once rather than let us wait.
fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// Every error of etcd as one of ours.
fn explain(action: &'static str, endpoint: &str, status: &Status) -> Error {
    let (endpoint, reason) = (endpoint.to_owned(), status::describe(status));
    match status.code() {
        Code::ResourceExhausted if reason.contains("space exceeded") => Error::EtcdFull { reason },
        Code::InvalidArgument if reason.contains("too large") || reason.contains("too many operations") => {
            Error::TooLarge { reason }
        }
        Code::ResourceExhausted if reason.contains("larger than max") => Error::TooLarge { reason },
        Code::PermissionDenied | Code::Unauthenticated => Error::EtcdDenied { reason },
        Code::OutOfRange => Error::Lagged,
        // Leases that are gone already; whoever asks knows what to make of it.
        Code::NotFound => Error::Deposed,
        _ => Error::Etcd { action, endpoint, reason },
    }
}
