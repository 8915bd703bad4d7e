//! From a connection string to a session: dialling, TLS, authentication.

use super::{
    broken,
    channel::{Channel, Frame},
    failure::ServerError,
    stream::Stream,
};
use crate::{
    Error, Result,
    postgres::{config::PostgresConfig, refused, sql::application_name},
};
use bytes::{Buf as _, BytesMut};
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::frontend,
};
use std::{io, net::IpAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};
use tokio_postgres::config::{ChannelBinding as Binding, Host, SslMode};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

const WHAT: &str = "connect to the server";

/// What authentication leaves.
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) backend_pid: i32,
    pub(super) sql_ascii: bool,
}

/// Connects to the first host that answers, and logs in.
pub(super) async fn open(config: &PostgresConfig, database: &str, purpose: &str, replication: bool) -> Result<Session> {
    let server = config.server();
    let mut failed = None;
    for (n, host) in server.get_hosts().iter().enumerate() {
        let port = server.get_ports().get(n).or(server.get_ports().first()).copied().unwrap_or(5432);
        let address = server.get_hostaddrs().get(n).copied();
        match dial(config, host, address, port).await {
            Ok(stream) => return log_in(config, Channel::new(stream), database, purpose, replication).await,
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::Internal("a connection string without a host".to_owned())))
}

async fn dial(config: &PostgresConfig, host: &Host, address: Option<IpAddr>, port: u16) -> Result<Stream> {
    let failed = |error| Error::io(WHAT, error);
    let name = match host {
        Host::Unix(directory) => {
            let socket = Path::new(directory).join(format!(".s.PGSQL.{port}"));
            return Ok(Stream::Unix(UnixStream::connect(socket).await.map_err(failed)?));
        }
        Host::Tcp(name) => name,
    };
    let stream = match address {
        Some(address) => TcpStream::connect((address, port)).await,
        None => TcpStream::connect((name.as_str(), port)).await,
    };
    let stream = stream.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    // A peer whose machine is gone never says so.
    let keepalive =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(failed)?;
    encrypt(config, name, stream).await
}

async fn encrypt(config: &PostgresConfig, host: &str, mut stream: TcpStream) -> Result<Stream> {
    let Some(tls) = config.tls() else { return Ok(Stream::Tcp(stream)) };
    let failed = |error| Error::io("begin TLS with the server", error);
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(failed)?;
    // One byte and no more: what a man in the middle puts behind it must not pass for something that came through TLS.
    match (stream.read_u8().await.map_err(failed)?, config.server().get_ssl_mode()) {
        (b'S', _) => {}
        (_, SslMode::Prefer) => return Ok(Stream::Tcp(stream)),
        _ => {
            return Err(refused::no_tls());
        }
    }
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(failed)?;
    Ok(Stream::Tls(Box::new(stream)))
}

async fn log_in(
    config: &PostgresConfig,
    mut channel: Channel,
    database: &str,
    purpose: &str,
    replication: bool,
) -> Result<Session> {
    let server = config.server();
    let user = server.get_user().unwrap_or_default();
    let application = application_name(purpose);
    let mut parameters =
        vec![("user", user), ("database", database), ("application_name", &application), ("client_encoding", "UTF8")];
    if let Some(options) = server.get_options() {
        parameters.push(("options", options));
    }
    if replication {
        parameters.push(("replication", "database"));
    }
    frontend::startup_message(parameters, channel.out()).map_err(|error| Error::io(WHAT, error))?;
    channel.send(WHAT).await?;
    authenticate(config, &mut channel, user).await?;
    greeting(channel).await
}

async fn authenticate(config: &PostgresConfig, channel: &mut Channel, user: &str) -> Result<()> {
    loop {
        let mut body = authentication_request(channel).await?.body;
        let kind = body.try_get_u32().map_err(|_| broken(WHAT, "an authentication request is cut off"))?;
        match kind {
            0 => return Ok(()),
            3 => {
                let password = password(config)?.to_vec();
                answer(channel, |out| frontend::password_message(&password, out)).await?;
            }
            5 => {
                let salt = *body.first_chunk::<4>().ok_or_else(|| broken(WHAT, "a salt is cut off"))?;
                let hash = md5_hash(user.as_bytes(), password(config)?, salt);
                answer(channel, |out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            10 => scram(config, channel, &body).await?,
            _ => {
                return Err(refused::no_login(
                    "the server asks for an authentication that is not supported (GSSAPI, SSPI, ...)",
                ));
            }
        }
    }
}

async fn scram(config: &PostgresConfig, channel: &mut Channel, mechanisms: &[u8]) -> Result<()> {
    let offers = |name: &str| mechanisms.split(|byte| *byte == 0).any(|offer| offer == name.as_bytes());
    let wanted = config.server().get_channel_binding();
    let binding = channel.certificate_hash().filter(|_| wanted != Binding::Disable);
    if wanted == Binding::Require && !(binding.is_some() && offers(SCRAM_SHA_256_PLUS)) {
        return Err(refused::no_login("channel_binding=require, and the server or its certificate does not allow it"));
    }
    let (mechanism, binding) = match binding {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
        // The server would notice that somebody struck its offer out.
        Some(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => return Err(refused::no_login("the server offers no SASL mechanism but ones that are not supported")),
    };
    let failed = |error| Error::io("log in by SCRAM", error);
    let mut scram = ScramSha256::new(password(config)?, binding);
    answer(channel, |out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
    scram.update(&sasl(channel, 11).await?).map_err(failed)?;
    answer(channel, |out| frontend::sasl_response(scram.message(), out)).await?;
    scram.finish(&sasl(channel, 12).await?).map_err(failed)
}

async fn sasl(channel: &mut Channel, expected: u32) -> Result<bytes::Bytes> {
    let mut body = authentication_request(channel).await?.body;
    match body.try_get_u32() {
        Ok(kind) if kind == expected => Ok(body),
        _ => Err(broken(WHAT, "SCRAM out of order")),
    }
}

async fn answer(channel: &mut Channel, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<()> {
    write(channel.out()).map_err(|error| Error::io(WHAT, error))?;
    channel.send(WHAT).await
}

async fn authentication_request(channel: &mut Channel) -> Result<Frame> {
    let frame = channel.frame(WHAT).await?;
    match frame.tag {
        b'R' => Ok(frame),
        b'E' => Err(ServerError::read(&frame.body).into_error(WHAT)),
        // A newer server may offer less than we asked for; we ask for 3.0.
        _ => Err(broken(WHAT, "no authentication request")),
    }
}

/// Reads what follows a successful login, up to the first prompt.
async fn greeting(mut channel: Channel) -> Result<Session> {
    let (mut backend_pid, mut sql_ascii) = (0, false);
    loop {
        let mut frame = channel.any_frame(WHAT).await?;
        match frame.tag {
            b'K' => backend_pid = frame.body.try_get_i32().map_err(|_| broken(WHAT, "a key is cut off"))?,
            b'S' => sql_ascii |= *frame.body == *b"server_encoding\0SQL_ASCII\0",
            b'E' => return Err(ServerError::read(&frame.body).into_error(WHAT)),
            b'Z' => return Ok(Session { channel, backend_pid, sql_ascii }),
            _ => {}
        }
    }
}

fn password(config: &PostgresConfig) -> Result<&[u8]> {
    config
        .server()
        .get_password()
        .ok_or_else(|| refused::no_login("the server asks for a password and none is configured"))
}
