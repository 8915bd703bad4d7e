//! What a cluster is made of: its parties, where they live, and what is particular about them.

use crate::cluster::Cluster;
use ledger::postgres::Options;
use std::{collections::BTreeMap, path::PathBuf};

/// One process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// The coordinator.
    Coordinator,
    /// The source agent of an instance.
    Source(&'static str),
    /// The destination agent of an instance.
    Dest(&'static str),
}

/// The source agent of a move from west to east.
pub const SOURCE: Party = Party::Source("west");
/// The destination agent of a move from west to east.
pub const DEST: Party = Party::Dest("east");

/// The certificate of a user.
pub const USER: &str = "user";
/// The certificate of the coordinator, for commands made by hand.
pub const COORDINATOR: &str = "coordinator";

impl Party {
    /// Its name, which is also that of its certificate and its log.
    pub fn name(self) -> String {
        match self {
            Party::Coordinator => COORDINATOR.to_owned(),
            Party::Source(instance) => format!("source-{instance}"),
            Party::Dest(instance) => format!("dest-{instance}"),
        }
    }

    /// What [`Builder::flag`] calls its kind.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Party::Coordinator => "coordinator",
            Party::Source(_) => "source",
            Party::Dest(_) => "dest",
        }
    }

    pub(crate) fn identity(self) -> String {
        match self {
            Party::Coordinator => "spiffe://causeway/coordinator".to_owned(),
            Party::Source(instance) => format!("spiffe://causeway/agent-source/{instance}"),
            Party::Dest(instance) => format!("spiffe://causeway/agent-dest/{instance}"),
        }
    }
}

/// Where a part of the cluster lives on the network.
#[derive(Debug, Clone)]
pub struct Site {
    /// The address its processes listen at, without a port.
    pub host: String,
    /// What comes before their programs, such as `ip netns exec NAME`.
    pub wrapper: Vec<String>,
}

impl Default for Site {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), wrapper: vec![] }
    }
}

/// What is particular about a cluster.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    pub(crate) both_ways: bool,
    pub(crate) flags: BTreeMap<&'static str, Vec<String>>,
    pub(crate) directories: BTreeMap<&'static str, PathBuf>,
    pub(crate) sites: BTreeMap<&'static str, Site>,
    pub(crate) transfer_host: Option<String>,
    pub(crate) base: Option<PathBuf>,
    pub(crate) engine: Engine,
    pub(crate) servers: Option<Options>,
    pub(crate) env: Vec<(&'static str, String, String)>,
    pub(crate) links: bool,
}

/// What the instances are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// Directories of SQLite databases.
    #[default]
    Sqlite,
    /// PostgreSQL servers of these major versions, west and east.
    Postgres(u32, u32),
}

/// PostgreSQL servers as most users have them: the same version at both ends.
pub const POSTGRES: Engine = Engine::Postgres(15, 15);

impl Builder {
    /// Both instances get both agents, so that a database can come back.
    pub fn both_ways(mut self) -> Self {
        self.both_ways = true;
        self
    }

    /// A further flag for every process of a kind: "coordinator", "source" or "dest".
    pub fn flag(mut self, kind: &'static str, flag: impl Into<String>) -> Self {
        self.flags.entry(kind).or_default().push(flag.into());
        self
    }

    /// A variable in the environment of every process of a kind: "coordinator", "source" or "dest".
    pub fn env(mut self, kind: &'static str, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((kind, name.into(), value.into()));
        self
    }

    /// Everybody reaches everybody over links that can be held up, cut and led elsewhere, as names in a real network are:
    /// see [`crate::links::Links`].
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// The directory of an instance, instead of one of the cluster's own.
    pub fn directory(mut self, instance: &'static str, directory: impl Into<PathBuf>) -> Self {
        self.directories.insert(instance, directory.into());
        self
    }

    /// Where the coordinator ("coordinator") or an instance's agents live on the network.
    pub fn site(mut self, of: &'static str, site: Site) -> Self {
        self.sites.insert(of, site);
        self
    }

    /// The address by which source agents reach the destination agents, if it is not the one the coordinator uses.
    pub fn transfer_host(mut self, host: impl Into<String>) -> Self {
        self.transfer_host = Some(host.into());
        self
    }

    /// What the instances are, unless they are directories of SQLite databases.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// The instances are PostgreSQL servers of this cluster's own, made with these options and ended with it.
    pub fn postgres(mut self, options: Options) -> Self {
        (self.engine, self.servers) = (POSTGRES, Some(options));
        self
    }

    /// Where the cluster's own directory is made, instead of the system's place for temporary files.
    pub fn base(mut self, base: impl Into<PathBuf>) -> Self {
        self.base = Some(base.into());
        self
    }

    /// Starts the processes and registers the instances.
    pub fn start(self) -> Cluster {
        Cluster::of(self)
    }

    pub(crate) fn site_of(&self, party: Party) -> Site {
        let key = match party {
            Party::Coordinator => COORDINATOR,
            Party::Source(instance) | Party::Dest(instance) => instance,
        };
        self.sites.get(key).cloned().unwrap_or_default()
    }

    pub(crate) fn parties(&self) -> Vec<Party> {
        let mut parties = vec![Party::Coordinator, SOURCE, DEST];
        if self.both_ways {
            parties.extend([Party::Source("east"), Party::Dest("west")]);
        }
        parties
    }
}
