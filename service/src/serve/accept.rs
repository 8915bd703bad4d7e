//! The accept loop: handshakes run beside each other, bounded in time and number, so that no client holds up another.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;
use tracing::Instrument as _;

use super::calls::Calls;
use super::{Peer, ServeOptions};
use crate::env::{Env, Io, Listener};
use crate::shutdown::Shutdown;
use crate::tls::{Identity, Tls, explain};
use crate::wire::{Wire, buffered};

/// A handshake takes milliseconds, a few hundred across the world; who needs longer is not worth the memory.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Handshakes at once. When one more comes, the oldest is dropped: an honest one has long finished by then.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// Open connections; each holds a descriptor and up to a connection window of memory.
const CONNECTIONS_MAX: usize = 1024;
/// Connections ready but not yet taken up by the server, which takes them up at once.
const READY_MAX: usize = 16;
/// How long a refused client is listened to, so that our alert reaches it: closing at once would reset the connection
/// and destroy the alert on its way.
const LINGER: Duration = Duration::from_secs(1);

pub(super) fn start(
    env: Env,
    listener: Box<dyn Listener>,
    tls: Option<Tls>,
    options: &ServeOptions,
    shutdown: Shutdown,
    cut: Shutdown,
) -> mpsc::Receiver<io::Result<ServerIo>> {
    let (ready, incoming) = mpsc::channel(READY_MAX);
    let (options, places) = (options.clone(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let door = Door { env: env.clone(), tls, options, cut, ready, places, by_peer: Arc::default() };
    env.spawn("accept", run(door, listener, shutdown));
    incoming
}

#[derive(Clone)]
struct Door {
    env: Env,
    tls: Option<Tls>,
    options: ServeOptions,
    cut: Shutdown,
    ready: mpsc::Sender<io::Result<ServerIo>>,
    places: Arc<Semaphore>,
    /// How many connections each has.
    by_peer: Arc<Mutex<HashMap<String, usize>>>,
}

async fn run(door: Door, mut listener: Box<dyn Listener>, shutdown: Shutdown) {
    let mut handshakes = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.wait() => return,
            () = door.ready.closed() => return,
            Some(_) = handshakes.join_next() => {
                by_age.retain(|handshake| !handshake.is_finished());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (io, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client left already. Without a pause the former would spin.
                tracing::warn!(%error, "accept a connection");
                door.env.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if by_age.len() >= HANDSHAKES_MAX
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        let task = door.clone().admit(io, addr).instrument(tracing::debug_span!("handshake", %addr));
        by_age.push_back(handshakes.spawn(task));
    }
}

impl Door {
    async fn admit(self, io: Box<dyn Io>, addr: SocketAddr) {
        let wire = match &self.tls {
            None => Wire::Plain(io),
            Some(tls) => {
                match self.env.timeout(HANDSHAKE_TIME_MAX, handshake(&self.env, tls, self.options.open, io)).await {
                    Ok(Some(wire)) => wire,
                    Ok(None) => return,
                    Err(_) => {
                        tracing::info!("refuse a connection: no TLS handshake within {HANDSHAKE_TIME_MAX:?}");
                        return;
                    }
                }
            }
        };
        let unproven = self.tls.is_some() && wire.peer_certificate().is_none();
        if unproven && !self.options.open {
            // Cannot be: the handshake demands one. But nobody without identity may pass for a plain-text peer.
            tracing::error!("refuse a connection: a TLS client without certificate got through the handshake");
            return;
        }
        let identity = match wire.peer_certificate().map(Identity::from_der).transpose() {
            Ok(identity) => identity.map(Arc::new),
            Err(error) => {
                tracing::info!(%error, "refuse a connection");
                return;
            }
        };
        let whose = match (&identity, unproven) {
            (Some(identity), _) => Some(identity.to_string()),
            (None, true) => Some(addr.ip().to_string()),
            (None, false) => None,
        };
        let share = match whose.map(|whose| Share::take(&self.by_peer, whose, self.options.connections_per_peer)) {
            Some(Err(whose)) => {
                let most = self.options.connections_per_peer;
                tracing::warn!(whose, "refuse a connection: {most} of this caller are open");
                return;
            }
            Some(Ok(share)) => Some(share),
            None => None,
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!("refuse a connection: {CONNECTIONS_MAX} are open");
            return;
        };
        let calls = Calls::new(&self.env);
        let heard = Arc::new(AtomicBool::new(false));
        let io = ServerIo {
            cut: Some(
                [Box::pin(self.clone().until_cut(&wire, addr, calls.clone(), heard.clone())) as BoxFuture<'static, ()>]
                    .into_iter()
                    .collect(),
            ),
            wire,
            peer: Peer { addr: Some(addr), identity, unproven, calls: Some(calls) },
            heard,
            _place: (place, share),
        };
        // The server may be gone by now; then so is the connection.
        let _ = self.ready.send(Ok(io)).await;
    }

    /// Completes when the connection is to end: with the server, when nothing happens on it, or when its certificate would
    /// not be taken any more.
    fn until_cut(
        self,
        wire: &Wire,
        addr: SocketAddr,
        calls: Arc<Calls>,
        heard: Arc<AtomicBool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let chain = wire.peer_chain().to_vec();
        let Self { env, tls, options, cut, .. } = self;
        async move {
            let silent = async {
                env.sleep(options.first_words).await;
                if heard.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            };
            let refused = async {
                match &tls {
                    Some(tls) if !chain.is_empty() => tls.until_refused(&env, &chain).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cut.wait() => {}
                error = refused => {
                    let (reason, remedy) = explain(&error, "the client");
                    tracing::info!(%addr, reason, remedy, "end a connection");
                }
                () = silent => tracing::info!(%addr, "end a connection: nothing was said on it"),
                () = calls.until_idle(&env, options.idle) => {
                    tracing::debug!(%addr, "end a connection: there was no call on it for {:?}", options.idle);
                }
            }
        }
    }
}

/// One of the connections of a caller; given back when it is dropped.
struct Share {
    by_peer: Arc<Mutex<HashMap<String, usize>>>,
    whose: String,
}

impl Share {
    /// The caller's name comes back if it has its share already.
    fn take(by_peer: &Arc<Mutex<HashMap<String, usize>>>, whose: String, most: usize) -> Result<Self, String> {
        let mut open = by_peer.lock().expect("no holder of this lock panics");
        let count = open.entry(whose.clone()).or_default();
        if *count >= most {
            return Err(whose);
        }
        *count += 1;
        Ok(Self { by_peer: by_peer.clone(), whose })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.by_peer.lock().expect("no holder of this lock panics");
        if let Some(count) = open.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.whose);
            }
        }
    }
}

async fn handshake(env: &Env, tls: &Tls, open: bool, io: Box<dyn Io>) -> Option<Wire> {
    let Some(config) = tls.server_config(open) else {
        tracing::error!("refuse a connection: this process has no certificate to serve with");
        return None;
    };
    let (error, mut io) = match TlsAcceptor::from(config).accept(buffered(io)).into_fallible().await {
        Ok(stream) => return Some(Wire::Tls(Box::new(stream.into()))),
        Err(refused) => refused,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(cause) => {
            let (reason, remedy) = explain(cause, "the client");
            tracing::info!(reason, remedy, "refuse a connection");
        }
        // Load balancers and port scanners knock and leave all day.
        None => tracing::debug!(%error, "a client left during the TLS handshake"),
    }
    let _ = env
        .timeout(LINGER, async {
            io.shutdown().await?;
            tokio::io::copy(&mut io.take(64 << 10), &mut tokio::io::sink()).await
        })
        .await;
    None
}

/// An accepted connection. Ends with an error once `cut` is triggered, whatever its calls are doing.
pub(super) struct ServerIo {
    wire: Wire,
    peer: Peer,
    /// One future, in a set because that polls it only when it was woken: this is asked with every read.
    cut: Option<FuturesUnordered<BoxFuture<'static, ()>>>,
    /// Whether the client has said anything.
    heard: Arc<AtomicBool>,
    _place: (OwnedSemaphorePermit, Option<Share>),
}

impl ServerIo {
    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(cut) = &mut self.cut {
            if cut.poll_next_unpin(cx).is_pending() {
                return Ok(());
            }
            self.cut = None;
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "this process ends the connection"))
    }
}

impl Connected for ServerIo {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Reading suffices as the place to look: HTTP/2 reads all the time, also while it waits to write.
        self.check_cut(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.wire).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
