//! What opens a channel's connection: dial, handshake, check who answers, and remember why it failed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tonic::transport::Uri;

use super::{DialOptions, Error};
use crate::env::Env;
use crate::tls::{Identity, Tls};
use crate::wire::{Wire, buffered};

/// Opens connections to one address; the [`tower::Service`] tonic asks for them.
#[derive(Clone)]
pub(super) struct Connector {
    target: Arc<Target>,
    fault: Fault,
}

struct Target {
    env: Env,
    tls: Option<Tls>,
    address: String,
    name: ServerName<'static>,
    options: DialOptions,
}

/// Why the last connection failed. Errors lose their type on the way through HTTP/2, so they are kept here besides.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<Error>>>);

impl Fault {
    pub(super) fn take(&self) -> Option<Error> {
        self.0.lock().expect("no holder of this lock panics").take()
    }

    fn put(&self, error: &Error) {
        *self.0.lock().expect("no holder of this lock panics") = Some(error.clone());
    }
}

impl Connector {
    pub(super) fn new(
        env: Env,
        tls: Option<Tls>,
        address: &str,
        host: &str,
        options: &DialOptions,
    ) -> Result<Self, InvalidDnsNameError> {
        let name = ServerName::try_from(host.to_owned())?;
        let target = Target { env, tls, address: address.to_owned(), name, options: options.clone() };
        Ok(Self { target: Arc::new(target), fault: Fault::default() })
    }

    pub(super) fn fault(&self) -> Fault {
        self.fault.clone()
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<ClientIo>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { target, fault } = self.clone();
        Box::pin(async move {
            let limit = target.options.connect_timeout;
            let opened = match target.env.timeout(limit, target.open()).await {
                Ok(opened) => opened,
                Err(_) => Err(Error::Timeout { address: target.address.clone(), limit }),
            };
            match opened {
                Ok(wire) => {
                    let (address, refused) = (target.address.clone(), target.until_refused(&wire));
                    Ok(TokioIo::new(ClientIo { wire, address, fault, refused }))
                }
                Err(error) => {
                    tracing::debug!(address = target.address, %error, "cannot connect");
                    fault.put(&error);
                    Err(error)
                }
            }
        })
    }
}

impl Target {
    async fn open(&self) -> Result<Wire, Error> {
        let io = self.env.dial(&self.address).await.map_err(|error| Error::dial(&self.address, error))?;
        let Some(tls) = &self.tls else {
            return Ok(Wire::Plain(io));
        };
        let stream = TlsConnector::from(tls.client_config())
            .connect(self.name.clone(), buffered(io))
            .await
            .map_err(|error| Error::handshake(&self.address, error))?;
        let wire = Wire::Tls(Box::new(stream.into()));
        self.check_identity(&wire)?;
        Ok(wire)
    }

    /// Completes when the certificate of the server would not be taken any more.
    fn until_refused(&self, wire: &Wire) -> BoxFuture<'static, rustls::Error> {
        let (env, name, chain) = (self.env.clone(), self.name.clone(), wire.peer_chain().to_vec());
        match self.tls.clone() {
            Some(tls) => Box::pin(async move { tls.until_server_refused(&env, &chain, &name).await }),
            None => Box::pin(std::future::pending()),
        }
    }

    fn check_identity(&self, wire: &Wire) -> Result<(), Error> {
        let Some(expected) = &self.options.expect else {
            return Ok(());
        };
        let found = wire.peer_certificate().map(Identity::from_der).transpose().ok().flatten().unwrap_or_default();
        if found.matches(expected) {
            return Ok(());
        }
        Err(Error::WrongPeer { address: self.address.clone(), expected: expected.clone(), found: found.to_string() })
    }
}

/// A connection whose TLS errors read well: the server's verdict on our certificate comes only with the first read. It ends when
/// the server's certificate is revoked.
pub(super) struct ClientIo {
    wire: Wire,
    address: String,
    fault: Fault,
    refused: BoxFuture<'static, rustls::Error>,
}

impl ClientIo {
    fn explain<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(error)) = result else {
            return result;
        };
        if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            let kind = error.kind();
            let told = Error::handshake(&self.address, error);
            self.fault.put(&told);
            return Poll::Ready(Err(io::Error::new(kind, told)));
        }
        Poll::Ready(Err(error))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut result = Pin::new(&mut self.wire).poll_read(cx, buf);
        // Whoever reads waits for more most of the time.
        if result.is_pending()
            && let Poll::Ready(error) = self.refused.as_mut().poll(cx)
        {
            // It has completed, and must not be asked again.
            self.refused = Box::pin(std::future::pending());
            result = Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        self.explain(result)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.wire).poll_write(cx, buf);
        self.explain(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.wire).poll_write_vectored(cx, bufs);
        self.explain(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.wire).poll_flush(cx);
        self.explain(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
