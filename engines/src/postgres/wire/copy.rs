//! COPY in both directions, as chunks of whole rows.

use super::{State, Wire, broken, channel::frame_len, failure::ServerError};
use crate::{Error, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use postgres_protocol::message::frontend;

/// Signature, flags and an empty extension: what precedes the rows of the binary format.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What follows them: a row of -1 columns.
const TRAILER: &[u8] = b"\xff\xff";

/// Payloads below this are collected, larger ones are written from where they are.
const COLLECT_BYTES_MAX: usize = 32 << 10;
/// Collected payloads are sent from this size on.
const SEND_BYTES: usize = 256 << 10;
/// One CopyData message; the server takes up to 1 GiB, and reads a message wholly before it uses it.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Rows of a COPY, in its format, without header and trailer.
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
        self.state = State::CopyOut { binary: self.start_copy(what, statement, b'H').await?, started: false };
        what.clone_into(&mut self.copying);
        Ok(())
    }

    /// The next rows: as many whole ones as make up `max` bytes; one that is larger comes alone. After the `last` chunk the
    /// connection is ready for queries again.
    pub(crate) async fn copy_chunk(&mut self, max: usize) -> Result<CopyChunk> {
        let State::CopyOut { binary, mut started } = self.state else {
            return self.expect(State::CopyOut { binary: true, started: true }).map(|()| CopyChunk::default());
        };
        self.state = State::Broken;
        let what = &self.copying.clone();
        // Where the next message to look at starts, and the end of the rows that were moved together before it.
        let (mut at, mut end, mut rows, mut last) = (0, 0, 0, false);
        while end < max && !last {
            let read = self.channel.unread();
            let len = match frame_len(what, &read[at..])? {
                Some(len) if at + len <= read.len() => len,
                known => {
                    // A chunk with room for one row more than asked for, so that it is not moved when it grows.
                    let lacks = known.map_or(0, |len| at + len - read.len());
                    let room = lacks.max((max + max / 8).saturating_sub(read.len()));
                    self.channel.fill(what, room).await?;
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
            self.state = State::CopyOut { binary, started };
        }
        Ok(CopyChunk { payload: chunk.freeze(), rows, last })
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
