//! The coordinator's configuration: flags over environment over file, with the defaults and units of each.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use service::config::{CommonArgs, Loaded};

use crate::{
    agents::Timeouts,
    auth::{AuthArgs, AuthConfig},
    store::{InstanceRecord, etcd::EtcdAddress},
};

/// Takes requests to move and copy databases, and drives them to their end by commands to the agents.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "causeway-coordinator", version)]
pub struct Args {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub common: CommonArgs,

    /// Where operations and instances are kept: redb:PATH, a file that is made if it does not exist; or, for several
    /// coordinators of which one leads, etcd://HOST:PORT,HOST:PORT/PREFIX with the options ?ca=, cert=, key=, tls=off,
    /// lease_seconds= and timeout_ms=
    #[arg(
        long,
        value_name = "STORE",
        env = "CAUSEWAY_STORE",
        default_value = "redb:causeway.redb",
        help_heading = "Store"
    )]
    pub store: String,

    /// Address by which the other coordinators reach this one, if it is not the one it listens at; with etcd only
    #[arg(long, value_name = "HOST:PORT", env = "CAUSEWAY_ADVERTISE", help_heading = "Store")]
    pub advertise: Option<String>,

    /// Copy the store to another, which must be empty, and end; no coordinator may use either meanwhile
    #[arg(long, value_name = "STORE", help_heading = "Store")]
    pub copy_store_to: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub limits: LimitArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become help text")]
    pub auth: AuthArgs,
}

/// Limits, thresholds and times.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Operations that a source instance runs at once; further ones wait in the queue
    #[arg(long, value_name = "COUNT", env = "CAUSEWAY_RUNNING_PER_SOURCE", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub running_per_source: u32,

    /// Operations that may be under way or queued at once, over all instances
    #[arg(long, value_name = "COUNT", env = "CAUSEWAY_ACTIVE_MAX", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub active_max: u32,

    /// Seconds an operation stays ready for completion before it is cancelled, unless its start says otherwise
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_WINDOW_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub window_seconds: u64,

    /// Milliseconds a move may freeze its source, unless its completion says otherwise
    #[arg(long, value_name = "MS", env = "CAUSEWAY_MAX_FREEZE_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub max_freeze_ms: u64,

    /// Milliseconds that transactions running at the fence may go on, unless the completion says otherwise
    #[arg(long, value_name = "MS", env = "CAUSEWAY_GRACE_MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub grace_ms: u64,

    /// Milliseconds between two looks at an operation's agents; all operations together get no more than 1,000 looks a
    /// second
    #[arg(long, value_name = "MS", env = "CAUSEWAY_OBSERVE_EVERY_MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub observe_every_ms: u64,

    /// An operation becomes ready when the destination is at most this many milliseconds behind ...
    #[arg(long, value_name = "MS", env = "CAUSEWAY_READY_LAG_MS", default_value_t = 1_000)]
    pub ready_lag_ms: u64,

    /// ... and at most this many bytes of log
    #[arg(long, value_name = "BYTES", env = "CAUSEWAY_READY_LAG_BYTES", default_value_t = 16 << 20)]
    pub ready_lag_bytes: u64,

    /// A ready operation is no longer ready when the destination is more than this many milliseconds behind ...
    #[arg(long, value_name = "MS", env = "CAUSEWAY_BEHIND_LAG_MS", default_value_t = 10_000)]
    pub behind_lag_ms: u64,

    /// ... or more than this many bytes of log
    #[arg(long, value_name = "BYTES", env = "CAUSEWAY_BEHIND_LAG_BYTES", default_value_t = 256 << 20)]
    pub behind_lag_bytes: u64,

    /// Milliseconds an agent may take to answer a question
    #[arg(long, value_name = "MS", env = "CAUSEWAY_QUESTION_TIMEOUT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub question_timeout_ms: u64,

    /// Milliseconds an agent may take to obey a command before it is given again
    #[arg(long, value_name = "MS", env = "CAUSEWAY_COMMAND_TIMEOUT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub command_timeout_ms: u64,

    /// Seconds the destination may take to finish after the flip, its on_online hook included, before it is asked again
    #[arg(long, value_name = "SECONDS", env = "CAUSEWAY_FINISH_TIMEOUT_SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub finish_timeout_seconds: u64,

    /// Days for which ended operations are kept; of each database between two instances the newest is kept for ever
    #[arg(long, value_name = "DAYS", env = "CAUSEWAY_KEEP_ENDED", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub keep_ended: u32,

    /// Allow operations between instances of different subscriptions
    #[arg(long, env = "CAUSEWAY_ALLOW_CROSS_SUBSCRIPTION", value_parser = BoolishValueParser::new())]
    pub allow_cross_subscription: bool,

    /// Allow operations between instances of different regions
    #[arg(long, env = "CAUSEWAY_ALLOW_CROSS_REGION", value_parser = BoolishValueParser::new())]
    pub allow_cross_region: bool,
}

/// What a coordinator is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store.
    pub store: StoreAddress,
    /// Limits, thresholds and times.
    pub limits: Limits,
    /// The instances of the configuration file.
    pub instances: Vec<InstanceRecord>,
    /// What decides about callers.
    pub auth: AuthConfig,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAddress {
    /// A redb file.
    Redb(PathBuf),
    /// An etcd, for several coordinators.
    Etcd(EtcdAddress),
}

/// [`LimitArgs`] in the units the code uses.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Operations that a source runs at once.
    pub running_per_source: usize,
    /// Operations that have not ended, over all instances.
    pub active_max: usize,
    /// How long an operation stays ready.
    pub window: Duration,
    /// How long a move may freeze its source.
    pub max_freeze: Duration,
    /// How long running transactions may go on.
    pub grace: Duration,
    /// Time between two looks.
    pub observe_every: Duration,
    /// Most milliseconds of lag when ready.
    pub ready_lag_ms: u64,
    /// Most bytes of lag when ready.
    pub ready_lag_bytes: u64,
    /// Most milliseconds of lag to stay ready.
    pub behind_lag_ms: u64,
    /// Most bytes of lag to stay ready.
    pub behind_lag_bytes: u64,
    /// How long agents may take.
    pub timeouts: Timeouts,
    /// How long the destination may take to finish.
    pub finish_timeout: Duration,
    /// How long ended operations are kept at least.
    pub keep_ended: Duration,
    /// Subscriptions may differ.
    pub allow_cross_subscription: bool,
    /// Regions may differ.
    pub allow_cross_region: bool,
}

/// Why a configuration is no good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a store's address.
    #[error(
        "{given:?} is not a store: write redb:PATH, such as redb:/var/lib/causeway/coordinator.redb, or \
         etcd://host:port,host:port/prefix"
    )]
    Store {
        /// What was given.
        given: String,
    },
    /// An etcd's address is wrong.
    #[error("the store {given:?}: {reason}")]
    Etcd {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address for other coordinators that is none, or that nobody asks for.
    #[error("--advertise {given:?}: {reason}")]
    Advertise {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A threshold below the one it must exceed.
    #[error(
        "--behind-lag-{unit} ({behind}) must not be less than --ready-lag-{unit} ({ready}): an operation would be ready and not ready at once"
    )]
    Thresholds {
        /// `ms` or `bytes`.
        unit: &'static str,
        /// What was given.
        behind: u64,
        /// What was given.
        ready: u64,
    },
    /// An instance of the file is wrong.
    #[error("[[instance]] {name}: {reason}")]
    Instance {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Flags about callers that do not go together.
    #[error("{0}")]
    Auth(String),
    /// The file's section does not have the right form.
    #[error(transparent)]
    Section(#[from] service::config::Error),
}

/// The section of the file that holds instances.
pub const SECTIONS: [&str; 1] = ["instance"];

impl Config {
    /// Check what was parsed.
    pub fn from_loaded(loaded: &Loaded<Args>) -> Result<Self, Error> {
        let instances = loaded.section::<Vec<InstanceRecord>>(SECTIONS[0])?.unwrap_or_default();
        let auth = AuthConfig::new(&loaded.args.auth).map_err(Error::Auth)?;
        let mut config = Self::new(&loaded.args.store, &loaded.args.limits, instances, auth)?;
        if let Some(given) = &loaded.args.advertise {
            let wrong = |reason| Error::Advertise { given: given.clone(), reason };
            let StoreAddress::Etcd(etcd) = &mut config.store else {
                return Err(wrong(
                    "it is for several coordinators, which need a store in etcd: drop it, or give --store etcd://...",
                ));
            };
            service::dial::split(given).ok_or_else(|| wrong("write host:port, such as db1.example:7440"))?;
            etcd.advertise = Some(given.clone());
        }
        Ok(config)
    }

    /// Check a store's address, limits and instances.
    pub fn new(
        store: &str,
        limits: &LimitArgs,
        instances: Vec<InstanceRecord>,
        auth: AuthConfig,
    ) -> Result<Self, Error> {
        let store = StoreAddress::parse(store)?;
        for (unit, ready, behind) in [
            ("ms", limits.ready_lag_ms, limits.behind_lag_ms),
            ("bytes", limits.ready_lag_bytes, limits.behind_lag_bytes),
        ] {
            if behind < ready {
                return Err(Error::Thresholds { unit, behind, ready });
            }
        }
        for (at, instance) in instances.iter().enumerate() {
            let wrong = |reason: String| Error::Instance { name: instance.name.to_string(), reason };
            if instances[..at].iter().any(|other| other.name == instance.name) {
                return Err(wrong("it is given twice: drop one".to_owned()));
            }
            if let Some((field, problem)) = crate::instances::violations(instance).into_iter().next() {
                return Err(wrong(format!("{field}: {problem}")));
            }
        }
        Ok(Self { store, limits: limits.into(), instances, auth })
    }
}

impl StoreAddress {
    /// As it is written in flags.
    pub fn parse(given: &str) -> Result<Self, Error> {
        if let Some(etcd) = given.strip_prefix("etcd://") {
            let wrong = |reason| Error::Etcd { given: given.to_owned(), reason };
            return EtcdAddress::parse(etcd).map(Self::Etcd).map_err(wrong);
        }
        let path = given.strip_prefix("redb:").filter(|path| !path.is_empty());
        path.map(|path| Self::Redb(path.into())).ok_or_else(|| Error::Store { given: given.to_owned() })
    }
}

impl From<&LimitArgs> for Limits {
    fn from(args: &LimitArgs) -> Self {
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            running_per_source: count(args.running_per_source),
            active_max: count(args.active_max),
            window: Duration::from_secs(args.window_seconds),
            max_freeze: Duration::from_millis(args.max_freeze_ms),
            grace: Duration::from_millis(args.grace_ms),
            observe_every: Duration::from_millis(args.observe_every_ms),
            ready_lag_ms: args.ready_lag_ms,
            ready_lag_bytes: args.ready_lag_bytes,
            behind_lag_ms: args.behind_lag_ms,
            behind_lag_bytes: args.behind_lag_bytes,
            timeouts: Timeouts {
                question: Duration::from_millis(args.question_timeout_ms),
                command: Duration::from_millis(args.command_timeout_ms),
            },
            finish_timeout: Duration::from_secs(args.finish_timeout_seconds),
            keep_ended: Duration::from_secs(u64::from(args.keep_ended) * 86_400),
            allow_cross_subscription: args.allow_cross_subscription,
            allow_cross_region: args.allow_cross_region,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str, flags: &[&str]) -> Result<Config, Error> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("coordinator.toml");
        std::fs::write(&file, toml).expect("write the file");
        let file = file.to_str().expect("a plain path");
        let args = ["coordinator", "--config", file, "--insecure"].into_iter().chain(flags.iter().copied());
        Config::from_loaded(&service::config::parse_from::<Args, _>(args, &SECTIONS)?)
    }

    #[test]
    fn flags_stand_over_the_file_and_both_over_defaults() {
        let toml = "store = \"redb:/x/y\"\nready_lag_ms = 7\nrunning_per_source = 3\n\
                    [[instance]]\nname = \"west\"\nengine = \"sqlite\"\nsource_agent = \"db1:7443\"\n";
        let config = read(toml, &["--running-per-source=4"]).expect("a good configuration");
        assert_eq!(config.store, StoreAddress::Redb("/x/y".into()));
        assert_eq!((config.limits.ready_lag_ms, config.limits.running_per_source), (7, 4));
        assert_eq!(config.limits.window, Duration::from_secs(24 * 3600));
        assert_eq!(config.instances[0].source_identity(), "spiffe://causeway/agent-source/west");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let instance = "[[instance]]\nname = \"west\"\nengine = \"sqlite\"\nsource_agent = \"db1:7443\"\n";
        for (toml, flags, part) in [
            ("", &["--store=file:x"][..], "redb:PATH"),
            ("", &["--store=etcd://x"], "host:port"),
            ("", &["--advertise=db1:7440"], "etcd"),
            ("", &["--store=etcd://x:1", "--advertise=db1"], "host:port"),
            ("", &["--store=redb:"], "redb:PATH"),
            ("", &["--behind-lag-ms=5"], "--ready-lag-ms"),
            ("", &["--running-per-source=0"], "running-per-source"),
            ("", &["--groups=g.toml"], "--policy"),
            ("groups = \"g.toml\"\n", &[], "--policy"),
            ("", &["--jwt-keys=k", "--jwt-issuer=i", "--jwt-audience=a"], "everybody whom the provider knows"),
            ("", &["--jwt-keys=k"], "--jwt-issuer"),
            (&instance.repeat(2), &[], "given twice"),
            (&instance.replace("db1:7443", "db1"), &[], "source_agent"),
            (&instance.replace("west", "We st"), &[], "instance name"),
            (&format!("{instance}colour = 1\n"), &[], "colour"),
        ] {
            let error = read(toml, flags).expect_err(part).to_string();
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
