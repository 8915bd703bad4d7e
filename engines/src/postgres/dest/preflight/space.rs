//! Whether the database fits on the destination's disk, where that can be seen.

use super::{super::memo::Memo, Shared, error, warning};
use crate::{
    Result,
    postgres::{
        config::PostgresConfig,
        payload::Requirements,
        sql::{Sql, failed},
    },
};
use handover::{Finding, OperationId};
use std::path::Path;
use tokio_postgres::config::Host;

/// WAL of the load, sorting for indexes and the log that is applied need room besides the data: a quarter of them at least.
const RESERVE_SHARE: u64 = 4;
const RESERVE_MIN: u64 = 256 << 20;

pub(super) async fn judge(
    shared: &Shared,
    sql: &Sql,
    wanted: &Requirements,
    operation: Option<&OperationId>,
) -> Result<Option<Finding>> {
    let row = sql.query_one("SELECT current_setting('data_directory')", &[]).await;
    let directory: String = row.map_err(|error| failed("ask where the data are", &error))?.get(0);
    let needed = wanted.size_bytes.saturating_add((wanted.size_bytes / RESERVE_SHARE).max(RESERVE_MIN));
    let free = match local(&shared.config) {
        true => free_bytes(Path::new(&directory)),
        false => None,
    };
    let Some(free) = free else {
        let message = format!(
            "the free space of the destination's disk cannot be seen from its agent; about {} MiB are needed",
            needed.div_ceil(1 << 20)
        );
        return Ok(Some(warning("SPACE_NOT_CHECKED", message, "make sure that the disk has room")));
    };
    let held = held_bytes(shared, sql, operation).await?;
    if free.saturating_add(held) >= needed {
        return Ok(None);
    }
    let message = format!(
        "the destination's disk has {} MiB free, about {} MiB are needed with indexes and log",
        free >> 20,
        needed.div_ceil(1 << 20)
    );
    Ok(Some(error("NO_SPACE", message, "free space on the destination's disk")))
}

/// What the operation's own replica takes already.
async fn held_bytes(shared: &Shared, sql: &Sql, operation: Option<&OperationId>) -> Result<u64> {
    let Some(operation) = operation else { return Ok(0) };
    let memo: Option<Memo> = shared.store.memo(operation).await?;
    let Some(oid) = memo.and_then(|memo| memo.oid) else { return Ok(0) };
    let size = "SELECT pg_database_size(oid) FROM pg_database WHERE oid = $1";
    let row = sql.query_opt(size, &[&oid]).await.map_err(|error| failed("measure the replica", &error))?;
    Ok(row.and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok()).unwrap_or(0))
}

/// Whether the server runs on this machine.
fn local(config: &PostgresConfig) -> bool {
    let server = config.server();
    let hosts = server.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    });
    hosts && server.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

/// Free bytes of the file system below a path; nothing where the path cannot be seen, as with a server in a container.
fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::config::Setup;

    #[test]
    fn only_a_local_server_is_looked_at() {
        let local = |dsn: &str| local(&PostgresConfig::new(Setup::new(dsn)).expect("a good one"));
        assert!(local("host=127.0.0.1 user=u"));
        assert!(local("host=/run/postgresql user=u"));
        assert!(local("host=localhost user=u"));
        assert!(!local("host=db.example user=u"));
        assert!(!local("host=db.example hostaddr=10.0.0.1 user=u"));
    }

    #[test]
    fn a_path_that_is_not_there_has_no_space() {
        assert!(free_bytes(Path::new("/")).is_some_and(|free| free > 0));
        assert_eq!(free_bytes(Path::new("/nowhere/at/all")), None);
    }
}
