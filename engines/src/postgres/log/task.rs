//! The task that holds the walsender's connection.

use super::{
    Shared, backlog,
    state::{State, WHAT},
};
use crate::{
    Error, Result,
    postgres::{
        config::PostgresConfig,
        position::{Lsn, Point},
        sql,
        wire::{Channel, Wire, broken, frame_len, server_error},
    },
};
use bytes::{Buf as _, BufMut as _};
use postgres_protocol::message::frontend;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The server hears from us at least so often, and four times within its own limit (`wal_sender_timeout`, mostly 60 s).
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How often the server is asked at the most where it stands while somebody waits for that.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// While there is a backlog the kernel collects so much before it wakes us, for so long at most. The walsender sends every
/// message by itself, and waking up for each costs more than all the rest together.
const LOW_WATER_BYTES: u32 = 64 << 10;
const LOW_WATER_TIME: Duration = Duration::from_millis(5);
/// So many short reads within this time mean that there is a backlog.
const SHORT_READS: u32 = 32;
const SHORT_READ_BYTES: usize = 8 << 10;
const SHORT_READS_TIME: Duration = Duration::from_millis(10);
/// After a read of so much the next one is worth waiting for before a piece is made.
const HELD_READ_BYTES: usize = 32 << 10;
/// The backlog is over when little came so often in a row.
const IDLE_ROUNDS: u32 = 4;
/// While there is a backlog its length is looked at after so much, more than is read ahead of a caller who is away, and so long.
const LOOK_BYTES: usize = 16 << 20;
const LOOK_TIME: Duration = Duration::from_secs(5);
/// Also when nothing was taken for so long.
const AWAY_TIME: Duration = Duration::from_secs(1);
/// What one read asks for.
const READ_BYTES: usize = 256 << 10;
/// A row from this size on is read to where it stays.
const LARGE_BYTES: usize = 2 << 20;
/// An earlier walsender of the slot has so long to end.
const SLOT_FREE_TIME: Duration = Duration::from_secs(20);

/// What to read.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) config: PostgresConfig,
    pub(super) database: String,
    pub(super) slot: String,
    pub(super) publication: String,
    pub(super) binary: bool,
}

/// Reads until the reader is stopped; starts again when its callers ask for it.
pub(super) async fn run(shared: Arc<Shared>, stream: Stream) {
    loop {
        while !shared.lock().demand {
            if shared.lock().stopping {
                return;
            }
            shared.control.notified().await;
        }
        let outcome = session(&shared, &stream).await;
        let mut state = shared.lock();
        if state.stopping {
            return;
        }
        // Without an error somebody wants the log from another place.
        if let Err(error) = outcome {
            tracing::debug!(%error, "the walsender's connection ended");
            (state.failed, state.reported, state.demand) = (Some(error), false, false);
        }
        drop(state);
        shared.changed.notify_waiters();
    }
}

async fn session(shared: &Shared, stream: &Stream) -> Result<()> {
    let from = {
        let mut state = shared.lock();
        let from = state.restart.unwrap_or(state.first());
        state.begin(from);
        from
    };
    let mut wire = Wire::connect(&stream.config, &stream.database, "source log", true).await?;
    claim(&mut wire, stream, from).await?;
    let status_every = status_every(&mut wire).await?;
    let start = match backlog::read(shared, stream, &mut wire).await? {
        None => None,
        Some(backlog::End::At(lsn)) => Some(lsn),
        Some(backlog::End::Cut) => return Ok(()),
    };
    let channel = wire.into_channel();
    let mut reader = Reader {
        channel,
        shared,
        status_every,
        status_due: Instant::now(),
        asked: None,
        held: false,
        backlogged: false,
        idle_rounds: 0,
        short: (0, Instant::now()),
        looked: (0, Instant::now()),
        blocked: None,
    };
    reader.start(stream, start).await?;
    shared.lock().streaming = true;
    shared.changed.notify_waiters();
    reader.run(stream).await
}

/// Makes sure that the slot still holds the log from `from` on, and ends whoever reads from it.
async fn claim(wire: &mut Wire, stream: &Stream, from: Point) -> Result<()> {
    let lost = |how: &str| Error::LogLost(format!("the replication slot {:?} {how}", stream.slot));
    let query = format!(
        "SELECT confirmed_flush_lsn, coalesce(wal_status, '') FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = {} AND database = current_database()",
        sql::literal(&stream.slot)
    );
    end_user(wire, &stream.slot).await?;
    let rows = wire.query(WHAT, &query).await?;
    let Some([Some(confirmed), Some(status)]) = rows.first().map(Vec::as_slice) else {
        return Err(lost("is gone"));
    };
    if status == "lost" {
        return Err(lost("was invalidated"));
    }
    // Inside a transaction the point is one past the start of its commit.
    let confirmed: Lsn = confirmed.parse()?;
    if confirmed > from.lsn || (confirmed == from.lsn && from.index > 0) {
        return Err(lost(&format!("begins at {confirmed}, after {from}")));
    }
    Ok(())
}

/// Ends whoever reads from a slot: a dead agent's process, or that of one whose lock we took. Without the slot there is nobody.
pub(super) async fn end_user(wire: &mut Wire, slot: &str) -> Result<()> {
    let query = format!(
        "SELECT active_pid, pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = {} AND active_pid IS NOT NULL",
        sql::literal(slot)
    );
    let deadline = Instant::now() + SLOT_FREE_TIME;
    loop {
        let rows = wire.query(WHAT, &query).await?;
        let Some([Some(pid), _]) = rows.first().map(Vec::as_slice) else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(Error::Busy(format!("process {pid} reads from the replication slot {slot:?}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often this server has to hear from us, while it waits for room to send as well.
async fn status_every(wire: &mut Wire) -> Result<Duration> {
    let query = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
    let rows = wire.query(WHAT, query).await?;
    let millis = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(0);
    Ok(match millis {
        0 => STATUS_EVERY,
        millis => STATUS_EVERY.min(Duration::from_millis(millis) / 4),
    })
}

struct Reader<'a> {
    channel: Channel,
    shared: &'a Shared,
    status_every: Duration,
    status_due: Instant,
    /// When the server was asked last where it stands.
    asked: Option<Instant>,
    /// Callers were told that pieces are held back.
    held: bool,
    backlogged: bool,
    /// How often in a row little came although we waited.
    idle_rounds: u32,
    /// Short reads, and since when.
    short: (u32, Instant),
    /// What came of a backlog since its length was looked at, and when that was.
    looked: (usize, Instant),
    /// Since when there is no room.
    blocked: Option<Instant>,
}

impl Reader<'_> {
    async fn start(&mut self, stream: &Stream, from: Option<Lsn>) -> Result<()> {
        // Mostly from where the slot stands: the server would skip a transaction that we have half of if it were told our place.
        let from = from.unwrap_or(Lsn(0));
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names {}, messages 'true', binary '{}')",
            sql::ident(&stream.slot),
            sql::literal(&sql::ident(&stream.publication)).trim_start(),
            stream.binary
        );
        frontend::query(&command, self.channel.out()).map_err(|error| Error::io(WHAT, error))?;
        self.channel.send(WHAT).await?;
        loop {
            let frame = self.channel.frame(WHAT).await?;
            match frame.tag {
                b'W' => return Ok(()),
                b'E' => return Err(server_error(WHAT, &frame.body)),
                b'Z' => return Err(broken(WHAT, "no stream where one was asked for")),
                _ => {}
            }
        }
    }

    /// Reads until it fails, or until it has to start somewhere else.
    async fn run(&mut self, stream: &Stream) -> Result<()> {
        loop {
            let (stop, ask, room, reply, confirmed, news) = {
                let mut guard = self.shared.lock();
                let state: &mut State = &mut guard;
                let unread = self.channel.unread();
                let room = state.has_room();
                let (consumed, reply) = if room { state.consume(unread)? } else { (0, false) };
                unread.advance(consumed);
                let news = consumed > 0 || state.hold != self.held;
                self.looked.0 += if self.backlogged { consumed } else { 0 };
                self.held = state.hold;
                let stop = state.stopping || state.restart.is_some();
                (stop, state.ask, state.has_room(), reply, std::mem::take(&mut state.ask_status), news)
            };
            // Only of news: callers answer with a wish, and the two would keep each other awake.
            if news {
                self.shared.changed.notify_waiters();
            }
            // A destination that was away has much to catch up on.
            if room && self.blocked.take().is_some_and(|since| since.elapsed() >= AWAY_TIME) {
                self.looked.0 = LOOK_BYTES;
            }
            if stop || room && self.is_slow(stream).await {
                return self.end().await;
            }
            // Now and then the server is asked too where it stands: a database in which nothing happens confirms by that.
            let due = Instant::now() >= self.status_due;
            let asks = due || ask && self.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY);
            if reply || confirmed || asks {
                self.status(asks).await?;
            }
            let ask = ask && !asks;
            if !room {
                self.blocked.get_or_insert_with(Instant::now);
                let due = self.status_due;
                tokio::select! {
                    () = self.shared.control.notified() => {}
                    () = tokio::time::sleep_until(due.into()) => {}
                }
                continue;
            }
            self.large_message().await?;
            self.wait(ask).await?;
        }
    }

    /// Whether there is a backlog for which an ordinary session is worth it.
    async fn is_slow(&mut self, stream: &Stream) -> bool {
        let (came, since) = self.looked;
        if came < LOOK_BYTES || since.elapsed() < LOOK_TIME {
            return false;
        }
        self.looked = (0, Instant::now());
        backlog::is_long(self.shared, stream).await
    }

    /// Waits for more of the log, for a wish of the callers, or until the server has to hear from us.
    async fn wait(&mut self, ask: bool) -> Result<()> {
        let due = match self.asked {
            Some(asked) if ask => self.status_due.min(asked + ASK_EVERY),
            _ => self.status_due,
        };
        if self.backlogged {
            return self.wait_for_much().await;
        }
        tokio::select! {
            n = self.channel.fill(WHAT, READ_BYTES) => {
                let n = n?;
                let (count, since) = self.short;
                self.short = match n < SHORT_READ_BYTES && since.elapsed() < SHORT_READS_TIME {
                    true => (count + 1, since),
                    false => (0, Instant::now()),
                };
                self.backlogged = self.short.0 >= SHORT_READS;
            }
            () = self.shared.control.notified() => {}
            () = tokio::time::sleep_until(due.into()) => {}
        }
        Ok(())
    }

    /// Waits until much has come, or for a few milliseconds.
    async fn wait_for_much(&mut self) -> Result<()> {
        if !self.channel.collects() {
            // A UNIX socket: collect by sleeping.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut came = self.channel.fill_much(WHAT, READ_BYTES, LOW_WATER_BYTES, LOW_WATER_TIME).await?;
        if came == 0 {
            // Nobody waits longer than this for what is there.
            let rest = tokio::time::timeout(Duration::from_millis(1), self.channel.fill(WHAT, READ_BYTES)).await;
            came = rest.unwrap_or(Ok(0))?;
        }
        self.shared.lock().hold = came >= HELD_READ_BYTES;
        self.idle_rounds = if came < SHORT_READ_BYTES { self.idle_rounds + 1 } else { 0 };
        // A walsender that has to share its processor pauses too.
        if came == 0 || self.idle_rounds >= IDLE_ROUNDS {
            (self.backlogged, self.idle_rounds, self.short, self.looked.0) = (false, 0, (0, Instant::now()), 0);
        }
        Ok(())
    }

    /// Reads a large message whose beginning has come to where it stays, so that it is in memory once.
    async fn large_message(&mut self) -> Result<()> {
        let unread = self.channel.unread();
        let Some(len) = frame_len(WHAT, unread)?.filter(|len| *len >= LARGE_BYTES && *len > unread.len()) else {
            return Ok(());
        };
        if unread.len() < 64 || unread[0] != b'd' || unread[5] != b'w' {
            return Ok(());
        }
        let body = len - 30;
        let mut large = self.shared.lock().begin_large(&unread[30..], body)?;
        unread.advance(30);
        let mut missing = body;
        while missing > 0 {
            missing -= self.channel.read_into(WHAT, large.buffer(), missing).await?;
            if Instant::now() >= self.status_due {
                self.status(false).await?;
            }
        }
        self.shared.lock().end_large(large)?;
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Tells the server how far the log is durable at the destination; `reply` asks it to tell where it stands.
    async fn status(&mut self, reply: bool) -> Result<()> {
        let confirmed = {
            let mut state = self.shared.lock();
            if reply {
                (state.ask, self.asked) = (false, Some(Instant::now()));
            }
            state.confirmed
        };
        let out = self.channel.out();
        out.put_u8(b'd');
        out.put_u32(38);
        out.put_u8(b'r');
        // Written, flushed, applied: what is durable over there is all three.
        for _ in 0..3 {
            out.put_u64(confirmed.0);
        }
        out.put_i64(0);
        out.put_u8(u8::from(reply));
        self.status_due = Instant::now() + self.status_every;
        self.channel.send(WHAT).await
    }

    /// Says good-bye and waits until the server has let go of the slot.
    async fn end(&mut self) -> Result<()> {
        self.status(false).await?;
        frontend::copy_done(self.channel.out());
        frontend::terminate(self.channel.out());
        let gone = async {
            if self.channel.send(WHAT).await.is_ok() {
                while self.channel.fill(WHAT, READ_BYTES).await.is_ok() {
                    self.channel.unread().clear();
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), gone).await;
        Ok(())
    }
}
