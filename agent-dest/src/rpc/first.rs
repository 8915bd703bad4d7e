//! Bounds the first message of every call of the transfer service. Frames may be large, because rows are; but what comes
//! first is a Hello, and until it is accepted nobody knows who sends.

use http_body::Frame;
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
    server::NamedService,
};

/// Largest first message. A Hello has names and a token, a few hundred bytes each at the most.
pub(super) const FIRST_BYTES_MAX: u32 = 16 << 10;
/// What stands before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A service whose calls begin with a small message.
#[derive(Clone)]
pub(super) struct FirstSmall<S>(S);

impl<S> FirstSmall<S> {
    pub(super) fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S: NamedService> NamedService for FirstSmall<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for FirstSmall<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        self.0.call(request.map(|body| Body::new(Checked { body, prefix: Prefix::default() })))
    }
}

/// A body whose first message is looked at before it is collected.
struct Checked {
    body: Body,
    prefix: Prefix,
}

/// The first bytes, which may come one by one.
#[derive(Default)]
struct Prefix {
    bytes: [u8; PREFIX],
    have: usize,
}

impl Prefix {
    /// The length of the first message, once and as soon as it is known.
    fn length(&mut self, data: &[u8]) -> Option<u32> {
        if self.have == PREFIX {
            return None;
        }
        let more = data.len().min(PREFIX - self.have);
        self.bytes[self.have..self.have + more].copy_from_slice(&data[..more]);
        self.have += more;
        let [_, length @ ..] = self.bytes;
        (self.have == PREFIX).then_some(u32::from_be_bytes(length))
    }
}

impl http_body::Body for Checked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Some(length) = self.prefix.length(data)
            && length > FIRST_BYTES_MAX
        {
            return Poll::Ready(Some(Err(too_large(length))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// As tonic words a message that is too long; the lane makes a reason of it.
fn too_large(length: u32) -> Status {
    let text =
        format!("the first message has {length} bytes, at most {FIRST_BYTES_MAX} are taken before a Hello is accepted");
    Status::new(Code::OutOfRange, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_found_however_the_bytes_come() {
        let message = [0, 0, 1, 2, 3, 9, 9, 9];
        for cut in 1..message.len() {
            let mut prefix = Prefix::default();
            let found: Vec<u32> = message.chunks(cut).filter_map(|chunk| prefix.length(chunk)).collect();
            assert_eq!(found, [0x010203], "in pieces of {cut}");
        }
        assert_eq!(Prefix::default().length(&message[..4]), None);
    }
}
