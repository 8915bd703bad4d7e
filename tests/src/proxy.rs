//! A link that tests can hold up, cut, and lead elsewhere: a listener with a fixed address before a changing one.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
};

/// The link. It ends with the runtime it was made on, or when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct State {
    target: String,
    flow: Flow,
    /// How often it was cut: connections from before a cut end.
    cuts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Bytes pass.
    Open,
    /// Nothing passes, and nobody is told.
    Held,
    /// New connections are reset at once.
    Cut,
}

impl Proxy {
    /// A link on loopback whose other end is not known yet.
    pub fn start(runtime: &Handle) -> io::Result<Self> {
        let listener = StdListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let state = watch::Sender::new(State { target: String::new(), flow: Flow::Cut, cuts: 0 });
        let watching = state.subscribe();
        let accepting = runtime.spawn(accept(listener, watching));
        Ok(Self { address, state, accepting })
    }

    /// `host:port` of the near end.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The port of the near end.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Leads to this address from now on; connections to the one before are reset.
    pub fn lead_to(&self, target: impl Into<String>) {
        let target = target.into();
        self.state.send_modify(|state| {
            state.cuts += u64::from(state.target != target);
            (state.target, state.flow) = (target, Flow::Open);
        });
    }

    /// Resets every connection, and each new one.
    pub fn cut(&self) {
        self.state.send_modify(|state| (state.flow, state.cuts) = (Flow::Cut, state.cuts + 1));
    }

    /// Holds everything up: nothing is lost, and nothing arrives.
    pub fn hold(&self) {
        self.state.send_modify(|state| state.flow = Flow::Held);
    }

    /// All is well again; what was held up arrives.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.flow = Flow::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    loop {
        // A connection that was reset while it waited is no reason to end.
        let Ok((near, _)) = listener.accept().await else { continue };
        tokio::spawn(carry(near, state.clone()));
    }
}

async fn carry(near: TcpStream, mut state: watch::Receiver<State>) {
    let begun = state.borrow_and_update().clone();
    let connected = async {
        if begun.flow == Flow::Held {
            flowing(&mut state.clone()).await?;
        }
        if state.borrow().flow == Flow::Cut {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let target = state.borrow().target.clone();
        TcpStream::connect(target).await
    };
    let Ok(far) = connected.await else { return reset(near) };
    let cuts = begun.cuts;
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (mut near, mut far) = (near, far);
    {
        let (near_in, near_out) = near.split();
        let (far_in, far_out) = far.split();
        let cut = async {
            // The sender lives as long as the runtime, or it is dropped: cut, too.
            let _ = state.clone().wait_for(|state| state.cuts != cuts).await;
        };
        tokio::select! {
            _ = pump(near_in, far_out, state.clone()) => {}
            _ = pump(far_in, near_out, state.clone()) => {}
            () = cut => {}
        }
    }
    reset(near);
    reset(far);
}

/// Carries bytes one way as long as there are some.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        flowing(&mut state).await?;
        to.write_all(&buffer[..read]).await?;
    }
}

/// Waits while nothing passes.
async fn flowing(state: &mut watch::Receiver<State>) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionReset);
    state.wait_for(|state| state.flow != Flow::Held).await.map(drop).map_err(gone)
}

/// Ends a connection as a cut does: by a reset, where it has not ended in order.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}
