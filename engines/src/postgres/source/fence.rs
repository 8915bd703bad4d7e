//! Closing a database to everybody but us, and opening it again.
//!
//! The closing is catalog state: it outlives agent and server, and holds for superusers too. What a session that is just
//! logging in could still do is waited for; then the sessions that are in are ended.

use super::{
    Inner,
    extras::{Marker, Sessions},
    instance,
    memo::Memo,
    stream::{Gate, Stream, log_reader},
};
use crate::{
    Error, Result,
    postgres::{
        log::LogReader,
        position::{Lsn, Point},
        rows::{one, rows},
        sql::{Sql, ident, literal},
        steps::Steps,
        wire::Wire,
    },
};
use handover::{
    Attempt, Position,
    source_role::{Phase, SourceRole},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Between two looks at who is still there: a fence takes no longer than its clients need.
const LOOK: Duration = Duration::from_millis(2);

/// A login takes milliseconds; what takes longer is stuck in authentication or in a delay that was configured.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(10);

/// A walsender is there after a moment, unless the end of the log is far away: then it is too early for a fence.
const WALSENDER_TIME_MAX: Duration = Duration::from_secs(5);

/// The prefix of the message that marks a fence.
const MESSAGE: &str = "causeway.fence";

/// What was there before a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    allow: bool,
    limit: i32,
}

/// What is needed behind the closed door and was there before: clients wait for each connection that is made then.
struct Inside {
    sql: Arc<Sql>,
    wire: Wire,
    log: Arc<LogReader>,
    /// A session with the maintenance database.
    outside: Sql,
    memo: Arc<Memo>,
    /// Their processes, the walsender's among them.
    pids: Vec<i32>,
}

pub(super) async fn fence(
    inner: &Inner,
    stream: &Arc<Stream>,
    role: &mut SourceRole,
    grace: Duration,
) -> Result<Position> {
    let Phase::Fencing { attempt, .. } = role.phase else {
        return Err(Error::Misuse("a fence for a role that is not fencing".to_owned()));
    };
    let mut steps = Steps::default();
    let inside = connect(inner, stream).await?;
    steps.done("connect");
    close(inner, role).await?;
    steps.done("close");
    let position = async {
        empty(inner, role, &inside, grace, &mut steps).await?;
        let lsn = mark(inner, stream, role, attempt, inside).await?;
        steps.done("mark");
        Ok(lsn)
    };
    let position: Result<Lsn> = position.await;
    match position {
        Ok(lsn) => {
            tracing::info!(operation = %role.operation, took_us = %steps, "closed the database");
            Ok(Point::end(lsn).position())
        }
        Err(Error::Superseded { ours, newer }) => Err(Error::Superseded { ours, newer }),
        Err(error) => {
            stream.set_marker(None);
            let sql = inner.maintenance("source fence").await?;
            open(inner, &sql, role, None).await?;
            stream.gate.send_replace(Gate::Open);
            Err(Error::Busy(format!("the database was opened again: {error}")))
        }
    }
}

/// Everything that will be needed behind the closed door.
async fn connect(inner: &Inner, stream: &Arc<Stream>) -> Result<Inside> {
    let sql = stream.session().await?;
    instance::check(&sql, &stream.role).await?;
    let slot = format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {}",
        literal(&stream.names.slot)
    );
    let what = "prepare a fence";
    let from = one(&sql, what, &slot).await?.parse::<Lsn>(0)?;
    let log = log_reader(stream, from).await?;
    let wire = Wire::connect(&inner.config, stream.database(), "source extras", false).await?;
    let own = one(&sql, what, "SELECT pg_backend_pid()").await?.parse(0)?;
    let walsender = format!(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = {} AND active_pid IS NOT NULL",
        literal(&stream.names.slot)
    );
    log.leave_to_walsender();
    let until = Instant::now() + WALSENDER_TIME_MAX;
    let walsender = loop {
        match rows(&sql, "look for the process that sends the log", &walsender).await?.first() {
            Some(row) => break row.parse(0)?,
            None if Instant::now() >= until => {
                return Err(Error::Busy("the log is not being read at the moment".to_owned()));
            }
            None => tokio::time::sleep(LOOK).await,
        }
    };
    let pids = vec![own, wire.backend_pid(), walsender];
    let outside = inner.maintenance("source fence").await?;
    let memo = Arc::new(inner.store.memo(&stream.role.operation).await?.unwrap_or_default());
    Ok(Inside { sql, wire, log, outside, memo, pids })
}

/// The record and the closing are one transaction: whoever finds the one finds the other.
async fn close(inner: &Inner, role: &mut SourceRole) -> Result<()> {
    let what = "close the database";
    let (name, database) = (ident(role.database.as_str()), literal(role.database.as_str()));
    let tx = inner.store.transaction(what).await?;
    let found = format!("SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = {database}");
    let row = one(&tx, what, &found).await?;
    let saved = Saved { allow: row.flag(0), limit: row.parse(1)? };
    if let Phase::Fencing { saved: slot, .. } = &mut role.phase {
        // A fence that was closed before keeps what it saved then.
        if slot.is_empty() {
            *slot = serde_json::to_string(&saved).map_err(|error| Error::Internal(format!("encode: {error}")))?;
        }
    }
    tx.put_role(&role.operation, role).await?;
    let close = format!("ALTER DATABASE {name} CONNECTION LIMIT 0; ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    tx.run(what, &close).await?;
    tx.commit().await
}

/// Opens it again, and records `next` in the same transaction. A database that is gone needs no opening.
pub(super) async fn open(inner: &Inner, sql: &Sql, role: &SourceRole, next: Option<&SourceRole>) -> Result<()> {
    let what = "open the database again";
    let saved = match &role.phase {
        Phase::Fencing { saved, .. } | Phase::Fenced { saved, .. } | Phase::CleaningUp { saved } => saved.as_str(),
        Phase::Replicating | Phase::Releasing { .. } | Phase::Released { .. } => "",
    };
    let there = instance::is_there(sql, role).await?;
    let tx = inner.store.transaction(what).await?;
    if let Some(next) = next {
        tx.put_role(&next.operation, next).await?;
    }
    if !saved.is_empty() && there {
        let saved: Saved =
            serde_json::from_str(saved).map_err(|_| Error::Corrupt("what a fence saved cannot be read".to_owned()))?;
        let name = ident(role.database.as_str());
        let Saved { allow, limit } = saved;
        let open =
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}; ALTER DATABASE {name} CONNECTION LIMIT {limit}");
        tx.run(what, &open).await?;
    }
    tx.commit().await
}

/// Ends everybody who is in, but us.
async fn empty(inner: &Inner, role: &SourceRole, inside: &Inside, grace: Duration, steps: &mut Steps) -> Result<()> {
    let what = "end the sessions of the database";
    let oid =
        instance::oid(&role.incarnation).ok_or_else(|| Error::Corrupt("an incarnation without an OID".to_owned()))?;
    let sql = &inside.outside;
    logins(sql, oid).await?;
    steps.done("logins");
    let ours: Vec<String> = inside.pids.iter().map(i32::to_string).collect();
    // An autovacuum worker writes nothing of its own and ends by itself.
    let others = format!(
        "FROM pg_stat_activity WHERE datid = {oid} AND pid NOT IN ({}) AND backend_type <> 'autovacuum worker'",
        ours.join(", ")
    );
    let prepared = format!(
        "SELECT count(*), min(gid) FROM pg_prepared_xacts WHERE database = {}",
        literal(role.database.as_str())
    );
    let (patient, last) = (Instant::now() + grace, Instant::now() + grace + inner.limits.end_wait);
    let row = loop {
        // Whoever is between two transactions loses least; the others have the grace to come to their end.
        let now = Instant::now();
        let whom = if now < patient { " AND state = 'idle' AND backend_type = 'client backend'" } else { "" };
        rows(sql, what, &format!("SELECT pg_terminate_backend(pid) {others}{whom}")).await?;
        let others = format!("SELECT pid, backend_type, application_name {others}");
        // Asked together, in this order: once nobody is there, clients wait.
        let (left, row) = tokio::join!(biased;
            rows(sql, what, &others),
            one(sql, "look for prepared transactions", &prepared),
        );
        let (left, prepared) = (left?, row?);
        let Some(row) = left.first() else { break prepared };
        if now >= last {
            let (pid, kind, application) = (row.text(0), row.text(1), row.text(2));
            return Err(Error::Busy(format!("the {kind} with process {pid} ({application:?}) cannot be ended")));
        }
        tokio::time::sleep(LOOK).await;
    };
    steps.done("sessions");
    match row.text(0) {
        "0" => Ok(()),
        count => Err(Error::Busy(format!("{count} transactions are prepared, {:?} among them", row.text(1)))),
    }
}

/// A process that is just logging in has passed the check, holds a lock on the database, and cannot be seen as a session yet.
async fn logins(sql: &Sql, oid: u32) -> Result<()> {
    let query = format!(
        "SELECT l.pid FROM pg_locks l WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.objid = {oid}
           AND l.granted AND l.pid <> pg_backend_pid()
           AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.datid = {oid})"
    );
    let until = Instant::now() + LOGIN_TIME_MAX;
    loop {
        let left = rows(sql, "wait for sessions that are logging in", &query).await?;
        let Some(row) = left.first() else { return Ok(()) };
        if Instant::now() >= until {
            return Err(Error::Busy(format!("process {} is logging in and does not come to an end", row.text(0))));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Finds the position: nothing of this database commits behind the marker, so the log's end after its commit is one.
async fn mark(inner: &Inner, stream: &Arc<Stream>, role: &SourceRole, attempt: Attempt, inside: Inside) -> Result<Lsn> {
    let Inside { sql, wire, log, memo, .. } = inside;
    // From here on nothing may be given that lies behind a position which is not known yet.
    stream.gate.send_replace(Gate::Hold);
    let token = token(inner, role, attempt);
    let (emitted, ours) = tokio::join!(emit(&sql, MESSAGE, &token), inner.store.check());
    let (content, end) = emitted?;
    ours?;
    let marker = Arc::new(Marker::new(end, Sessions { sql, wire }, memo, stream.known()));
    stream.read_ahead(&marker).await?;
    stream.set_marker(Some(marker));
    tokio::spawn(async move {
        // The log is read up to the marker as it is asked for; then it is known that nothing follows.
        match log.wait_marker(MESSAGE, content.as_bytes()).await {
            Ok(_) => log.note_end(end),
            Err(error) => tracing::debug!(%error, "wait for the marker of a fence"),
        }
    });
    stream.gate.send_replace(Gate::Until(end));
    Ok(end)
}

/// What tells one marker from another.
pub(super) fn token(inner: &Inner, role: &SourceRole, attempt: Attempt) -> String {
    format!("{} {attempt} {}", role.operation, inner.host.now_ms())
}

/// Writes a marker into the log, durably; answers it and the end of the log after it.
pub(super) async fn emit(sql: &Sql, prefix: &str, content: &str) -> Result<(String, Lsn)> {
    let what = "write a marker into the log";
    // One that is not committed synchronously is sent only when something else is.
    let emit = format!(
        "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, {}, {}); COMMIT",
        literal(prefix),
        literal(content)
    );
    // Not where the log is being written: what others have not flushed yet goes with a crash of the server, which then writes
    // other changes at the same positions, and the destination would take those for changes that it has.
    let (emitted, end) =
        tokio::join!(biased; sql.run(what, &emit), one(sql, what, "SELECT pg_current_wal_flush_lsn()"));
    emitted?;
    Ok((content.to_owned(), end?.parse(0)?))
}
