//! The disk of the server, where the agent can see it.

use super::{
    config::PostgresConfig,
    sql::{Sql, failed},
};
use crate::Result;
use std::path::PathBuf;
use tokio_postgres::config::Host;

/// Where the server keeps its data, if that is on this machine. It may be out of sight all the same, as with a server in a
/// container or of another account.
pub(super) async fn data_directory(config: &PostgresConfig, sql: &Sql) -> Result<Option<PathBuf>> {
    if !is_local(config) {
        return Ok(None);
    }
    // Read in this way it is missing, and no error, for a role that may not see it.
    let row = sql.query_opt("SELECT setting FROM pg_settings WHERE name = 'data_directory'", &[]).await;
    let row = row.map_err(|error| failed("ask where the data are", &error))?;
    Ok(row.map(|row| PathBuf::from(row.get::<_, String>(0))))
}

/// Whether the server runs on this machine.
fn is_local(config: &PostgresConfig) -> bool {
    let server = config.server();
    let hosts = server.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    });
    hosts && server.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::config::Setup;

    #[test]
    fn only_a_local_server_is_looked_at() {
        let local = |dsn: &str| is_local(&PostgresConfig::new(Setup::new(dsn)).expect("a good one"));
        assert!(local("host=127.0.0.1 user=u"));
        assert!(local("host=/run/postgresql user=u"));
        assert!(local("host=localhost user=u"));
        assert!(!local("host=db.example user=u"));
        assert!(!local("host=db.example hostaddr=10.0.0.1 user=u"));
    }
}
