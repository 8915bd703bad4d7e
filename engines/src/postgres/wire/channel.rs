//! Messages in and out, over buffers that are filled and emptied with large system calls.

use super::{broken, failure::ServerError, low_water, stream::Stream};
use crate::{Error, Result};
use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use std::{future::Future as _, io, pin::pin, task::Poll, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What a read asks the kernel for, at least, when nobody said how much will come.
const READ_BYTES: usize = 16 << 10;

/// The server's answers while we are still sending: more than this means that it does not stop talking.
const UNREAD_BYTES_MAX: usize = 64 << 20;

/// A message is its tag, its length and this much at most; the server's own limit is 1 GiB.
const FRAME_BYTES_MAX: usize = (1 << 30) + (1 << 16);

/// A message of the server.
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// Both directions of a connection.
pub(crate) struct Channel {
    stream: Stream,
    read: BytesMut,
    out: BytesMut,
}

impl Channel {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: BytesMut::new(), out: BytesMut::new() }
    }

    /// What SCRAM binds itself to, over TLS.
    pub(super) fn certificate_hash(&self) -> Option<Vec<u8>> {
        self.stream.certificate_hash()
    }

    /// Where messages to the server are put before [`Channel::send`].
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// What came and was not taken yet.
    pub(crate) fn unread(&mut self) -> &mut BytesMut {
        &mut self.read
    }

    /// Sends what was put out.
    pub(crate) async fn send(&mut self, what: &str) -> Result<()> {
        let mut out = std::mem::take(&mut self.out);
        let sent = self.write(what, &mut out).await;
        out.clear();
        self.out = out;
        sent
    }

    /// Sends what was put out, and then `more`, without copying it.
    pub(crate) async fn send_with(&mut self, what: &str, more: Bytes) -> Result<()> {
        let head = std::mem::take(&mut self.out);
        let mut all = head.chain(more);
        let sent = self.write(what, &mut all).await;
        let (mut head, _) = all.into_inner();
        head.clear();
        self.out = head;
        sent
    }

    /// Writes bytes. While the server does not take them its answers are read: it may be waiting for us to do so.
    pub(crate) async fn write(&mut self, what: &str, bytes: &mut impl Buf) -> Result<()> {
        let Self { stream, read, .. } = self;
        let written = std::future::poll_fn(|cx| {
            loop {
                if bytes.has_remaining() {
                    match pin!(stream.write_buf(bytes)).poll(cx) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Poll::Ready(Ok(_)) => continue,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {}
                    }
                } else if let Poll::Ready(flushed) = pin!(stream.flush()).poll(cx) {
                    return Poll::Ready(flushed);
                }
                if read.len() > UNREAD_BYTES_MAX {
                    return Poll::Ready(Err(io::Error::other("the server does not stop answering")));
                }
                read.reserve(READ_BYTES);
                match pin!(stream.read_buf(read)).poll(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        written.await.map_err(|error| self.lost(what, error))
    }

    /// Waits for bytes of the server; `room` is how many are expected. Dropping the future loses nothing.
    pub(crate) async fn fill(&mut self, what: &str, room: usize) -> Result<usize> {
        self.read.reserve(room.max(READ_BYTES));
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) => Err(self.lost(what, io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => Ok(n),
            Err(error) => Err(self.lost(what, error)),
        }
    }

    /// The next message; those that say nothing to a program (notices, settings) are skipped. Dropping the future loses
    /// nothing.
    pub(crate) async fn frame(&mut self, what: &str) -> Result<Frame> {
        loop {
            if let Some(frame) = self.next_frame(what)? {
                return Ok(frame);
            }
            let room = self.missing(what)?;
            self.fill(what, room).await?;
        }
    }

    /// The next message, whatever it says.
    pub(super) async fn any_frame(&mut self, what: &str) -> Result<Frame> {
        loop {
            if let Some(frame) = self.take_frame(what)? {
                return Ok(frame);
            }
            let room = self.missing(what)?;
            self.fill(what, room).await?;
        }
    }

    /// The next message, if it is there wholly.
    pub(crate) fn next_frame(&mut self, what: &str) -> Result<Option<Frame>> {
        while let Some(frame) = self.take_frame(what)? {
            if !matches!(frame.tag, b'N' | b'A' | b'S') {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn take_frame(&mut self, what: &str) -> Result<Option<Frame>> {
        let len = frame_len(what, &self.read)?.filter(|len| *len <= self.read.len());
        Ok(len.map(|len| {
            let mut frame = self.read.split_to(len);
            let tag = frame[0];
            frame.advance(5);
            Frame { tag, body: frame.freeze() }
        }))
    }

    /// Bytes that the message at the front still lacks; 0 if not even its length is known.
    fn missing(&self, what: &str) -> Result<usize> {
        Ok(frame_len(what, &self.read)?.map_or(0, |len| len.saturating_sub(self.read.len())))
    }

    /// Reads up to `len` bytes that come next into a buffer with room for them; answers how many.
    pub(crate) async fn read_into(&mut self, what: &str, buffer: &mut BytesMut, len: usize) -> Result<usize> {
        if !self.read.is_empty() {
            let n = len.min(self.read.len());
            buffer.extend_from_slice(&self.read[..n]);
            self.read.advance(n);
            return Ok(n);
        }
        match self.stream.read_buf(&mut buffer.limit(len)).await {
            Ok(0) => Err(self.lost(what, io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => Ok(n),
            Err(error) => Err(self.lost(what, error)),
        }
    }

    /// Whether the kernel can collect bytes before it wakes us: it does so for TCP only.
    pub(crate) fn collects(&self) -> bool {
        self.stream.tcp().is_some()
    }

    /// Waits as [`Channel::fill`] does, but lets the kernel collect `bytes` before it wakes us, for `time` at most: then it answers
    /// 0, and what has come is for the next call.
    pub(crate) async fn fill_much(&mut self, what: &str, room: usize, bytes: u32, time: Duration) -> Result<usize> {
        self.low_water(bytes);
        let filled = tokio::time::timeout(time, self.fill(what, room)).await;
        // The last that comes may be less.
        self.low_water(1);
        filled.unwrap_or(Ok(0))
    }

    /// Where it cannot be set every byte wakes us, which is slow and not wrong.
    fn low_water(&self, bytes: u32) {
        let _ = self.stream.tcp().map(|socket| low_water::set(socket, bytes));
    }

    /// The reason why the connection is lost: the server's last words, if there are any.
    fn lost(&mut self, what: &str, error: io::Error) -> Error {
        while let Ok(Some(frame)) = self.next_frame(what) {
            if frame.tag == b'E' {
                return ServerError::read(&frame.body).into_error(what);
            }
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Database {
                what: what.to_owned(),
                message: "the server closed the connection".to_owned(),
                transient: true,
            },
            _ => Error::io(what, error),
        }
    }
}

/// The whole length of the message that the bytes begin with, once it is known.
pub(crate) fn frame_len(what: &str, bytes: &[u8]) -> Result<Option<usize>> {
    let Some(header) = bytes.first_chunk::<5>() else { return Ok(None) };
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=FRAME_BYTES_MAX).contains(&len) {
        return Err(broken(what, "a message of an impossible length"));
    }
    Ok(Some(len + 1))
}
