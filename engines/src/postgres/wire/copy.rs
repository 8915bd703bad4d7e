//! COPY in both directions, as chunks of rows.

use super::{State, Wire, broken, channel::frame_len, failure::ServerError};
use crate::{Error, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use std::time::Duration;

/// Signature, flags and an empty extension: what precedes the rows of the binary format.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What follows them: a row of -1 columns.
const TRAILER: &[u8] = b"\xff\xff";

/// What may precede the first row in its message.
const ROW_BEGINS: usize = 5 + HEADER.len();

/// Payloads below this are collected, larger ones are written from where they are.
const COLLECT_BYTES_MAX: usize = 32 << 10;
/// Collected payloads are sent from this size on.
const SEND_BYTES: usize = 256 << 10;
/// One CopyData message; the server takes up to 1 GiB, and reads a message wholly before it uses it.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// The kernel collects so much of a COPY before it wakes us, for so long at most: the server sends 8 KiB at a time, and waking up
/// for each costs both of us more than the rows.
const LOW_WATER_BYTES: u32 = 128 << 10;
const LOW_WATER_TIME: Duration = Duration::from_millis(2);

/// Rows of a COPY, or a piece of one, in its format, without header and trailer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CopyChunk {
    pub(crate) payload: Bytes,
    pub(crate) rows: u64,
    /// Nothing follows.
    pub(crate) last: bool,
}

impl Wire {
    /// Starts a `COPY ... TO STDOUT`; the rows come by [`Wire::copy_chunk`].
    pub(crate) async fn copy_out(&mut self, what: &str, statement: &str) -> Result<()> {
        self.expect(State::Ready)?;
        let binary = self.start_copy(what, statement, b'H').await?;
        self.state = State::CopyOut { binary, started: false, of_row: 0 };
        what.clone_into(&mut self.copying);
        Ok(())
    }

    /// Waits for much of a COPY, or for what comes of it in a short time.
    async fn fill_much(&mut self, what: &str, room: usize) -> Result<()> {
        if self.channel.fill_much(what, room, LOW_WATER_BYTES, LOW_WATER_TIME).await? == 0 {
            self.channel.fill(what, room).await?;
        }
        Ok(())
    }

    /// The next rows: as many whole ones as make up `max` bytes; one that is larger comes alone. After the `last` chunk the
    /// connection is ready for queries again.
    pub(crate) async fn copy_rows(&mut self, max: usize) -> Result<CopyChunk> {
        self.copy(max, false).await
    }

    /// The same, but for a row larger than `max`: it comes in pieces, so that it is never in memory as a whole. It counts where it
    /// ends.
    pub(crate) async fn copy_chunk(&mut self, max: usize) -> Result<CopyChunk> {
        self.copy(max, true).await
    }

    async fn copy(&mut self, max: usize, cut: bool) -> Result<CopyChunk> {
        let State::CopyOut { binary, mut started, of_row } = self.state else {
            return self
                .expect(State::CopyOut { binary: true, started: true, of_row: 0 })
                .map(|()| CopyChunk::default());
        };
        self.state = State::Broken;
        let what = &self.copying.clone();
        if of_row > 0 {
            return self.piece_of_row(what, binary, of_row, max).await;
        }
        // Where the next message to look at starts, and the end of the rows that were moved together before it.
        let (mut at, mut end, mut rows, mut last) = (0, 0, 0, false);
        while end < max && !last {
            let read = self.channel.unread();
            let len = match frame_len(what, &read[at..])? {
                // Header and row come in one message.
                Some(len) if cut && len > max + ROW_BEGINS && read[at] == b'd' => {
                    if rows > 0 {
                        break;
                    }
                    bytes::Buf::advance(read, at);
                    let of_row = self.begin_row(what, binary && !started, len).await?;
                    return self.piece_of_row(what, binary, of_row, max).await;
                }
                Some(len) if at + len <= read.len() => len,
                known => {
                    // A chunk with room for one row more than asked for, so that it is not moved when it grows.
                    let lacks = known.map_or(0, |len| at + len - read.len());
                    let room = lacks.max((max + max / 8).saturating_sub(read.len()));
                    self.fill_much(what, room).await?;
                    continue;
                }
            };
            let (tag, mut from) = (read[at], at + 5);
            at += len;
            match tag {
                b'd' => {
                    if binary && !started {
                        // The header comes in one message with the first row, or with the trailer.
                        if read[from..at].get(..HEADER.len()) != Some(HEADER) {
                            return Err(broken(what, "a COPY without its header"));
                        }
                        (from, started) = (from + HEADER.len(), true);
                    }
                    let row = from..at;
                    if row.is_empty() || binary && read[row.clone()] == *TRAILER {
                        continue;
                    }
                    // A row that does not fit begins the next chunk.
                    if rows > 0 && end + row.len() > max {
                        at -= len;
                        break;
                    }
                    read.copy_within(row.clone(), end);
                    end += row.len();
                    rows += 1;
                }
                b'c' => last = true,
                b'E' => {
                    let error = ServerError::read(&read[from..at]).fatal(what)?;
                    bytes::Buf::advance(read, at);
                    self.finish(what).await?;
                    return Err(error.into_error(what));
                }
                _ => {}
            }
        }
        let mut chunk = self.channel.unread().split_to(at);
        chunk.truncate(end);
        if last {
            self.finish(what).await?;
        } else {
            self.state = State::CopyOut { binary, started, of_row: 0 };
        }
        Ok(CopyChunk { payload: chunk.freeze(), rows, last })
    }

    /// Passes over what precedes the row in the message at the front; answers how long the row is.
    async fn begin_row(&mut self, what: &str, header: bool, len: usize) -> Result<usize> {
        let before = if header { 5 + HEADER.len() } else { 5 };
        while self.channel.unread().len() < before {
            self.fill_much(what, 0).await?;
        }
        let read = self.channel.unread();
        if header && read.get(5..before) != Some(HEADER) {
            return Err(broken(what, "a COPY without its header"));
        }
        bytes::Buf::advance(read, before);
        Ok(len - before)
    }

    /// The next bytes of a row of which so many are still to come.
    async fn piece_of_row(&mut self, what: &str, binary: bool, of_row: usize, max: usize) -> Result<CopyChunk> {
        let len = of_row.min(max.max(1));
        loop {
            let lacks = len.saturating_sub(self.channel.unread().len());
            if lacks == 0 {
                break;
            }
            self.fill_much(what, lacks).await?;
        }
        let payload = self.channel.unread().split_to(len).freeze();
        self.state = State::CopyOut { binary, started: true, of_row: of_row - len };
        Ok(CopyChunk { payload, rows: u64::from(len == of_row), last: false })
    }

    /// Starts a `COPY ... FROM STDIN`.
    pub(crate) async fn copy_in(&mut self, what: &str, statement: &str, binary: bool) -> Result<()> {
        self.expect(State::Ready)?;
        if self.start_copy(what, statement, b'G').await? != binary {
            return Err(Error::Misuse(format!("{what}: the statement and its caller disagree about the format")));
        }
        if binary {
            put_data(self.channel.out(), HEADER.len());
            self.channel.out().put_slice(HEADER);
        }
        self.state = State::CopyIn { binary };
        what.clone_into(&mut self.copying);
        Ok(())
    }

    /// Sends rows; they may be cut anywhere.
    pub(crate) async fn copy_write(&mut self, mut payload: Bytes) -> Result<()> {
        let state = self.state;
        let State::CopyIn { .. } = state else { return self.expect(State::CopyIn { binary: true }) };
        self.state = State::Broken;
        let what = &self.copying.clone();
        while !payload.is_empty() {
            let piece = payload.split_to(payload.len().min(MESSAGE_BYTES_MAX));
            put_data(self.channel.out(), piece.len());
            if piece.len() > COLLECT_BYTES_MAX {
                self.channel.send_with(what, piece).await?;
                continue;
            }
            self.channel.out().put_slice(&piece);
            if self.channel.out().len() >= SEND_BYTES {
                self.channel.send(what).await?;
            }
        }
        // The server says at once that a row was bad, and then swallows the rest: do not send it gigabytes for nothing.
        while let Some(frame) = self.channel.next_frame(what)? {
            if frame.tag == b'E' {
                let error = ServerError::read(&frame.body).fatal(what)?;
                self.finish(what).await?;
                return Err(error.into_error(what));
            }
        }
        self.state = state;
        Ok(())
    }

    /// Ends the COPY and answers how many rows it brought.
    pub(crate) async fn copy_finish(&mut self) -> Result<u64> {
        let State::CopyIn { binary } = self.state else {
            return self.expect(State::CopyIn { binary: true }).map(|()| 0);
        };
        self.state = State::Broken;
        let what = &self.copying.clone();
        let out = self.channel.out();
        if binary {
            put_data(out, TRAILER.len());
            out.put_slice(TRAILER);
        }
        frontend::copy_done(out);
        self.channel.send(what).await?;
        self.finish(what).await
    }

    /// Sends the statement and waits for the server to change into COPY; answers whether its format is binary.
    async fn start_copy(&mut self, what: &str, statement: &str, response: u8) -> Result<bool> {
        frontend::query(statement, self.channel.out()).map_err(|error| Error::io(what, error))?;
        self.channel.send(what).await?;
        let frame = self.channel.frame(what).await?;
        match frame.tag {
            tag if tag == response => Ok(frame.body.first() == Some(&1)),
            b'E' => {
                let error = ServerError::read(&frame.body).fatal(what)?;
                self.finish(what).await?;
                Err(error.into_error(what))
            }
            _ => Err(broken(what, "no COPY where one was asked for")),
        }
    }
}

/// The header of a CopyData message.
fn put_data(out: &mut BytesMut, len: usize) {
    out.put_u8(b'd');
    out.put_u32(u32::try_from(len + 4).expect("a message has at most MESSAGE_BYTES_MAX"));
}
