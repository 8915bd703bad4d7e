//! What the server has to offer: version, settings, slots, rights, and `pg_dump` beside the agent.

use super::{Inner, Subject, budget, error, warning};
use crate::{
    Result,
    postgres::{
        rows::{Row, one, rows},
        sql::{Sql, literal},
    },
};
use handover::{Finding, Kind};

/// The oldest server: logical decoding, event triggers and DROP DATABASE ... FORCE are as they are needed from there on.
const VERSION_MIN: u32 = 130_000;

/// A transaction that writes for longer may hold up the beginning of an operation.
const LONG_S: u32 = 5;

/// Roles that managed services give in place of a superuser.
const MANAGED: &str = "{rds_superuser,cloudsqlsuperuser,azure_pg_admin,alloydbsuperuser}";

/// Examines it; answers its version.
pub(super) async fn examine(
    inner: &Inner,
    sql: &Sql,
    subject: &Subject<'_>,
    findings: &mut Vec<Finding>,
) -> Result<u32> {
    let row = one(sql, "read the settings of the server", &settings(subject)).await?;
    let version: u32 = row.parse(0)?;
    if version < VERSION_MIN {
        findings.push(error(
            "VERSION_TOO_OLD",
            format!("the server has version {}, the oldest that can be a source is 13", version / 10_000),
            "upgrade it, or move the database with pg_dump",
        ));
    }
    if row.flag(1) {
        findings.push(error(
            "STANDBY",
            "the server is a standby".to_owned(),
            "run the agents beside the primary, or promote this server",
        ));
    }
    let budget = budget::judge(inner, sql, findings).await?;
    logging(&row, budget, subject, findings)?;
    rights(&row, findings);
    pg_dump(inner, version, findings).await;
    transactions(sql, findings).await?;
    Ok(version)
}

fn settings(subject: &Subject<'_>) -> String {
    let own = literal(subject.slot.as_deref().unwrap_or(""));
    format!(
        "SELECT current_setting('server_version_num'), pg_is_in_recovery(), current_setting('wal_level'),
            current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots
                WHERE slot_name <> {own} AND NOT (temporary AND starts_with(slot_name, 'causeway_'))),
            current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'
                AND application_name <> 'causeway source log'),
            (SELECT setting::bigint * 1024 * 1024 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
            current_setting('max_prepared_transactions')::int, r.rolsuper, r.rolname, r.rolreplication,
            (SELECT string_agg(m.rolname, ', ') FROM pg_roles m WHERE m.rolname = ANY ('{MANAGED}')
                AND pg_has_role(r.rolname, m.oid, 'member'))
         FROM pg_roles r WHERE r.rolname = current_user"
    )
}

fn logging(row: &Row, budget: u64, subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    if row.text(2) != "logical" {
        findings.push(error(
            "WAL_LEVEL",
            format!("wal_level is {}, so that the log holds too little", row.text(2)),
            "set wal_level = logical and restart the server",
        ));
    }
    // A copy takes a second one for a moment when it is completed.
    let needed = if subject.kind == Kind::Copy { 2 } else { 1 };
    for (column, code, setting) in
        [(3, "NO_FREE_SLOT", "max_replication_slots"), (4, "NO_FREE_SENDER", "max_wal_senders")]
    {
        let free: i64 = row.parse(column)?;
        if free < needed {
            findings.push(error(
                code,
                format!("{} of {setting} are free, the operation needs {needed}", free.max(0)),
                format!("raise {setting} and restart the server, or drop what is not used"),
            ));
        }
    }
    match u64::try_from(row.parse::<i64>(5)?) {
        Err(_) => findings.push(warning(
            "WAL_KEEP_UNLIMITED",
            "max_slot_wal_keep_size is unlimited, so that nothing bounds the retained log while the agent is down"
                .to_owned(),
            "set max_slot_wal_keep_size to what the disk can spare",
        )),
        Ok(keep) if keep < budget => findings.push(warning(
            "WAL_KEEP_SMALL",
            format!(
                "the server gives a slot up that retains more than {keep} bytes, less than the log budget of {budget}"
            ),
            "raise max_slot_wal_keep_size, or keep the destination's outages short",
        )),
        Ok(_) => {}
    }
    if row.text(6) != "0" {
        findings.push(warning(
            "DISTRIBUTED_TRANSACTIONS",
            "max_prepared_transactions is above 0: a transaction that is prepared when the database is fenced hinders it".to_owned(),
            "pause what uses two-phase commit while the operation is completed; its coordinator must learn the new address",
        ));
    }
    Ok(())
}

fn rights(row: &Row, findings: &mut Vec<Finding>) {
    if row.flag(7) {
        return;
    }
    let role = row.text(8);
    match row.maybe(10) {
        Some(managed) => findings.push(warning(
            "RIGHTS_MANAGED",
            format!("{role} is not a superuser but a member of {managed}, with which this was not tried"),
            "try it with a database of no importance first",
        )),
        None => {
            let replication = if row.flag(9) { "" } else { " and has no REPLICATION" };
            findings.push(error(
                "RIGHTS",
                format!("{role} is not a superuser{replication}, which slots, publications of all tables, event triggers and a fence need"),
                format!("ALTER ROLE {role} SUPERUSER, or give the agents another role"),
            ));
        }
    }
}

/// `pg_dump` reads servers of its own version and older ones.
async fn pg_dump(inner: &Inner, version: u32, findings: &mut Vec<Finding>) {
    let path = &inner.config.setup().pg_dump;
    let said = tokio::process::Command::new(path).arg("--version").kill_on_drop(true).output().await;
    let found = said.ok().and_then(|said| {
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        // "pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"; a beta has no dot.
        let number = said.split_whitespace().nth(2)?.split(|c: char| !c.is_ascii_digit()).next()?.to_owned();
        number.parse::<u32>().ok()
    });
    let remedy =
        format!("install the client programs of PostgreSQL {} or newer beside the source agent", version / 10_000);
    match found {
        None => findings.push(error("PG_DUMP", format!("{} cannot be run", path.display()), remedy)),
        Some(major) if major < version / 10_000 => findings.push(error(
            "PG_DUMP_TOO_OLD",
            format!("{} has version {major}, the server {}", path.display(), version / 10_000),
            remedy,
        )),
        Some(_) => {}
    }
}

/// The slot cannot be created before everybody who is writing now, anywhere, has come to an end.
async fn transactions(sql: &Sql, findings: &mut Vec<Finding>) -> Result<()> {
    let query = format!(
        "SELECT pid, datname, application_name, extract(epoch FROM clock_timestamp() - xact_start)::bigint FROM pg_stat_activity
         WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - interval '{LONG_S} s' AND pid <> pg_backend_pid()
         ORDER BY xact_start LIMIT 5"
    );
    for row in rows(sql, "look for long transactions", &query).await? {
        let (pid, database, application, seconds) = (row.text(0), row.text(1), row.text(2), row.text(3));
        findings.push(warning(
            "LONG_TRANSACTION",
            format!("process {pid} ({application:?} in {database:?}) has been in a transaction that writes for {seconds} s; the operation begins when it has ended"),
            "end that transaction",
        ));
    }
    let prepared =
        "SELECT gid, database FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - interval '5 s' LIMIT 5";
    for row in rows(sql, "look for prepared transactions", prepared).await? {
        findings.push(error(
            "PREPARED_ELSEWHERE",
            format!("a transaction is prepared in {:?}, and no slot can be created while it is", row.text(1)),
            "COMMIT PREPARED or ROLLBACK PREPARED it, then start again",
        ));
    }
    Ok(())
}
