//! Passing a request on to the coordinator that leads, as it came: callers may ask any of them, with any gRPC client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use service::dial::{DialOptions, Dialer};
use service::serve::Peer;
use service::status::problem;
use service::{Identity, Tls};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
    transport::Channel,
};

use crate::auth::{Caller, Passed};

/// Who a coordinator passes a request on for, as policies name them; believed of another coordinator only.
const ON_BEHALF_OF: &str = "causeway-on-behalf-of";
/// Where that caller called from.
const FROM: &str = "causeway-from";
/// Calls on one connection: the other side takes 256, and watches last long.
const CALLS_MAX: usize = 200;

/// Passes requests on.
pub(super) struct Forwarder {
    dialer: Dialer,
    /// Who a coordinator is; nothing in plain text.
    own: Option<Identity>,
    connections: Mutex<HashMap<String, Vec<Connection>>>,
}

struct Connection {
    channel: Channel,
    /// Each call under way holds one more.
    calls: Arc<()>,
}

/// Counts as a call under way until this is dropped.
pub(super) struct Passing {
    _call: Arc<()>,
}

impl Forwarder {
    pub(super) fn new(dialer: Dialer, tls: Option<&Tls>) -> Self {
        Self { dialer, own: tls.map(Tls::identity), connections: Mutex::default() }
    }

    /// For whom another coordinator passes this request on. The headers are taken off: nobody else's count.
    pub(super) fn passed(&self, peer: &Peer, headers: &mut http::HeaderMap) -> Option<Passed> {
        let (name, from) = (headers.remove(ON_BEHALF_OF), headers.remove(FROM));
        let text = |value: Option<http::HeaderValue>| String::from_utf8(value?.as_bytes().to_vec()).ok();
        if !self.is_coordinator(peer) {
            return None;
        }
        // Only who passes something on says where it is from.
        let from = text(from)?;
        // In plain text nobody has proven to be a coordinator: whom it names is found out as if they called themselves.
        Some(Passed { name: text(name).filter(|_| self.own.is_some()), from })
    }

    /// Whether a caller is a coordinator like this one; in plain text everybody on this machine is.
    fn is_coordinator(&self, peer: &Peer) -> bool {
        match (&self.own, &peer.identity) {
            (Some(own), Some(identity)) => own.uris.first().is_some_and(|uri| identity.uris.contains(uri)),
            (None, None) => !peer.unproven,
            _ => false,
        }
    }

    /// The answer of the coordinator at `address`.
    pub(super) async fn pass(
        &self,
        address: &str,
        caller: &Caller,
        peer: &Peer,
        token: Option<http::HeaderValue>,
        mut request: http::Request<Body>,
    ) -> Result<(http::Response<Body>, Passing), Status> {
        let headers = request.headers_mut();
        // Names may be in any script, which HTTP/2 carries as bytes.
        let value = |text: String| {
            let value = http::HeaderValue::from_bytes(text.as_bytes());
            value.map_err(|_| Status::internal("the caller's name fits no header"))
        };
        headers.insert(FROM, value(peer.addr.map_or_else(|| "-".to_owned(), |addr| addr.to_string()))?);
        match token {
            // It is judged again by who leads.
            Some(token) => {
                headers.insert(http::header::AUTHORIZATION, token);
            }
            None => {
                headers.insert(ON_BEHALF_OF, value(caller.name().to_string())?);
            }
        }
        let (mut channel, call) = self.connection(address).map_err(|error| unreachable(address, &error.to_string()))?;
        let ready = std::future::poll_fn(|cx| channel.poll_ready(cx)).await;
        ready.map_err(|error| unreachable(address, &service::status::chain(&error)))?;
        let answer = channel.call(request).await;
        let answer = answer.map_err(|error| unreachable(address, &service::status::chain(&error)))?;
        Ok((answer, Passing { _call: call }))
    }

    fn connection(&self, address: &str) -> Result<(Channel, Arc<()>), service::dial::Error> {
        let mut all = self.connections.lock().expect("no holder of this lock panics");
        // Leaders of former times are not needed.
        all.retain(|known, _| known == address);
        let open = all.entry(address.to_owned()).or_default();
        if let Some(free) = open.iter().find(|connection| Arc::strong_count(&connection.calls) <= CALLS_MAX) {
            return Ok((free.channel.clone(), free.calls.clone()));
        }
        let mut options = DialOptions::default();
        if let Some(uri) = self.own.as_ref().and_then(|own| own.uris.first()) {
            options = options.expecting(uri);
        }
        let connection = Connection { channel: self.dialer.channel_with(address, &options)?, calls: Arc::new(()) };
        let taken = (connection.channel.clone(), connection.calls.clone());
        open.push(connection);
        Ok(taken)
    }
}

/// The one that leads does not answer; if it is gone, another leads before long.
pub(super) fn unreachable(address: &str, why: &str) -> Status {
    problem(Code::Unavailable, format!("the coordinator that leads, at {address}, cannot be reached: {why}"))
        .reason("LEADER_UNREACHABLE")
        .remedy("ask again: if it is gone, another leads once its lease has run out")
        .retry_after(Duration::from_secs(1))
        .status()
}

/// Nobody leads.
pub(super) fn vacant(why: &str) -> Status {
    problem(Code::Unavailable, format!("no coordinator leads that could answer: {why}"))
        .reason("NO_LEADER")
        .remedy("ask again; if it stays so, look at etcd and at the coordinators' logs")
        .retry_after(Duration::from_secs(1))
        .status()
}

/// Passed on to one that does not lead either: whoever passed it on will find out who does.
pub(super) fn not_leading() -> Status {
    problem(Code::Unavailable, "this coordinator does not lead any more")
        .reason("NOT_LEADING")
        .remedy("ask again")
        .retry_after(Duration::from_millis(500))
        .status()
}
