//! Taking the lock of a half, keeping it, and ending the sessions of the one who had it before.

use super::{
    super::{
        refused,
        sql::{APPLICATION, Sql, failed},
    },
    Store, ensure_tables,
};
use crate::{Error, Result};
use handover::Epoch;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The first key of our advisory locks, `caws` as a number; the second is 1 for the source half, 2 for the destination's and 3
/// for making the tables.
const LOCK_CLASS: i32 = 1_667_331_955;

/// A server that is not there yet, as when a machine starts, is waited for; this often it is said.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Sessions that are told to end do so within milliseconds, unless the machine is overloaded.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// A holder that somebody waits for: its session's process, when that was last used by its own clock, and since when by ours.
#[derive(Clone, PartialEq)]
struct Holder {
    pid: i32,
    used: Option<String>,
}

pub(super) async fn take_over(store: &Store) -> Result<Epoch> {
    if store.epoch().is_ok() {
        return store.check().await;
    }
    let takeover_after = store.config.setup().takeover_after;
    // Often enough that waiting costs little more than the take-over time itself.
    let pause = (takeover_after / 40).clamp(Duration::from_millis(5), Duration::from_millis(250));
    let mut watch: Option<(Holder, Instant)> = None;
    let mut said: Option<Instant> = None;
    let mut session = None;
    loop {
        match attempt(store, &mut session, &mut watch, takeover_after).await {
            Ok(Some(epoch)) => return Ok(epoch),
            Ok(None) => {}
            Err(error) if error.retryable() => {
                session = None;
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    tracing::warn!(%error, "wait for the server to take the lock of the instance");
                    said = Some(Instant::now());
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
    }
}

/// One try: the lock, or what to go on watching.
async fn attempt(
    store: &Store,
    session: &mut Option<Sql>,
    watch: &mut Option<(Holder, Instant)>,
    takeover_after: Duration,
) -> Result<Option<Epoch>> {
    let sql = match session.take() {
        Some(sql) => sql,
        None => {
            // Not by the name of the half: who takes over ends the sessions that have it.
            let sql = Sql::connect_first(&store.config, store.config.maintenance(), "waiting").await?;
            ensure_tables(&sql).await.map_err(refused::without_rights)?;
            sql
        }
    };
    if try_lock(store, &sql).await? {
        return Ok(Some(claim(store, sql).await?));
    }
    if let Some(holder) = holder(store, &sql).await? {
        match watch {
            Some((known, since)) if *known == holder => {
                if since.elapsed() >= takeover_after {
                    tracing::warn!(pid = holder.pid, "taking over from an agent that gives no sign of life");
                    let end = "SELECT pg_terminate_backend($1)";
                    sql.query(end, &[&holder.pid])
                        .await
                        .map_err(|error| failed("end the session of the agent before", &error))?;
                }
            }
            _ => *watch = Some((holder, Instant::now())),
        }
    }
    *session = Some(sql);
    Ok(None)
}

fn second_key(store: &Store) -> i32 {
    match store.half {
        super::Half::Source => 1,
        super::Half::Dest => 2,
    }
}

async fn try_lock(store: &Store, sql: &Sql) -> Result<bool> {
    let row = sql.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK_CLASS, &second_key(store)]).await;
    row.map(|row| row.get(0)).map_err(|error| failed("try the lock of the instance", &error))
}

async fn holder(store: &Store, sql: &Sql) -> Result<Option<Holder>> {
    // The keys of an advisory lock are shown as OIDs, which are unsigned.
    let row = sql
        .query_opt(
            "SELECT l.pid, a.query_start::text FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
             WHERE l.locktype = 'advisory' AND l.classid = $1::int8::oid AND l.objid = $2::int8::oid AND l.objsubid = 2
               AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[&i64::from(LOCK_CLASS), &i64::from(second_key(store))],
        )
        .await
        .map_err(|error| failed("look who holds the lock of the instance", &error))?;
    Ok(row.map(|row| Holder { pid: row.get(0), used: row.get(1) }))
}

/// With the advisory lock held: ends what the one before left, and raises the epoch.
async fn claim(store: &Store, sql: Sql) -> Result<Epoch> {
    let what = "take the lock of the instance over";
    let half = store.half.as_str();
    let pid = own_session(store, &sql).await?;
    // Sessions of a stopped agent may hold the very row; those that it opens meanwhile, not knowing yet, go afterwards.
    end_sessions(store, &sql, pid).await?;
    let holder = format!("process {}", std::process::id());
    let row = sql
        .query_one(
            "UPDATE causeway.lock SET epoch = epoch + 1, taken = clock_timestamp(),
                 holder = concat_ws(' ', $2::text, 'at ' || host(inet_client_addr()))
             WHERE half = $1 RETURNING epoch",
            &[&half, &holder],
        )
        .await
        .map_err(|error| failed(what, &error))?;
    end_sessions(store, &sql, pid).await?;
    let epoch = Epoch(row.get::<_, i64>(0).cast_unsigned());
    let mut state = store.state();
    (state.epoch, state.lock, state.lock_pid) = (Some(epoch), Some(Arc::new(sql)), Some(pid));
    Ok(epoch)
}

/// Marks a session as the one with the lock; answers its process.
async fn own_session(store: &Store, sql: &Sql) -> Result<i32> {
    let what = "name the session that holds the lock";
    let name = format!("{APPLICATION} {} lock", store.half.as_str());
    let named = sql.query_one("SELECT set_config('application_name', $1, false), pg_backend_pid()", &[&name]).await;
    let pid = named.map_err(|error| failed(what, &error))?.get(1);
    // Signs of life are read from pg_stat_activity. Who may not set this has to rely on the server's own setting.
    if let Err(error) = sql.run(what, "SET track_activities = on").await {
        tracing::debug!(%error, "leave track_activities as it is");
    }
    Ok(pid)
}

/// Ends all sessions of this half but the one with the lock, and waits until they are gone.
async fn end_sessions(store: &Store, sql: &Sql, own: i32) -> Result<()> {
    let prefix = format!("{APPLICATION} {} ", store.half.as_str());
    let until = Instant::now() + END_TIME_MAX;
    loop {
        let left = sql
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE starts_with(application_name, $1) AND pid <> $2",
                &[&prefix, &own],
            )
            .await
            .map_err(|error| failed("end the sessions of the agent before", &error))?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Error::Busy("sessions of the agent before do not end".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One sign of life.
pub(super) async fn beat(store: &Store) -> Result<()> {
    let ours = store.epoch()?;
    let lock = store.state().lock.clone();
    if let Some(sql) = lock.filter(|sql| !sql.is_closed()) {
        match epoch_of(store, &sql).await {
            Ok(epoch) if epoch == ours => return Ok(()),
            Ok(newer) => return Err(Error::Superseded { ours: ours.0, newer: newer.0 }),
            Err(error) if error.retryable() => {}
            Err(error) => return Err(error),
        }
    }
    store.state().lock = None;
    lock_again(store, ours).await
}

async fn epoch_of(store: &Store, sql: &Sql) -> Result<Epoch> {
    let row = sql
        .query_opt("SELECT epoch FROM causeway.lock WHERE half = $1", &[&store.half.as_str()])
        .await
        .map_err(|error| failed("read the epoch", &error))?;
    let row = row.ok_or_else(|| Error::Corrupt("the lock row of this half is gone".to_owned()))?;
    Ok(Epoch(row.get::<_, i64>(0).cast_unsigned()))
}

/// The session that held the lock is gone, and the server restarted perhaps: take the lock again if the epoch is still ours.
async fn lock_again(store: &Store, ours: Epoch) -> Result<()> {
    let sql = Sql::connect(&store.config, store.config.maintenance(), "waiting").await?;
    let superseded = |newer: Epoch| Err(Error::Superseded { ours: ours.0, newer: newer.0 });
    let before = epoch_of(store, &sql).await?;
    if before != ours {
        return superseded(before);
    }
    if !try_lock(store, &sql).await? {
        // Our own session before, of which the server does not know yet that it is cut off; or another agent that is about
        // to raise the epoch.
        let known = store.state().lock_pid;
        if let (Some(holder), Some(known)) = (holder(store, &sql).await?, known)
            && holder.pid == known
        {
            let end = sql.query("SELECT pg_terminate_backend($1)", &[&known]).await;
            end.map_err(|error| failed("end our own session that was cut off", &error))?;
        }
        return Err(Error::Busy("the lock of the instance is held by another session".to_owned()));
    }
    let after = epoch_of(store, &sql).await?;
    if after != ours {
        return superseded(after);
    }
    let pid = own_session(store, &sql).await?;
    let mut state = store.state();
    (state.lock, state.lock_pid) = (Some(Arc::new(sql)), Some(pid));
    Ok(())
}
