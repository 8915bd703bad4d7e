//! What stands in front of the service: no request gets past it without a caller, and what came of it is written down.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body::Frame;
use service::serve::Peer;
use service::status::{problem, reason_of};
use tonic::{
    Code, Request, Status,
    body::Body,
    codegen::{Bytes, Service, http},
    server::NamedService,
};

use crate::auth::{Auth, Caller, Entry, Refusal, Shown};

/// Who sent a request, as the guard found out.
pub(super) fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_else(Caller::nobody)
}

/// A service behind the guard.
#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: S,
    auth: Arc<Auth>,
}

impl<S> Guard<S> {
    /// Put the guard in front of a service.
    pub(super) fn new(inner: S, auth: Arc<Auth>) -> Self {
        Self { inner, auth }
    }
}

impl<S: NamedService> NamedService for Guard<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The one that was polled ready is the one to call; the clone takes its place.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let auth = self.auth.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            let mut entry = Entry::new(&auth, method, &peer);
            match entry.admit(&peer, shown(request.headers())) {
                Ok(caller) => {
                    // What nobody further in has, nobody can log.
                    request.headers_mut().remove(http::header::AUTHORIZATION);
                    request.extensions_mut().insert(caller);
                }
                Err(refusal) => {
                    let refused = status(refusal);
                    end(&mut entry, &refused);
                    return Ok(refused.into_http());
                }
            }
            let response = inner.call(request).await?;
            let (head, body) = response.into_parts();
            // An error without a message has its status in the headers.
            if let Some(status) = Status::from_header_map(&head.headers) {
                end(&mut entry, &status);
                return Ok(http::Response::from_parts(head, body));
            }
            Ok(http::Response::from_parts(head, Body::new(Answer { body, entry })))
        })
    }
}

/// The token of a request, if it has one.
fn shown(headers: &http::HeaderMap) -> Shown<'_> {
    let mut given = headers.get_all(http::header::AUTHORIZATION).iter();
    let (Some(first), rest) = (given.next(), given.next()) else { return Shown::Nothing };
    match first.to_str().ok().filter(|_| rest.is_none()).and_then(|text| text.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Shown::Token(token.trim())
        }
        _ => Shown::Garbled,
    }
}

/// Every refusal at the door and its status.
fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Unknown { reason, why, remedy } => problem(Code::Unauthenticated, why).reason(reason).remedy(remedy),
        Refusal::Unwritten => problem(Code::Unavailable, "the audit log cannot be written, so nothing is done")
            .reason("AUDIT_STALLED")
            .remedy("see the coordinator's log: its disk may be full")
            .retry_after(Duration::from_secs(5)),
        Refusal::Rate(wait) => problem(Code::ResourceExhausted, "too many requests in too short a time")
            .reason("RATE_EXCEEDED")
            .remedy("ask less often; watch operations instead of asking for them again and again")
            .retry_after(wait),
        Refusal::AtOnce(most) => {
            problem(Code::ResourceExhausted, format!("{most} requests of yours are under way already"))
                .reason("TOO_MANY_AT_ONCE")
                .remedy("let some of them end; one watch can follow up to 100 operations")
                .retry_after(Duration::from_secs(1))
        }
    }
    .status()
}

fn end(entry: &mut Entry, status: &Status) {
    entry.end(&code(status.code()), &reason_of(status).unwrap_or_default());
}

/// The name of a code, as the gRPC specification writes it.
fn code(code: Code) -> String {
    let mut text = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

/// An answer whose end is written down.
struct Answer {
    body: Body,
    entry: Entry,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    end(&mut self.entry, &status);
                }
            }
            Poll::Ready(Some(Err(status))) => {
                let status = status.clone();
                end(&mut self.entry, &status);
            }
            // Without trailers: only a broken service ends so.
            Poll::Ready(None) => end(&mut self.entry, &Status::new(Code::Unknown, "")),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
