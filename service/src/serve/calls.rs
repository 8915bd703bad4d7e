//! Counts the calls of each connection, so that one on which nothing happens can be closed.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};

use super::Peer;
use crate::env::Env;

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Calls {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    under_way: usize,
    /// By the monotonic clock.
    last_ended: Duration,
}

impl Calls {
    pub(super) fn new(env: &Env) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { under_way: 0, last_ended: env.monotonic() }) })
    }

    /// Completes once there has been no call for so long.
    pub(super) async fn until_idle(&self, env: &Env, limit: Duration) {
        loop {
            let quiet = {
                let state = self.state.lock().expect("no holder of this lock panics");
                match state.under_way {
                    0 => env.monotonic().saturating_sub(state.last_ended),
                    _ => Duration::ZERO,
                }
            };
            if quiet >= limit {
                return;
            }
            // A call that ends meanwhile begins the time anew, which the next look finds.
            env.sleep(limit - quiet).await;
        }
    }
}

/// Puts the counting in front of all services.
#[derive(Clone)]
pub(super) struct Counting {
    env: Env,
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(super) struct Counted<S> {
    env: Env,
    inner: S,
}

impl Counting {
    pub(super) fn new(env: Env) -> Self {
        Self { env }
    }
}

impl<S> tower::Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { env: self.env.clone(), inner }
    }
}

impl<S> tower::Service<http::Request<Body>> for Counted<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = request.extensions().get::<Peer>().and_then(|peer| peer.calls.clone());
        let call = calls.map(|calls| Call::begin(self.env.clone(), calls));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // A unary error and the like: over already.
            if http_body::Body::is_end_stream(response.body()) {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(CountedBody { body, _call: call })))
        })
    }
}

/// Counts as under way until it is dropped.
struct Call {
    env: Env,
    calls: Arc<Calls>,
}

impl Call {
    fn begin(env: Env, calls: Arc<Calls>) -> Self {
        calls.state.lock().expect("no holder of this lock panics").under_way += 1;
        Self { env, calls }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.calls.state.lock().expect("no holder of this lock panics");
        state.under_way = state.under_way.saturating_sub(1);
        state.last_ended = self.env.monotonic();
    }
}

struct CountedBody {
    body: Body,
    _call: Option<Call>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
