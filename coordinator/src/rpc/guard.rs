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

use proto::v1::coordinator_server::CoordinatorServer;

use super::{
    Api,
    forward::{self, Forwarder, Passing},
    server,
};
use crate::auth::{Auth, Caller, Entry, Refusal, Shown};
use crate::office::{Office, Standing};

/// Who sent a request, as the guard found out.
pub(super) fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_else(Caller::nobody)
}

/// The Coordinator service behind the guard: answered here while this coordinator leads, else by whoever does.
#[derive(Clone)]
pub(super) struct Guard {
    office: Office,
    auth: Arc<Auth>,
    forwarder: Arc<Forwarder>,
}

impl Guard {
    /// Put the guard in front of who answers.
    pub(super) fn new(office: Office, auth: Arc<Auth>, forwarder: Forwarder) -> Self {
        Self { office, auth, forwarder: Arc::new(forwarder) }
    }

    async fn answer(self, mut request: http::Request<Body>) -> http::Response<Body> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let passed = self.forwarder.passed(&peer, request.headers_mut());
        let was_passed = passed.is_some();
        let mut entry = Entry::new(&self.auth, &method, &peer, passed);
        let caller = match entry.admit(&peer, shown(request.headers())) {
            Ok(caller) => caller,
            Err(refusal) => return refused(&mut entry, status(refusal)),
        };
        // What nobody further in has, nobody can log.
        let token = request.headers_mut().remove(http::header::AUTHORIZATION);
        let (response, passing) = match self.office.now() {
            Standing::Leading(core) => {
                request.extensions_mut().insert(caller);
                let Ok(response) = server(core).call(request).await;
                (response, None)
            }
            Standing::Following(_) if was_passed => return refused(&mut entry, forward::not_leading()),
            Standing::Following(address) => {
                entry.passed_on();
                let passed = tokio::select! {
                    biased;
                    passed = self.forwarder.pass(&address, &caller, &peer, token, request) => passed,
                    // It may be paused, and answer never.
                    () = self.office.until_left_by(&address) => {
                        Err(forward::unreachable(&address, "it has lost the lead and has not answered"))
                    }
                };
                match passed {
                    Ok((response, passing)) => (response, Some(passing)),
                    Err(status) => return refused(&mut entry, status),
                }
            }
            Standing::Vacant(why) => return refused(&mut entry, forward::vacant(&why)),
        };
        let (head, body) = response.into_parts();
        // An error without a message has its status in the headers.
        if let Some(status) = Status::from_header_map(&head.headers) {
            end(&mut entry, &status);
            return http::Response::from_parts(head, body);
        }
        http::Response::from_parts(head, Body::new(Answer { body, entry, _passing: passing }))
    }
}

fn refused(entry: &mut Entry, status: Status) -> http::Response<Body> {
    end(entry, &status);
    status.into_http()
}

impl NamedService for Guard {
    const NAME: &'static str = <CoordinatorServer<Api> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for Guard {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Whoever answers is ready at any time: the service itself bounds nothing.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move { Ok(guard.answer(request).await) })
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
    _passing: Option<Passing>,
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
