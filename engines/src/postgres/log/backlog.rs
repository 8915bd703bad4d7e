//! A long backlog, read by an ordinary session.
//!
//! A walsender makes two system calls for each message, which is three quarters of what it does. A session that asks for the same
//! messages by SQL gets them through a buffer. The function gathers what it decodes before it gives anything, so it is
//! asked for a stretch of the log at a time; and it moves its slot before we have anything, so it gets a copy of the slot that
//! goes with the session.

use super::{
    Shared,
    state::{Large, State, WHAT, now_ms},
    task::{Stream, end_user},
};
use crate::{
    Error, Result,
    postgres::{
        position::Lsn,
        sql::{ident, literal},
        wire::{Wire, broken},
    },
};
use std::time::{Duration, Instant};

/// From so much log on it is worth a session. Tests take a small one for a long one.
const LONG_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 32 << 20 };
/// One call goes on by so much; what comes of it lies in a temporary file of the server's until it is read.
const STRETCH_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 64 << 20 };
/// Every call decodes again from where the server could begin anew: before the oldest open transaction, and as seldom as the server
/// notes it (every 15 s). To pass over is five times as quick as to give, so a call goes on by a quarter of that, ...
const AGAIN_TIMES: u64 = 4;
/// ... up to here, because of the temporary file, ...
const STRETCH_BYTES_MAX: u64 = 4 * STRETCH_BYTES;
/// ... and from here on the walsender does it with less.
const AGAIN_BYTES_MAX: u64 = AGAIN_TIMES * STRETCH_BYTES_MAX;
/// What is read at once; a larger message is read to where it stays, so that it is in memory once.
const READ_BYTES: usize = 256 << 10;
/// The server makes no larger ones.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// The slot itself follows in steps of so much: what it retains counts against the operation's budget.
const FOLLOW_BYTES: u64 = STRETCH_BYTES;
/// A call holds a snapshot, which keeps vacuum from its work: when the destination takes nothing for so long it is given up.
const BLOCKED_TIME_MAX: Duration = Duration::from_secs(10);
/// Slots that others may need: this many stay free beside ours.
const SLOTS_LEFT: i64 = 1;

/// Why the reading ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The walsender goes on, from here.
    At(Lsn),
    /// In the middle of a call: what follows begins anew.
    Cut,
}

/// Reads the log as long as much of it is there. `walsender` is idle meanwhile.
pub(super) async fn read(shared: &Shared, stream: &Stream, walsender: &mut Wire) -> Result<Option<End>> {
    if !shared.lock().may_have_session() {
        return Ok(None);
    }
    let from = shared.lock().read_to();
    let slot = literal(&stream.slot);
    let look = format!(
        "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), confirmed_flush_lsn)::int8, \
            pg_catalog.current_setting('max_replication_slots')::int8 \
                - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots), \
            pg_catalog.pg_wal_lsn_diff(confirmed_flush_lsn, restart_lsn)::int8 \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}"
    );
    let rows = walsender.query(WHAT, &look).await?;
    let number = |n: usize| rows.first().and_then(|row| row.get(n)?.as_deref()?.parse::<i64>().ok()).unwrap_or(0);
    if number(0) < LONG_BYTES as i64 || number(1) <= SLOTS_LEFT || number(2) > AGAIN_BYTES_MAX as i64 {
        return Ok(None);
    }
    // Callers may take what comes from now on.
    shared.lock().streaming = true;
    tracing::info!(slot = stream.slot, bytes = number(0), "a session reads the log, of which much is ahead");
    let mut session = None;
    let read = calls(shared, stream, walsender, &mut session).await;
    // A process that is decoding would notice only later that nobody listens, and its slot stand in the way of who comes next.
    if let Some(pid) = session.map(|session| session.backend_pid()) {
        walsender.query(WHAT, &format!("SELECT pg_catalog.pg_terminate_backend({pid})")).await?;
    }
    let mut state = shared.lock();
    state.hold = false;
    match read {
        Ok(End::At(lsn)) => {
            state.go_on_at(lsn);
            Ok(Some(End::At(lsn)))
        }
        Ok(End::Cut) => Ok(Some(End::Cut)),
        Err(error) => {
            tracing::info!(slot = stream.slot, %error, "the backlog is left to the walsender");
            state.leave_to_walsender();
            Ok((state.read_to() != from || !state.between_transactions()).then_some(End::Cut))
        }
    }
}

/// Whether the end of the log is far from what was read, and a session may read what is between.
pub(super) async fn is_long(shared: &Shared, stream: &Stream) -> bool {
    if !shared.lock().may_have_session() {
        return false;
    }
    let end = async {
        let mut session = Wire::connect(&stream.config, &stream.database, "source backlog", false).await?;
        // From where it could begin anew it would decode all again that is between.
        let look = format!(
            "SELECT pg_current_wal_flush_lsn() FROM pg_replication_slots WHERE slot_name = {} \
                AND pg_wal_lsn_diff('{}', restart_lsn) <= {AGAIN_BYTES_MAX}",
            literal(&stream.slot),
            shared.lock().read_to().lsn
        );
        let rows = session.query(WHAT, &look).await?;
        rows.first().and_then(|row| row.first()?.as_deref()).unwrap_or("0/0").parse::<Lsn>()
    };
    // Behind a fence nobody can connect, and the walsender is the only one there will be.
    let end = end.await.unwrap_or(Lsn(0));
    let state = shared.lock();
    state.may_have_session() && end.0.saturating_sub(state.read_to().lsn.0) >= LONG_BYTES
}

async fn calls(shared: &Shared, stream: &Stream, walsender: &mut Wire, place: &mut Option<Wire>) -> Result<End> {
    let copy = format!("{}_backlog", stream.slot);
    end_user(walsender, &copy).await?;
    let session = place.insert(Wire::connect(&stream.config, &stream.database, "source backlog", false).await?);
    let (slot, copy) = (literal(&stream.slot), literal(&copy));
    session.query(WHAT, &format!("SELECT pg_copy_logical_replication_slot({slot}, {copy}, true)")).await?;
    let look = format!(
        "SELECT pg_current_wal_flush_lsn(), restart_lsn, confirmed_flush_lsn FROM pg_replication_slots \
         WHERE slot_name = {copy}"
    );
    let mut followed = Lsn(0);
    // The destination shall have something to do soon.
    let mut stretch = STRETCH_BYTES / 8;
    loop {
        let rows = session.query(WHAT, &look).await?;
        let Some([Some(end), Some(restart), Some(at)]) = rows.first().map(Vec::as_slice) else {
            return Err(Error::Busy("the copy of the replication slot is gone".to_owned()));
        };
        let (end, restart, at): (Lsn, Lsn, Lsn) = (end.parse()?, restart.parse()?, at.parse()?);
        shared.lock().reached(at, now_ms());
        shared.changed.notify_waiters();
        let (ahead, again) = (end.0.saturating_sub(at.0), at.0.saturating_sub(restart.0));
        let (confirmed, goes_on) = {
            let state = shared.lock();
            (state.confirmed, state.may_have_session())
        };
        if again > AGAIN_BYTES_MAX {
            shared.lock().leave_to_walsender();
        }
        if ahead < LONG_BYTES / 8 || again > AGAIN_BYTES_MAX || !goes_on {
            return Ok(End::At(at));
        }
        if confirmed.0 >= followed.0 + FOLLOW_BYTES {
            let follow = format!(
                "SELECT pg_replication_slot_advance({slot}, '{confirmed}') WHERE '{confirmed}' > \
                 (SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {slot})"
            );
            session.query(WHAT, &follow).await?;
            followed = confirmed;
        }
        let upto = Lsn(at.0 + (again / AGAIN_TIMES).clamp(stretch, STRETCH_BYTES_MAX));
        stretch = STRETCH_BYTES.min(2 * stretch);
        let call = format!(
            "COPY (SELECT data FROM pg_logical_slot_get_binary_changes({copy}, '{upto}', NULL, {})) \
             TO STDOUT (FORMAT binary)",
            options(stream)
        );
        session.copy_out(WHAT, &call).await?;
        if !rows_of(shared, session).await? {
            return Ok(End::Cut);
        }
    }
}

/// The options of the output plugin, as the arguments of a function.
fn options(stream: &Stream) -> String {
    let publication = ident(&stream.publication);
    format!(
        "'proto_version', '1', 'publication_names', {}, 'messages', 'true', 'binary', '{}'",
        literal(&publication),
        stream.binary
    )
}

/// Takes in what a call gives. Answers whether that was all of it: somebody may want something else, or nobody take it.
async fn rows_of(shared: &Shared, session: &mut Wire) -> Result<bool> {
    let mut large: Option<Pieces> = None;
    loop {
        if !room(shared).await {
            return Ok(false);
        }
        let chunk = tokio::select! {
            chunk = session.copy_chunk(READ_BYTES) => chunk?,
            () = wanted(shared) => return Ok(false),
        };
        let mut rest = &chunk.payload[..];
        let (now, mut state) = (now_ms(), shared.lock());
        // Of a row in pieces only the last one counts as a row.
        if large.is_none() && chunk.rows == 0 && !rest.is_empty() {
            large = Some(Pieces::begin(&mut state, &mut rest)?);
        }
        match large.take() {
            Some(pieces) => large = pieces.take(&mut state, rest)?,
            None => {
                while let Some((message, behind)) = row(rest)? {
                    state.take_in(message, now)?;
                    rest = behind;
                }
            }
        }
        if large.is_some() && (chunk.rows > 0 || chunk.last) {
            return Err(cut_off());
        }
        state.hold = !chunk.last;
        drop(state);
        shared.changed.notify_waiters();
        if chunk.last {
            return Ok(true);
        }
    }
}

/// The first row of one column, and what is behind it.
fn row(bytes: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (len, rest) = column(bytes)?;
    rest.split_at_checked(len).map(Some).ok_or_else(cut_off)
}

/// How long the one column of a row is, and what of it and behind it is there.
fn column(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<6>().ok_or_else(cut_off)?;
    Ok((u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize, rest))
}

fn cut_off() -> Error {
    broken(WHAT, "a row of the log is cut off")
}

/// A message that comes in pieces.
struct Pieces {
    large: Large,
    missing: usize,
}

impl Pieces {
    /// Begins it, and passes over what is before the message in its row.
    fn begin(state: &mut State, bytes: &mut &[u8]) -> Result<Self> {
        let (missing, message) = column(bytes)?;
        if missing <= message.len() || missing > MESSAGE_BYTES_MAX {
            return Err(cut_off());
        }
        *bytes = message;
        Ok(Self { large: state.begin_large(message, missing)?, missing })
    }

    /// Takes the next piece; answers itself unless that was the last one.
    fn take(mut self, state: &mut State, bytes: &[u8]) -> Result<Option<Self>> {
        self.missing = self.missing.checked_sub(bytes.len()).ok_or_else(cut_off)?;
        self.large.buffer().extend_from_slice(bytes);
        if self.missing > 0 {
            return Ok(Some(self));
        }
        state.end_large(self.large)?;
        Ok(None)
    }
}

/// Waits until there is room; false if there is none for too long, or if something else is wanted.
async fn room(shared: &Shared) -> bool {
    let until = Instant::now() + BLOCKED_TIME_MAX;
    loop {
        {
            let mut state = shared.lock();
            if state.stopping || state.restart.is_some() {
                return false;
            }
            if state.has_room() {
                return true;
            }
            if Instant::now() >= until {
                state.is_untaken();
                return false;
            }
        }
        let _ = tokio::time::timeout_at(until.into(), shared.control.notified()).await;
    }
}

/// Waits until the reader shall stop or start elsewhere.
async fn wanted(shared: &Shared) {
    loop {
        {
            let state = shared.lock();
            if state.stopping || state.restart.is_some() {
                return;
            }
        }
        shared.control.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn rows_of_one_column_are_taken_apart_and_cut_ones_refused() {
        let bytes = b"\0\x01\0\0\0\x02ab\0\x01\0\0\0\0";
        let (first, rest) = row(bytes).expect("whole").expect("one");
        assert_eq!(first, b"ab");
        let (second, rest) = row(rest).expect("whole").expect("one");
        assert_eq!((second, rest), (&b""[..], &b""[..]));
        assert_eq!(row(rest).expect("whole"), None);
        for len in 1..8 {
            assert!(row(&bytes[..len]).is_err(), "{len}");
        }
    }
}
