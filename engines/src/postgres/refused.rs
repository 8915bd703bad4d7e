//! Why a server will not have an agent, as long as nobody mends it: login, rights, certificates.

use super::{config::chain, states};
use crate::Error;
use tokio_rustls::rustls;

/// A first connection that no waiting mends; nothing if the server may just not be there yet.
pub(crate) fn for_good(database: &str, error: &tokio_postgres::Error) -> Option<Error> {
    let Some(db) = error.as_db_error() else { return before_login(error) };
    let told = |what: &str| format!("{what}: {} (SQLSTATE {})", db.message(), db.code().code());
    match db.code().code() {
        "28P01" | "28000" => Some(no_login(told("the server refuses the login"))),
        "3D000" => Some(unsupported(
            "POSTGRES_CONFIG",
            told("the maintenance database is missing"),
            &format!("create database {database:?}, or name another one by dbname=... in --postgres"),
        )),
        _ => None,
    }
}

/// What the driver says by itself has no codes.
fn before_login(error: &tokio_postgres::Error) -> Option<Error> {
    let text = chain(error);
    if text.contains("password missing") {
        return Some(no_login("the server asks for a password, and there is none"));
    }
    if text.contains("server does not support TLS") {
        return Some(no_tls());
    }
    not_trusted(error).then(|| {
        unsupported(
            "POSTGRES_TLS",
            format!("the server's certificate is not accepted: {text}"),
            "give the authority that made it by --postgres-ca, and as host a name that stands in it",
        )
    })
}

/// Whether TLS ended because of the server's certificate, and not because the server went away.
fn not_trusted(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // An IO error does not count what it wraps among its sources.
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let found: Option<&rustls::Error> = inner.map_or_else(|| error.downcast_ref(), |inner| inner.downcast_ref());
        if matches!(found, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The server lets the agent in, but not do what it has to; anything else stays as it is.
pub(crate) fn without_rights(error: Error) -> Error {
    if states::is_one_of(&error, &["42501"]) {
        let remedy = "give the agents a role as docs/postgres-rights.sql makes it";
        return unsupported("RIGHTS", format!("the agents' role lacks rights: {error}"), remedy);
    }
    if states::is_one_of(&error, &["25006"]) {
        let remedy = "run the agents beside the primary, or promote this server";
        return unsupported("STANDBY", format!("the server takes no writes: {error}"), remedy);
    }
    error
}

/// `sslmode=require`, and the server does not speak TLS.
pub(crate) fn no_tls() -> Error {
    unsupported(
        "POSTGRES_TLS",
        "the server does not speak TLS, and sslmode=require asks for it".to_owned(),
        "switch ssl on in postgresql.conf, or give sslmode=disable on a trusted path",
    )
}

/// The login fails, on whosever side.
pub(crate) fn no_login(message: impl Into<String>) -> Error {
    let remedy = "check the user in --postgres, its password (--postgres-password-file or PGPASSWORD), and pg_hba.conf";
    unsupported("POSTGRES_LOGIN", message.into(), remedy)
}

fn unsupported(code: &'static str, message: String, remedy: &str) -> Error {
    Error::Unsupported { code, message, remedy: remedy.to_owned() }
}
