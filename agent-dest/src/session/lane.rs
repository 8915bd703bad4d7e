//! One stream of a transfer: Hello, its answer, then the frames of its kind of lane one by one.

use super::{
    Registry, Session,
    error::{Error, Result},
    hello::{self, Caller},
    lanes::{CONTROL, Ticket},
    log::Control,
    replica::Replica,
    seed::Seed,
    sync::Synced,
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use proto::v1::{DestFrame, SourceFrame, dest_frame, source_frame};
use service::{Env, Shutdown};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, mpsc::error::TrySendError, watch};

/// What comes from the source.
pub(crate) type Inbound = BoxStream<'static, Result<SourceFrame>>;
/// What goes to the source; an error ends the stream.
pub(crate) type Outbound = mpsc::Sender<Result<DestFrame>>;

/// A stream that does not say what it is for holds a place and nothing else; who means it says so at once.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// Smaller payloads are unpacked where they are: the way to another thread would cost more.
const UNPACK_INLINE_MAX: u32 = 64 << 10;

/// Serves one stream to its end.
pub(crate) async fn run(registry: Registry, caller: Caller, inbound: Inbound, out: Outbound) {
    let outcome = serve(&registry, &caller, inbound, out.clone()).await;
    match outcome {
        Ok(()) | Err(Error::Broken) => {}
        Err(error) => {
            tracing::info!(%caller, %error, "end a lane");
            // Whoever listens no more does not miss it.
            let _ = out.send(Err(error)).await;
        }
    }
}

async fn serve(registry: &Registry, caller: &Caller, mut inbound: Inbound, out: Outbound) -> Result<()> {
    let env = registry.env();
    let shutdown = registry.shutdown();
    let first = tokio::select! {
        biased;
        () = shutdown.wait() => return Err(Error::Closing),
        first = env.timeout(HELLO_TIME_MAX, inbound.next()) => first,
    };
    let hello = match first {
        Err(_) => return Err(Error::frame(format!("no Hello came within {HELLO_TIME_MAX:?}"))),
        Ok(None) => return Err(Error::frame("the stream ended before its Hello")),
        Ok(Some(frame)) => match frame?.frame {
            Some(source_frame::Frame::Hello(hello)) => hello,
            other => return Err(Error::frame(format!("a lane begins with Hello, not with {}", name(other.as_ref())))),
        },
    };
    let admitted = hello::admit(registry, caller, hello).await?;
    let (welcome, goes_on) = match admitted.welcome().await {
        Ok(welcome) => welcome,
        Err(error) => {
            admitted.session.meter.failed(&error);
            return Err(error);
        }
    };
    tracing::info!(operation = %admitted.session.operation, lane = admitted.lane, %caller, phase = welcome.phase, "begin a lane");
    let hello::Admitted { session, ticket, lane, generation } = admitted;
    if !goes_on {
        // The ticket is held until the answer is on its way.
        let _ = out.send(Ok(DestFrame { frame: Some(dest_frame::Frame::Welcome(welcome)) })).await;
        drop(ticket);
        return Ok(());
    }
    let replica = session.replica().await?;
    let synced = replica.syncer.watch();
    let mut stream = Lane { env: env.clone(), session, replica, inbound, out, shutdown, synced, ticket };
    stream.send(dest_frame::Frame::Welcome(welcome)).await?;
    let ended = match lane {
        CONTROL => Control::new().run(&mut stream).await,
        _ => Seed::new(generation).run(&mut stream).await,
    };
    if let Err(error) = &ended {
        stream.session.meter.failed(error);
    }
    ended
}

/// What both kinds of lane have. The ticket is dropped last: nothing here touches the replica afterwards.
pub(super) struct Lane {
    pub(super) env: Env,
    pub(super) session: Arc<Session>,
    pub(super) replica: Replica,
    inbound: Inbound,
    out: Outbound,
    shutdown: Shutdown,
    pub(super) synced: watch::Receiver<Synced>,
    ticket: Ticket,
}

/// What a lane may have to do next.
pub(super) enum Next {
    Frame(source_frame::Frame),
    /// Something became durable, or failed to.
    Synced,
    /// The source has ended its side of the stream.
    End,
}

impl Lane {
    /// The next frame, if there is one without waiting.
    pub(super) fn ready(&mut self) -> Result<Option<Next>> {
        if self.ticket.is_stopped() || self.shutdown.is_set() {
            // Said by `next`, which finds it at once.
            return Ok(None);
        }
        self.inbound.next().now_or_never().map(taken).transpose()
    }

    /// Waits for whatever comes first. Loses nothing when it is dropped.
    pub(super) async fn next(&mut self) -> Result<Next> {
        tokio::select! {
            biased;
            stopped = self.ticket.stopped() => Err(stopped),
            () = self.shutdown.wait() => Err(Error::Closing),
            changed = self.synced.changed() => changed.map(|()| Next::Synced).map_err(|_| Error::Broken),
            frame = self.inbound.next() => taken(frame),
        }
    }

    /// Sends a frame, waiting for a source that does not read.
    pub(super) async fn send(&mut self, frame: dest_frame::Frame) -> Result<()> {
        // First without looking around: what is known should still be told to a lane that is being ended.
        let frame = match self.out.try_send(Ok(DestFrame { frame: Some(frame) })) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Error::Broken),
            Err(TrySendError::Full(frame)) => frame,
        };
        tokio::select! {
            biased;
            stopped = self.ticket.stopped() => Err(stopped),
            () = self.shutdown.wait() => Err(Error::Closing),
            sent = self.out.send(frame) => sent.map_err(|_| Error::Broken),
        }
    }

    /// Waits until the engine takes chunks of a part; no longer than the lane may last, for its end is waited for.
    pub(super) async fn until_takes(&mut self, part: u32) -> Result<()> {
        tokio::select! {
            biased;
            stopped = self.ticket.stopped() => Err(stopped),
            () = self.shutdown.wait() => Err(Error::Closing),
            takes = self.replica.engine.until_takes(part) => Ok(takes?),
        }
    }

    /// Checks a payload and unpacks it.
    pub(super) async fn unpack(
        &mut self,
        what: &'static str,
        payload: Bytes,
        crc: u32,
        uncompressed: u32,
    ) -> Result<Bytes> {
        let work = move || unpack(what, payload, crc, uncompressed);
        if uncompressed <= UNPACK_INLINE_MAX { work() } else { self.env.blocking(work).await }
    }
}

/// A payload, checked and unpacked.
fn unpack(what: &'static str, payload: Bytes, crc: u32, uncompressed: u32) -> Result<Bytes> {
    if crc32c::crc32c(&payload) != crc {
        return Err(Error::BadCrc(what));
    }
    if uncompressed == 0 {
        return Ok(payload);
    }
    let len = uncompressed as usize;
    if len > proto::FRAME_BYTES_MAX {
        return Err(Error::frame(format!(
            "{what} would have {len} bytes, at most {} are taken",
            proto::FRAME_BYTES_MAX
        )));
    }
    match zstd::bulk::decompress(&payload, len) {
        Ok(bytes) if bytes.len() == len => Ok(bytes.into()),
        Ok(bytes) => Err(Error::frame(format!("{what} has {} bytes unpacked, {len} were announced", bytes.len()))),
        Err(_) => Err(Error::frame(format!("{what} cannot be unpacked into the {len} bytes announced"))),
    }
}

fn taken(frame: Option<Result<SourceFrame>>) -> Result<Next> {
    match frame.transpose()? {
        None => Ok(Next::End),
        Some(SourceFrame { frame: Some(frame) }) => Ok(Next::Frame(frame)),
        Some(SourceFrame { frame: None }) => Err(Error::frame("a frame is empty or of a kind that is not known here")),
    }
}

/// A frame that has no place on this lane or at this moment.
pub(super) fn misplaced(frame: &source_frame::Frame, why: &str) -> Error {
    Error::frame(format!("{} has no place here: {why}", name(Some(frame))))
}

fn name(frame: Option<&source_frame::Frame>) -> &'static str {
    use source_frame::Frame::*;
    match frame {
        None => "an empty frame",
        Some(Hello(_)) => "Hello",
        Some(Plan(_)) => "Plan",
        Some(Chunk(_)) => "SeedChunk",
        Some(Digest(_)) => "DigestRequest",
        Some(SeedEnd(_)) => "SeedEnd",
        Some(Log(_)) => "LogRecord",
        Some(Marker(_)) => "Marker",
        Some(Settle(_)) => "Settle",
    }
}

#[cfg(test)]
mod fuzz;
