//! One lane to the destination agent: a connection of its own, opened with Hello.

use super::{Error, Session};
use bytes::Bytes;
use engines::source::{Held, HeldPart};
use handover::Position;
use proto::{
    FRAME_BYTES_MAX, PROTOCOL,
    v1::{self, dest_frame, source_frame, transfer_client::TransferClient},
};
use service::dial::DialOptions;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Frames that wait in this process for the connection; with 1 MiB chunks this and the HTTP/2 window bound the memory.
const FRAMES_WAITING: usize = 2;

/// A destination that takes longer to answer Hello is dialled again.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// zstd's fastest level: on a link that needs compression it keeps up with 1 Gbit/s on one core.
const ZSTD_LEVEL: i32 = 1;

/// What the destination sends over a lane.
pub type Frames = Streaming<v1::DestFrame>;

/// An open lane.
pub struct Lane {
    pub tx: mpsc::Sender<v1::SourceFrame>,
    pub rx: Frames,
    pub welcome: v1::Welcome,
}

impl Lane {
    /// Dials the destination agent and says Hello.
    pub async fn open(session: &Session, number: u32, generation: u64) -> Result<Lane, Error> {
        let role = session.role().await;
        let shared = &session.shared;
        let mut options = DialOptions::transfer();
        if !role.dest_identity.is_empty() {
            options = options.expecting(role.dest_identity.clone());
        }
        let channel = shared.dialer.connect_with(&role.dest_address, &options).await?;
        let mut client = TransferClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let (tx, frames) = mpsc::channel(FRAMES_WAITING);
        let hello = v1::Hello {
            operation: role.operation.to_string(),
            token: role.token.expose().to_owned(),
            lane: number,
            protocol: PROTOCOL,
            engine: shared.engine.name().to_owned(),
            database: role.database.to_string(),
            incarnation: role.incarnation.to_string(),
            epoch: shared.epoch.0,
            generation,
        };
        send(&tx, source_frame::Frame::Hello(hello)).await?;
        let answer = shared.env.timeout(WELCOME_WITHIN, async {
            let mut rx = client.replicate(ReceiverStream::new(frames)).await?.into_inner();
            match next(&mut rx).await? {
                dest_frame::Frame::Welcome(welcome) => Ok::<_, Error>((rx, welcome)),
                _ => Err(Error::Protocol("the first frame is not Welcome".to_owned())),
            }
        });
        let (rx, welcome) = answer.await.map_err(|_| Error::Closed)??;
        Ok(Lane { tx, rx, welcome })
    }
}

/// Sends a frame, waiting for room.
pub async fn send(tx: &mpsc::Sender<v1::SourceFrame>, frame: source_frame::Frame) -> Result<(), Error> {
    tx.send(v1::SourceFrame { frame: Some(frame) }).await.map_err(|_| Error::Closed)
}

/// The next frame of the destination.
pub async fn next(rx: &mut Frames) -> Result<dest_frame::Frame, Error> {
    match rx.message().await? {
        Some(v1::DestFrame { frame: Some(frame) }) => Ok(frame),
        Some(v1::DestFrame { frame: None }) => Err(Error::Protocol("a frame without content".to_owned())),
        None => Err(Error::Closed),
    }
}

/// What the destination says it holds, in the engine's terms.
pub fn held(welcome: &v1::Welcome) -> Result<Held, Error> {
    let parts = welcome.parts.iter().map(|p| HeldPart { part: p.part, durable: p.durable, done: p.done }).collect();
    let log = match welcome.log_position.as_str() {
        "" => None,
        text => Some(position(text)?),
    };
    Ok(Held { generation: welcome.generation, parts, seeded: welcome.seeded, log })
}

/// Reads a position of the destination.
pub fn position(text: &str) -> Result<Position, Error> {
    proto::convert::position("position", text).map_err(|bad| Error::Protocol(bad.to_string()))
}

/// A payload as it goes over the wire.
pub struct Packed {
    pub payload: Bytes,
    pub crc32c: u32,
    /// Length before compression; 0 if it is not compressed.
    pub uncompressed: u32,
}

/// Compresses a payload if that is wanted and pays, and sums it up.
pub async fn pack(session: &Session, payload: Bytes) -> Packed {
    let plain = |payload: Bytes| Packed { crc32c: crc32c::crc32c(&payload), payload, uncompressed: 0 };
    if !session.shared.settings.compress || payload.len() < 512 {
        return plain(payload);
    }
    let uncompressed = payload.len() as u32;
    let whole = payload.clone();
    let squeezed = session.shared.env.blocking(move || zstd::bulk::compress(&whole, ZSTD_LEVEL)).await;
    match squeezed {
        Ok(small) if small.len() < payload.len() => {
            Packed { crc32c: crc32c::crc32c(&small), payload: Bytes::from(small), uncompressed }
        }
        _ => plain(payload),
    }
}
