//! Sending the log: in order, bounded, up to the marker and not beyond.

use super::{
    Error, Halt, Sender, Session,
    lane::{self, send},
    window::Window,
};
use engines::source::SourceStream;
use handover::Position;
use proto::v1::{self, source_frame};
use std::{convert::Infallible, sync::Arc};
use tokio::sync::mpsc;

/// About how large a log record is: large enough that frames and acks cost nothing, small enough to be quick on its way.
const RECORD_BYTES: usize = 512 << 10;

impl Session {
    /// Sends the log after `at` until the connection ends.
    pub(super) async fn send_log(
        &self,
        stream: &Arc<dyn SourceStream>,
        tx: &mpsc::Sender<v1::SourceFrame>,
        window: &Window,
        mut at: Position,
    ) -> Result<Infallible, Error> {
        let mut halts = self.halt.subscribe();
        loop {
            let halt = halts.borrow_and_update().clone();
            let until = match halt {
                Halt::Run => None,
                Halt::Pause(attempt) => {
                    self.sender.send_replace(Sender { alive: true, paused: Some(attempt) });
                    changed(&mut halts).await;
                    continue;
                }
                Halt::At(attempt, position) if position == at => {
                    // The destination takes a marker only when it is past its seed, which may have had to be verified anew.
                    tokio::select! {
                        () = changed(&mut halts) => continue,
                        () = self.meter.until_seeded() => {}
                    }
                    let marker = v1::Marker { attempt: attempt.0, position: position.to_string() };
                    send(tx, source_frame::Frame::Marker(marker)).await?;
                    changed(&mut halts).await;
                    continue;
                }
                Halt::At(_, position) => Some(position),
            };
            self.sender.send_replace(Sender { alive: true, paused: None });
            let read = async {
                window.room().await;
                stream.log(&at, RECORD_BYTES, until.as_ref()).await
            };
            let batch = tokio::select! {
                biased;
                () = changed(&mut halts) => continue,
                batch = read => batch?,
            };
            if batch.from != at {
                return Err(Error::Protocol(format!("the engine gave log from {} instead of {at}", batch.from)));
            }
            at = batch.to.clone();
            window.sent(batch.to.clone(), batch.payload.len() as u64);
            let packed = lane::pack(self, batch.payload).await;
            let record = v1::LogRecord {
                from: batch.from.to_string(),
                to: batch.to.to_string(),
                payload: packed.payload,
                crc32c: packed.crc32c,
                uncompressed: packed.uncompressed,
                transactions: batch.transactions,
                seen_unix_ms: batch.seen_ms,
            };
            send(tx, source_frame::Frame::Log(record)).await?;
        }
    }
}

async fn changed(halts: &mut tokio::sync::watch::Receiver<Halt>) {
    // The session, which holds the sender, outlives its tasks.
    if halts.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
