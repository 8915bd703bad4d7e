//! The byte stream under a gRPC connection, TLS or plain, so that both sides wrap one type.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_rustls::TlsStream;

use crate::env::Io;

/// Bytes read ahead of TLS. rustls reads 4 KiB at a time, which would be a system call each; with this it is one for four
/// records.
const READ_AHEAD: usize = 64 << 10;

pub(crate) enum Wire {
    Plain(Box<dyn Io>),
    Tls(Box<TlsStream<Buffered>>),
}

/// What TLS runs over.
pub(crate) type Buffered = BufReader<Box<dyn Io>>;

/// Prepares a connection for a TLS handshake.
pub(crate) fn buffered(io: Box<dyn Io>) -> Buffered {
    BufReader::with_capacity(READ_AHEAD, io)
}

impl Wire {
    /// The certificate the other side proved to hold.
    pub(crate) fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer_chain().first().map(AsRef::as_ref)
    }

    /// The same with its intermediates; empty if there is none.
    pub(crate) fn peer_chain(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Plain(_) => &[],
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().unwrap_or_default(),
        }
    }
}

macro_rules! forward {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Wire::Plain($stream) => $call,
            Wire::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
