//! The session that keeps the snapshot of a seed, beyond the life of the agent that took it.
//!
//! A server process that is busy with a statement does not notice that its client is gone. So the snapshot is held inside a
//! loop that sleeps, and an agent that starts again finds the process by its application name and imports the snapshot from
//! it. The loop ends by itself once no agent has been seen for a while, so that a dead agent does not hold up vacuum for ever.

use super::{
    super::{
        config::PostgresConfig,
        rows::{one, rows},
        sql::{APPLICATION, Sql, application_name, literal},
        states,
    },
    memo::Slot,
    names::Names,
};
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// A holder that is told to end does so within milliseconds.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// Imports the snapshot that a walsender exported with a new slot, exports it again, and leaves it in a session of its own.
/// Answers what is to be remembered.
pub(super) async fn start(
    config: &PostgresConfig,
    database: &str,
    names: &Names,
    exported: &str,
    start: String,
    quiet: Duration,
) -> Result<Slot> {
    let what = "hold the snapshot of the seed";
    let sql = Sql::connect(config, database, &names.holder).await?;
    // From version 14 on a busy process may be told to look after its client; not this one.
    sql.run(
        what,
        "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'client_connection_check_interval'",
    )
    .await?;
    sql.run(what, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    sql.run(what, &format!("SET TRANSACTION SNAPSHOT {}", literal(exported))).await?;
    let row = one(&sql, what, "SELECT pg_export_snapshot(), pg_snapshot_xmin(pg_current_snapshot())").await?;
    let slot = Slot { start, snapshot: row.owned(0), xmin: row.parse(1)? };
    // What pg_stat_activity shows is kept for the length of a transaction, unless it is cleared.
    let hold = format!(
        "DO $hold$ DECLARE seen timestamptz := clock_timestamp(); BEGIN LOOP
             PERFORM pg_sleep(1);
             PERFORM pg_stat_clear_snapshot();
             IF EXISTS (SELECT FROM pg_stat_activity WHERE starts_with(application_name, {})) THEN
                 seen := clock_timestamp();
             ELSIF clock_timestamp() - seen > interval '{} milliseconds' THEN
                 EXIT;
             END IF;
         END LOOP; END $hold$",
        literal(&format!("{APPLICATION} source ")),
        quiet.as_millis()
    );
    // It ends when the process is ended; then there is nothing to be told.
    tokio::spawn(async move {
        let ended = sql.run("hold the snapshot of the seed", &hold).await;
        tracing::debug!(?ended, "the snapshot of a seed is no longer held");
    });
    Ok(slot)
}

/// Begins a transaction in the held snapshot. [`Error::LogLost`] if it is not held any more: then only a new generation helps.
pub(super) async fn import(sql: &Sql, slot: &Slot) -> Result<()> {
    let what = "take part in the snapshot of the seed";
    sql.run(what, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    match sql.run(what, &import_statement(&slot.snapshot)).await {
        Err(error) if gone(&error) => Err(Error::LogLost("the snapshot of the seed is not held any more".to_owned())),
        other => other,
    }
}

/// The statement that makes a transaction see what the snapshot saw.
pub(super) fn import_statement(snapshot: &str) -> String {
    format!("SET TRANSACTION SNAPSHOT {}", literal(snapshot))
}

/// Whether an import failed because there is no such snapshot (any more): its file is gone (22023, 42704 from version 18 on),
/// or its holder is (55000).
pub(super) fn gone(error: &Error) -> bool {
    states::is_one_of(error, &["22023", "42704", "55000"])
}

/// Ends the holder, if there is one. `sql` is with any database of the instance.
pub(super) async fn end(sql: &tokio_postgres::Client, names: &Names) -> Result<()> {
    let name = literal(&application_name(&names.holder));
    let until = Instant::now() + END_TIME_MAX;
    let terminate = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = {name}");
    while !rows(sql, "end the session that holds the snapshot", &terminate).await?.is_empty() {
        if Instant::now() >= until {
            return Err(Error::Busy("the session that holds the seed's snapshot does not end".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// How many transactions the held snapshot is behind, which vacuum cannot clean; nothing if none is held.
pub(super) async fn age(sql: &tokio_postgres::Client, names: &Names) -> Result<Option<u64>> {
    let name = literal(&application_name(&names.holder));
    let query = format!("SELECT age(backend_xmin) FROM pg_stat_activity WHERE application_name = {name}");
    let found = rows(sql, "look after the held snapshot", &query).await?;
    found.first().filter(|row| row.maybe(0).is_some()).map(|row| row.parse(0)).transpose()
}
