//! The flags every Causeway server has, and what follows from them.

use std::path::PathBuf;

use super::Error;
use crate::env::Env;
use crate::telemetry::{self, LogFormat};
use crate::tls::{Tls, TlsFiles};

/// Flags shared by coordinator and agents. Flatten it into a program's own arguments with `#[command(flatten)]`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct CommonArgs {
    /// TOML file with defaults for these options: its keys are their long names, with `_` for `-`
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CONFIG")]
    pub config: Option<PathBuf>,

    /// Address to listen at, as host:port; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", env = "CAUSEWAY_LISTEN", default_value = "127.0.0.1:0")]
    pub listen: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub tls: TlsArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub log: LogArgs,
}

/// Flags about certificates, for servers and clients.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// PEM file of the authorities whose certificates are accepted of the other side
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CA")]
    pub ca: Option<PathBuf>,

    /// PEM file of this process's certificate
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CERT")]
    pub cert: Option<PathBuf>,

    /// PEM file of the certificate's private key
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_KEY")]
    pub key: Option<PathBuf>,

    /// PEM file of certificate revocation lists: what they revoke is refused; looked at again while the process runs
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CRL")]
    pub crl: Option<PathBuf>,

    /// No TLS and no identities: plain text, on loopback addresses only
    #[arg(long, env = "CAUSEWAY_INSECURE", value_parser = clap::builder::BoolishValueParser::new())]
    pub insecure: bool,
}

/// Flags about logging.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// error, warn, info, debug or trace, or per part as in warn,causeway_service=debug
    #[arg(long, value_name = "LEVEL", env = "CAUSEWAY_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// Form of the log lines on standard error
    #[arg(long, value_name = "FORM", env = "CAUSEWAY_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl TlsArgs {
    /// The certificates, or nothing for `--insecure`. Neither or half of both is an error.
    pub fn files(&self) -> Result<Option<TlsFiles>, Error> {
        match (&self.ca, &self.cert, &self.key) {
            (Some(ca), Some(cert), Some(key)) if !self.insecure => {
                Ok(Some(TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone(), crl: self.crl.clone() }))
            }
            (None, None, None) if self.insecure && self.crl.is_none() => Ok(None),
            _ if self.insecure => Err(Error::Security("--insecure and certificates exclude each other: drop one")),
            (None, None, None) => Err(Error::Security(
                "no certificates given: give --ca, --cert and --key (`causeway certs` makes some for development), \
                 or --insecure for plain text on loopback",
            )),
            _ => Err(Error::Security("certificates are incomplete: give all of --ca, --cert and --key")),
        }
    }

    /// TLS from the files, or nothing for `--insecure`.
    pub async fn load(&self, env: &Env) -> Result<Option<Tls>, Error> {
        match self.files()? {
            Some(files) => Ok(Some(Tls::load(env, files).await?)),
            None => Ok(None),
        }
    }
}

impl LogArgs {
    /// Start logging.
    pub fn init(&self) -> Result<(), telemetry::Error> {
        telemetry::init(&self.log_level, self.log_format)
    }
}
