//! Our own connection to a server, for what moves many bytes: COPY, the replication stream, pipelined apply.
//!
//! `tokio-postgres` stays for everything else. It has no replication mode, and it hands a COPY over in a message a row.

mod binding;
mod channel;
mod copy;
mod failure;
mod low_water;
mod startup;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use channel::{Channel, frame_len};
#[allow(unused_imports, reason = "callers take it apart without naming it")]
pub(crate) use copy::CopyChunk;
pub(crate) use failure::ServerError;

use super::{config::PostgresConfig, sql};
use crate::{Error, Result};
use bytes::{Buf as _, Bytes};
use postgres_protocol::message::frontend;
use startup::Session;
use std::time::Duration;

/// A server that does not answer within this is away.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// One row of a simple query; `None` is NULL.
pub(crate) type Row = Vec<Option<String>>;

/// A connection to one database. Dropping it ends the session.
pub(crate) struct Wire {
    channel: Channel,
    state: State,
    backend_pid: i32,
    /// What the COPY under way is for, in words.
    copying: String,
}

/// What the server expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A query.
    Ready,
    /// We read rows. Of the one that is cut so many bytes are still to come.
    CopyOut { binary: bool, started: bool, of_row: usize },
    /// We write rows.
    CopyIn { binary: bool },
    /// Nobody knows: a call failed or was dropped in the middle.
    Broken,
}

impl Wire {
    /// Connects, with the same session settings as [`sql::Sql::connect`]. `replication` asks for a walsender, which takes SQL
    /// (in the simple protocol) too.
    pub(crate) async fn connect(
        config: &PostgresConfig,
        database: &str,
        purpose: &str,
        replication: bool,
    ) -> Result<Self> {
        let what = format!("connect to database {database:?}");
        let started = tokio::time::timeout(CONNECT_TIME_MAX, startup::open(config, database, purpose, replication));
        let session = started.await.map_err(|_| Error::Database {
            what: what.clone(),
            message: "the server does not answer".to_owned(),
            transient: true,
        })??;
        let Session { channel, backend_pid, sql_ascii } = session;
        let mut wire = Self { channel, state: State::Ready, backend_pid, copying: String::new() };
        wire.query("prepare a session", sql::SESSION).await?;
        if sql_ascii {
            // Nothing is known about the bytes in such a database; taken for UTF-8 they would be refused.
            wire.query("prepare a session", "SET client_encoding = SQL_ASCII").await?;
        }
        Ok(wire)
    }

    /// The process that serves this session.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Runs statements in the simple protocol and answers the rows of all of them.
    pub(crate) async fn query(&mut self, what: &str, statements: &str) -> Result<Vec<Row>> {
        self.expect(State::Ready)?;
        frontend::query(statements, self.channel.out()).map_err(|error| Error::io(what, error))?;
        self.channel.send(what).await?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            let frame = self.channel.frame(what).await?;
            match frame.tag {
                b'D' => rows.push(row(what, frame.body)?),
                b'E' => failed = Some(ServerError::read(&frame.body).fatal(what)?),
                b'Z' => break,
                b'G' | b'H' | b'W' => return Err(broken(what, "a COPY where rows were expected")),
                _ => {}
            }
        }
        self.state = State::Ready;
        match failed {
            Some(error) => Err(error.into_error(what)),
            None => Ok(rows),
        }
    }

    /// Gives up the session's state for the raw messages below it. The caller has read everything it caused.
    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }

    /// Checks that the server expects what the caller is about to do. Until the caller says otherwise the state is unknown: it
    /// stays so if its future is dropped.
    fn expect(&mut self, state: State) -> Result<()> {
        let found = std::mem::replace(&mut self.state, State::Broken);
        match found == state {
            true => Ok(()),
            false => Err(Error::Database {
                what: "use a connection".to_owned(),
                message: format!("it is {found:?}, not {state:?}"),
                transient: true,
            }),
        }
    }

    /// Reads until the server is ready for the next query; answers the rows that the last command counted, or its error.
    async fn finish(&mut self, what: &str) -> Result<u64> {
        let (mut failed, mut count) = (None, 0);
        loop {
            let frame = self.channel.frame(what).await?;
            match frame.tag {
                b'C' => count = command_count(&frame.body),
                b'E' => failed = Some(ServerError::read(&frame.body).fatal(what)?),
                b'Z' => break,
                _ => {}
            }
        }
        self.state = State::Ready;
        match failed {
            Some(error) => Err(error.into_error(what)),
            None => Ok(count),
        }
    }
}

/// The rows that a CommandComplete counts: the last word of `INSERT 0 5`, `COPY 5`, `UPDATE 5`; 0 if it counts none.
pub(crate) fn command_count(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let digits = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The error that the body of an ErrorResponse tells.
pub(crate) fn server_error(what: &str, body: &[u8]) -> Error {
    ServerError::read(body).into_error(what)
}

/// What a server says that it must not say.
pub(crate) fn broken(what: &str, how: &str) -> Error {
    Error::Database {
        what: what.to_owned(),
        message: format!("the server breaks the protocol: {how}"),
        transient: true,
    }
}

fn row(what: &str, mut body: Bytes) -> Result<Row> {
    let cut = || broken(what, "a row is cut off");
    let columns = body.try_get_u16().map_err(|_| cut())?;
    let mut row = Vec::with_capacity(usize::from(columns));
    for _ in 0..columns {
        let len = body.try_get_i32().map_err(|_| cut())?;
        let Ok(len) = usize::try_from(len) else {
            row.push(None);
            continue;
        };
        if body.len() < len {
            return Err(cut());
        }
        let text = String::from_utf8(body.split_to(len).into())
            .map_err(|_| broken(what, "a text that is not in the client's encoding"))?;
        row.push(Some(text));
    }
    Ok(row)
}
