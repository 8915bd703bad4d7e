//! `etcd://host:port,host:port/prefix?option=value`: where an etcd is, and how it is spoken to.

use std::path::PathBuf;
use std::time::Duration;

/// How long a leader that is gone is waited for. Shorter finds out sooner; a pause of the leader that is longer costs it the lead.
const LEASE: Duration = Duration::from_secs(10);
/// How long one request may take at one member.
const LIMIT: Duration = Duration::from_secs(3);
/// Where keys lie if the address does not say.
const PREFIX: &str = "/causeway/";

/// An etcd, and a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAddress {
    /// `host:port` of its members, in the order in which they are tried.
    pub endpoints: Vec<String>,
    /// All keys start with it; it ends with a slash.
    pub prefix: String,
    /// How it is spoken to.
    pub tls: EtcdTls,
    /// How long the lead outlives the last sign of life of who has it.
    pub lease: Duration,
    /// How long one request may take at one member.
    pub limit: Duration,
    /// `host:port` by which the other coordinators reach this one; nothing: where it listens.
    pub advertise: Option<String>,
}

/// How etcd is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdTls {
    /// With the coordinator's own certificate; in plain text if it has none.
    Own,
    /// In plain text, over loopback only.
    Off,
    /// With files of its own; without certificate and key nobody is proven to etcd.
    Files {
        /// The authority of etcd's certificates.
        ca: PathBuf,
        /// Certificate and key.
        own: Option<(PathBuf, PathBuf)>,
    },
}

impl EtcdAddress {
    /// From what follows `etcd://`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (place, options) = text.split_once('?').unwrap_or((text, ""));
        let (members, prefix) = match place.split_once('/') {
            Some((members, prefix)) => (members, format!("/{}/", prefix.trim_matches('/'))),
            None => (place, String::new()),
        };
        let endpoints: Vec<String> = members.split(',').map(str::to_owned).collect();
        if let Some(wrong) = endpoints.iter().find(|endpoint| service::dial::split(endpoint).is_none()) {
            return Err(format!("{wrong:?} is not an address: write etcd://host:port,host:port/prefix"));
        }
        let prefix = if prefix.trim_matches('/').is_empty() { PREFIX.to_owned() } else { prefix };
        let (mut ca, mut cert, mut key, mut off) = (None, None, None, false);
        let (mut lease, mut limit) = (LEASE, LIMIT);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = |least: u64, most: u64| match value.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(format!("{name}={value}: give a number from {least} to {most}")),
            };
            match (name, value) {
                ("ca", file) => ca = Some(PathBuf::from(file)),
                ("cert", file) => cert = Some(PathBuf::from(file)),
                ("key", file) => key = Some(PathBuf::from(file)),
                ("tls", "off") => off = true,
                ("lease_seconds", _) => lease = Duration::from_secs(number(2, 600)?),
                ("timeout_ms", _) => limit = Duration::from_millis(number(100, 60_000)?),
                _ => {
                    return Err(format!(
                        "{option:?} is no option of an etcd store: give ca=, cert=, key=, tls=off, lease_seconds= or timeout_ms="
                    ));
                }
            }
        }
        let tls = match (off, ca, cert, key) {
            (true, None, None, None) => EtcdTls::Off,
            (false, None, None, None) => EtcdTls::Own,
            (false, Some(ca), Some(cert), Some(key)) => EtcdTls::Files { ca, own: Some((cert, key)) },
            (false, Some(ca), None, None) => EtcdTls::Files { ca, own: None },
            _ => return Err("give ca= alone or with cert= and key=, and none of them with tls=off".to_owned()),
        };
        Ok(Self { endpoints, prefix, tls, lease, limit, advertise: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_members_place_and_options() {
        let plain = EtcdAddress::parse("a:2379").expect("an address");
        assert_eq!(
            (plain.endpoints, plain.prefix, plain.tls),
            (vec!["a:2379".into()], "/causeway/".into(), EtcdTls::Own)
        );
        let text = "a:1,[::1]:2/prod/moves?ca=ca.pem&cert=c.pem&key=k.pem&lease_seconds=5&timeout_ms=700";
        let full = EtcdAddress::parse(text).expect("an address");
        assert_eq!(full.endpoints, ["a:1", "[::1]:2"]);
        assert_eq!(
            (full.prefix.as_str(), full.lease, full.limit.as_millis()),
            ("/prod/moves/", Duration::from_secs(5), 700)
        );
        let own = Some(("c.pem".into(), "k.pem".into()));
        assert_eq!(full.tls, EtcdTls::Files { ca: "ca.pem".into(), own });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "host:port"),
            ("a", "host:port"),
            ("a:1,,b:2", "host:port"),
            ("a:1/x?colour=red", "colour"),
            ("a:1/x?tls=on", "tls=off"),
            ("a:1/x?tls=off&ca=y", "tls=off"),
            ("a:1/x?cert=y", "key="),
            ("a:1/x?lease_seconds=1", "from 2 to 600"),
            ("a:1/x?timeout_ms=soon", "from 100"),
        ] {
            let error = EtcdAddress::parse(text).expect_err(text);
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
