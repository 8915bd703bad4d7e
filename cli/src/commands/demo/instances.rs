//! The two instances of the demo: directories of SQLite databases, or PostgreSQL servers of its own.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use ledger::{
    FillOptions, fill,
    postgres::{self, Binaries, Options, Server, ServerError},
    sqlite::fill::Filled,
};
use service::{Env, certs::Spec};

use super::stage::{EAST, WEST};
use crate::{args::EngineWord, exit::Exit, failure::Failure};

/// Who the application is to a server: the owner of its database and nothing more.
const APPLICATION: &str = "shop";

/// The database on a server.
const DATABASE: &str = "shop";

/// West and east.
pub(super) enum Instances {
    /// Directories, inside this one.
    Directories(PathBuf),
    /// Servers; dropped, they are ended.
    Servers(Box<Servers>),
}

/// Two servers, and the password of the agents.
pub(super) struct Servers {
    west: Server,
    east: Server,
    version: String,
    password: String,
}

impl Instances {
    /// Makes them, the database empty.
    pub(super) async fn make(engine: EngineWord, env: &Env, dir: &Path, keep: bool) -> Result<Self, Failure> {
        match engine {
            EngineWord::Sqlite => {
                for place in [WEST, EAST] {
                    let made = fs::create_dir_all(dir.join(place));
                    made.map_err(|error| Failure::local("make the instances", &error))?;
                }
                Ok(Self::Directories(dir.to_owned()))
            }
            EngineWord::Postgres => {
                let password = env.uuid_v7().replace('-', "") + &env.uuid_v7();
                let dir = dir.to_owned();
                let made = env.blocking(move || Servers::make(&dir, password, keep)).await;
                made.map(|servers| Self::Servers(Box::new(servers))).map_err(|error| no_servers(&error))
            }
        }
    }

    /// The database's name.
    pub(super) fn database(&self) -> &'static str {
        match self {
            Self::Directories(_) => "shop.db",
            Self::Servers(_) => DATABASE,
        }
    }

    /// The engine as the coordinator knows it.
    pub(super) fn engine(&self) -> &'static str {
        match self {
            Self::Directories(_) => "sqlite",
            Self::Servers(_) => "postgres",
        }
    }

    /// The engine as people know it.
    pub(super) fn engine_name(&self) -> &'static str {
        match self {
            Self::Directories(_) => "SQLite",
            Self::Servers(_) => "PostgreSQL",
        }
    }

    /// What they are, for people; nothing for directories.
    pub(super) fn described(&self) -> Option<String> {
        match self {
            Self::Directories(_) => None,
            Self::Servers(servers) => {
                let (west, east) = (servers.west.port(), servers.east.port());
                Some(format!("two of PostgreSQL {}, {WEST} at port {west} and {EAST} at port {east}", servers.version))
            }
        }
    }

    /// The state in which a moved database leaves its name at the source.
    pub(super) fn state_after_move(&self) -> &'static str {
        match self {
            Self::Directories(_) => "tombstone",
            Self::Servers(_) => "gone",
        }
    }

    /// Where the application finds the database at an instance.
    pub(super) fn place(&self, instance: &str) -> PathBuf {
        match self {
            Self::Directories(dir) => dir.join(instance).join(self.database()),
            Self::Servers(servers) => servers.of(instance).place(APPLICATION, self.database()),
        }
    }

    /// How an agent reaches an instance: its flags, and what is better not seen by others.
    pub(super) fn agent(&self, instance: &str, half: &str, certs: &Path) -> (Vec<String>, Vec<(&'static str, String)>) {
        let engine = format!("--engine={}", self.engine());
        match self {
            Self::Directories(dir) => (vec![engine, format!("--dir={}", dir.join(instance).display())], Vec::new()),
            Self::Servers(servers) => {
                let server = servers.of(instance);
                let mut flags = vec![
                    engine,
                    format!("--postgres={} sslmode=require", server.dsn("postgres")),
                    format!("--postgres-ca={}", certs.join("ca.pem").display()),
                ];
                if half == "agent-source" {
                    flags.push(format!("--pg-dump={}", server.binaries().program("pg_dump").display()));
                }
                (flags, vec![("PGPASSWORD", servers.password.clone())])
            }
        }
    }

    /// Makes the database at west.
    pub(super) async fn fill(&self, env: &Env, mb: u64) -> Result<Filled, Failure> {
        let place = self.place(WEST);
        let filled = env.blocking(move || match postgres::is_place(&place) {
            true => postgres::fill(&place.to_string_lossy(), mb),
            false => fill(&FillOptions::new(place, mb)),
        });
        filled.await.map_err(|error| Failure::local("fill the database", &error))
    }

    /// Leaves the files behind.
    pub(super) fn keep(&mut self) {
        if let Self::Servers(servers) = self {
            servers.west.keep_files();
            servers.east.keep_files();
        }
    }
}

impl Servers {
    fn make(dir: &Path, password: String, keep: bool) -> Result<Self, ServerError> {
        let binaries = Binaries::find(None)?;
        let version = binaries.major().map(|major| major.to_string()).unwrap_or_default();
        // The account of the servers, if it is not ours, has to get through to its files; it sees nothing else.
        let _ = fs::set_permissions(dir, Permissions::from_mode(0o711));
        let start = |name: &str| {
            let stem = certificate(name);
            let pem = |ending: &str| dir.join("certs").join(format!("{stem}{ending}"));
            let options = Options {
                inside: Some(dir.to_owned()),
                tls: Some((pem(".pem"), pem("-key.pem"))),
                password: Some(password.clone()),
                keep,
                ..Options::new(binaries.clone())
            };
            Server::start(options)
        };
        let servers = Self { west: start(WEST)?, east: start(EAST)?, version, password };
        for server in [&servers.west, &servers.east] {
            server.sql("postgres", &format!("CREATE ROLE {APPLICATION} LOGIN"))?;
        }
        servers.west.sql("postgres", &format!("CREATE DATABASE {DATABASE} OWNER {APPLICATION}"))?;
        Ok(servers)
    }

    fn of(&self, instance: &str) -> &Server {
        if instance == WEST { &self.west } else { &self.east }
    }
}

/// The certificates that the instances need beside those of Causeway.
pub(super) fn specs(engine: EngineWord, now: service::env::Timestamp) -> Vec<Spec> {
    match engine {
        EngineWord::Sqlite => Vec::new(),
        EngineWord::Postgres => [WEST, EAST]
            .map(|name| Spec::new(certificate(name), format!("spiffe://causeway/postgres/{name}"), now))
            .to_vec(),
    }
}

fn certificate(instance: &str) -> String {
    format!("postgres-{instance}")
}

fn no_servers(error: &ServerError) -> Failure {
    const STARTING: &str = "start PostgreSQL";
    match error {
        ServerError::NoBinaries => Failure::new(Exit::Refused, STARTING, error.to_string())
            .reason("POSTGRESQL_NOT_FOUND")
            .remedy("install it: apt-get install postgresql, or tools/ensure-postgres.sh any; or see --engine sqlite"),
        ServerError::Failed { said, .. } if said.contains("Permission denied") => Failure::local(STARTING, error)
            .remedy("servers do not run as root, and their account cannot enter the directory; give another --dir"),
        other => Failure::local(STARTING, other),
    }
}
