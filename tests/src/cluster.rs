//! The cluster: a coordinator and the agents of two instances as child processes, under one roof.

use crate::{
    binaries,
    builder::{Builder, COORDINATOR, Engine, Party, USER},
    links::Links,
    place::Place,
    postgres::{self, Instance, Pair},
    server::{Launch, Server},
    v1::{
        self, coordinator_client::CoordinatorClient, dest_agent_client::DestAgentClient,
        source_agent_client::SourceAgentClient,
    },
    wait::{self, PATIENCE},
};
use rustix::process::Signal;
use service::{
    Env, Tls, TlsFiles,
    certs::{self, Spec},
    dial::Dialer,
};
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Response, Status, transport::Channel};

/// A running cluster. Dropped, it ends its processes; dropped by a panic, it shows the end of their logs first.
#[derive(Debug)]
pub struct Cluster {
    builder: Builder,
    servers: Mutex<BTreeMap<Party, Server>>,
    links: Option<Links>,
    /// The coordinator that clients ask, if it is not the first one.
    asked: Mutex<Option<String>>,
    runtime: Runtime,
    dir: TempDir,
    /// The servers, if the instances are PostgreSQL. The last to go: the agents use them.
    pair: Option<Pair>,
}

impl Cluster {
    /// A cluster that can move databases from west to east.
    pub fn new() -> Self {
        Self::builder().start()
    }

    pub(crate) fn of(builder: Builder) -> Self {
        let mut temporary = tempfile::Builder::new();
        temporary.prefix("causeway-e2e-").disable_cleanup(std::env::var_os("CAUSEWAY_TEST_KEEP").is_some());
        let dir = match &builder.base {
            Some(base) => temporary.tempdir_in(base),
            None => temporary.tempdir(),
        };
        let dir = dir.expect("make the cluster's directory");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("start the clients' runtime");
        let pair = match (builder.engine, &builder.servers) {
            (Engine::Sqlite, _) => None,
            (Engine::Postgres(..), Some(options)) => Some(Pair::own(options)),
            (Engine::Postgres(west, east), None) => Some(Pair::lease(west, east)),
        };
        let links = builder.links.then(|| Links::start(runtime.handle()));
        let cluster =
            Cluster { builder, servers: Mutex::default(), asked: Mutex::default(), links, runtime, dir, pair };
        cluster.set_up();
        cluster
    }

    /// A cluster that is particular.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The cluster's directory; certificates, logs, histories and, by default, the instances lie in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The source instance of a move from west to east.
    pub fn west(&self) -> Place {
        self.place("west")
    }

    /// The destination instance of a move from west to east.
    pub fn east(&self) -> Place {
        self.place("east")
    }

    /// An instance.
    pub fn place(&self, instance: &str) -> Place {
        let own = || self.dir().join(instance);
        Place::new(self.builder.directories.get(instance).cloned().unwrap_or_else(own))
    }

    /// An instance that is a PostgreSQL server.
    pub fn postgres(&self, instance: &str) -> &Instance {
        self.pair.as_ref().expect("the instances are PostgreSQL servers").instance(instance)
    }

    /// The server that an instance is. Do not hold it while something else of the instance is asked.
    pub fn server(&self, instance: &str) -> MutexGuard<'_, ledger::postgres::Server> {
        self.postgres(instance).server()
    }

    /// The place at which an application finds a database.
    pub fn database(&self, instance: &str, name: &str) -> PathBuf {
        match self.builder.engine {
            Engine::Sqlite => self.place(instance).database(name),
            Engine::Postgres(..) => match &self.links {
                Some(links) => {
                    let port = links.to_server(instance).port();
                    format!("postgres://{}@127.0.0.1:{port}/{name}", postgres::APPLICATION).into()
                }
                None => self.postgres(instance).place(name),
            },
        }
    }

    /// The links between everybody, if the cluster was built with them.
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("the cluster was built with links")
    }

    /// What the instances are.
    pub fn engine(&self) -> Engine {
        self.builder.engine
    }

    /// Where the certificates lie.
    pub fn certs(&self) -> PathBuf {
        self.dir().join("certs")
    }

    /// Issues a further certificate.
    pub fn issue(&self, spec: Spec) {
        certs::issue_dev(&self.certs(), &[spec], Env::real().now()).expect("issue a certificate");
    }

    /// `host:port` at which a process is found.
    pub fn address(&self, party: Party) -> String {
        match &self.links {
            Some(links) => links.to(party).address(),
            None => self.with(party, |server| server.address()),
        }
    }

    /// Another process takes a party's place and name; the one before.
    pub fn replace(&self, party: Party, by: Server) -> Server {
        self.links().lead_to(party, &by.address());
        self.lock().insert(party, by).unwrap_or_else(|| panic!("{} is part of the cluster", party.name()))
    }

    /// Ends it after a failure: its servers may hold anything and are not used again.
    pub fn abandon(mut self) {
        self.lock().clear();
        drop(self.pair.take());
    }

    /// Process id of a process.
    pub fn pid(&self, party: Party) -> u32 {
        self.with(party, |server| server.pid())
    }

    /// The most memory a process ever took, in bytes.
    #[track_caller]
    pub fn peak_rss_bytes(&self, party: Party) -> u64 {
        self.with(party, |server| server.peak_rss_bytes())
    }

    /// Processor time of a process so far, user and system, in seconds.
    #[track_caller]
    pub fn processor_seconds(&self, party: Party) -> f64 {
        self.with(party, |server| server.processor_seconds())
    }

    /// `kill -9`.
    pub fn kill(&self, party: Party) {
        self.with(party, Server::kill);
    }

    /// Starts a killed process again with its flags and its port, and waits until it serves.
    pub fn restart(&self, party: Party) {
        self.with(party, Server::restart);
    }

    /// The issue's fault: kill -9, and a restart after a second.
    pub fn kill_and_restart(&self, party: Party) {
        self.kill(party);
        std::thread::sleep(Duration::from_secs(1));
        self.restart(party);
    }

    /// SIGSTOP.
    pub fn stop(&self, party: Party) {
        self.with(party, |server| server.signal(Signal::STOP));
    }

    /// SIGCONT.
    pub fn resume(&self, party: Party) {
        self.with(party, |server| server.signal(Signal::CONT));
    }

    /// Waits until a process ends by itself.
    pub fn until_exit(&self, party: Party, patience: Duration) -> ExitStatus {
        self.with(party, |server| server.until_exit(patience))
    }

    /// Gives a further flag to a process from its next start on; the last of equal flags counts.
    pub fn set_flag(&self, party: Party, flag: &str) {
        self.with(party, |server| server.set_flag(flag));
    }

    /// Starts a second process of the same kind for the same instance, at a port of its own. It ends when dropped.
    pub fn rival(&self, party: Party) -> Server {
        self.rival_with(party, &[])
    }

    /// The same with further flags.
    pub fn rival_with(&self, party: Party, further: &[String]) -> Server {
        // Each writes a log of its own.
        let logs = (1..).map(|n| self.log(&format!("{}-rival-{n}", party.name())));
        let log = logs.into_iter().find(|log| !log.exists()).expect("there are names enough");
        self.with(party, |server| server.rival(log, further))
    }

    /// Where the coordinator's store lies.
    pub fn store(&self) -> PathBuf {
        self.dir().join("coordinator.redb")
    }

    /// The last lines a process wrote.
    pub fn log_tail(&self, party: Party, lines: usize) -> String {
        self.with(party, |server| server.log_tail(lines))
    }

    /// Drives a future of a client to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A channel to an address under a certificate.
    pub fn channel(&self, address: &str, certificate: &str) -> Channel {
        let dialer = self.dialer(certificate);
        self.block_on(async { dialer.channel(address) }).expect("a good address")
    }

    /// What dials under a certificate of the cluster.
    pub fn dialer(&self, certificate: &str) -> Dialer {
        let env = Env::real();
        let files = TlsFiles::in_dir(&self.certs(), certificate);
        let tls = self.block_on(Tls::load(&env, files)).expect("load a certificate");
        Dialer::new(env, Some(tls))
    }

    /// A user's client of the coordinator.
    pub fn coordinator(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel(&self.asked(), USER))
    }

    /// The address of the coordinator that clients ask.
    pub fn asked(&self) -> String {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.unwrap_or_else(|| self.address(Party::Coordinator))
    }

    /// Lets clients ask another coordinator from now on.
    pub fn ask(&self, address: &str) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(address.to_owned());
    }

    /// A client of a source agent that has the coordinator's certificate.
    pub fn source_agent(&self, instance: &'static str) -> SourceAgentClient<Channel> {
        SourceAgentClient::new(self.channel(&self.address(Party::Source(instance)), COORDINATOR))
    }

    /// A client of a destination agent that has the coordinator's certificate.
    pub fn dest_agent(&self, instance: &'static str) -> DestAgentClient<Channel> {
        DestAgentClient::new(self.channel(&self.address(Party::Dest(instance)), COORDINATOR))
    }

    /// A call with a deadline.
    pub fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        let bounded = async { tokio::time::timeout(Duration::from_secs(30), call).await };
        match self.block_on(bounded) {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer within 30 s")),
        }
    }

    /// The file that gets what a process says.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{name}.log"))
    }

    fn set_up(&self) {
        for dir in ["logs", "certs"] {
            fs::create_dir_all(self.dir().join(dir)).expect("make a directory");
        }
        let now = Env::real().now();
        let mut specs = vec![Spec::new(USER, "spiffe://causeway/user/tester", now)];
        for party in self.builder.parties() {
            let spec = Spec::new(party.name(), party.identity(), now).host(self.builder.site_of(party).host);
            specs.push(match &self.builder.transfer_host {
                Some(host) => spec.host(host),
                None => spec,
            });
        }
        certs::issue_dev(&self.certs(), &specs, now).expect("issue the certificates");
        if let (Some(links), Some(pair)) = (&self.links, &self.pair) {
            pair.both().for_each(|(name, instance)| {
                links.to_server(name).lead_to(format!("127.0.0.1:{}", instance.server().port()));
            });
        }
        for party in self.builder.parties() {
            let server = Server::start(self.launch(party));
            if let Some(links) = &self.links {
                links.lead_to(party, &server.address());
            }
            self.lock().insert(party, server);
        }
        self.register("west");
        self.register("east");
    }

    fn launch(&self, party: Party) -> Launch {
        let certs = self.certs();
        let name = party.name();
        let mut args = vec![
            format!("--ca={}", certs.join("ca.pem").display()),
            format!("--cert={}", certs.join(format!("{name}.pem")).display()),
            format!("--key={}", certs.join(format!("{name}-key.pem")).display()),
        ];
        let kind = party.kind();
        let program = match party {
            Party::Coordinator => {
                args.push(format!("--store=redb:{}", self.store().display()));
                // Twenty looks a second: the tests wait for what the coordinator sees.
                args.push("--observe-every-ms=50".to_owned());
                // And they look themselves, all as one user, as often as they can.
                args.push("--requests-per-second=100000".to_owned());
                "causeway-coordinator"
            }
            Party::Source(instance) | Party::Dest(instance) => {
                args.push(format!("--instance={instance}"));
                match self.builder.engine {
                    Engine::Sqlite => {
                        let place = self.place(instance);
                        fs::create_dir_all(place.path()).expect("make an instance's directory");
                        args.push(format!("--dir={}", place.path().display()));
                    }
                    Engine::Postgres(..) => {
                        args.push("--engine=postgres".to_owned());
                        let dsn = match &self.links {
                            Some(links) => {
                                let port = links.to_server(instance).port();
                                format!("host=127.0.0.1 port={port} user=causeway dbname=postgres")
                            }
                            None => self.postgres(instance).dsn(),
                        };
                        args.push(format!("--postgres={dsn}"));
                        args.extend(matches!(party, Party::Source(_)).then(postgres::pg_dump));
                    }
                }
                match party {
                    Party::Source(_) => "causeway-agent-source",
                    _ => "causeway-agent-dest",
                }
            }
        };
        let name_of = |arg: &String| arg.split('=').next().map(str::to_owned);
        for flag in self.builder.flags.get(kind).into_iter().flatten() {
            args.retain(|arg| name_of(arg) != name_of(flag));
            args.push(flag.clone());
        }
        let site = self.builder.site_of(party);
        let (host, wrapper) = (site.host, site.wrapper);
        let env = self.builder.env.iter().filter(|(of, ..)| *of == kind);
        let env = env.map(|(_, name, value)| (name.clone(), value.clone())).collect();
        Launch { program: binaries::path(program), args, wrapper, host, log: self.log(&name), env }
    }

    /// The instance as it is registered.
    pub fn instance(&self, name: &'static str) -> v1::Instance {
        let is_part = |party| self.lock().contains_key(&party);
        let address = |party| if is_part(party) { self.address(party) } else { String::new() };
        let (source_agent, dest_agent) = (address(Party::Source(name)), address(Party::Dest(name)));
        let transfer_address = match (&self.builder.transfer_host, dest_agent.rsplit_once(':')) {
            (Some(host), Some((_, port))) => format!("{host}:{port}"),
            (None, Some(_)) => self.links.as_ref().map(|links| links.transfer.address()).unwrap_or_default(),
            _ => String::new(),
        };
        let engine = match self.builder.engine {
            Engine::Sqlite => "sqlite",
            Engine::Postgres(..) => "postgres",
        };
        let (name, engine) = (name.to_owned(), engine.to_owned());
        v1::Instance { name, engine, source_agent, dest_agent, transfer_address, ..Default::default() }
    }

    fn register(&self, name: &'static str) {
        let instance = self.instance(name);
        let mut client = self.coordinator();
        wait::until("register an instance", PATIENCE, || {
            let request = v1::RegisterInstanceRequest { instance: Some(instance.clone()) };
            match self.call(client.register_instance(request)) {
                Ok(_) => Some(()),
                Err(status) if status.code() == tonic::Code::Unavailable => None,
                Err(status) => panic!("register {name}: {}", service::status::describe(&status)),
            }
        });
    }

    fn with<T>(&self, party: Party, act: impl FnOnce(&mut Server) -> T) -> T {
        act(self.lock().get_mut(&party).unwrap_or_else(|| panic!("{} is part of the cluster", party.name())))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Party, Server>> {
        // A test that panics with the lock held still wants its logs shown.
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut servers = self.lock();
        if std::thread::panicking() {
            for (party, server) in servers.iter() {
                println!("--- the end of {}'s log ---\n{}", party.name(), server.log_tail(25));
            }
            for (name, instance) in self.pair.iter().flat_map(Pair::both) {
                println!("--- the end of {name}'s server log ---\n{}", instance.server().log_tail(25));
            }
        }
        servers.clear();
        drop(servers);
        // After a failure the servers may hold anything, so they are not used again.
        if let Some(pair) = self.pair.take().filter(|_| !std::thread::panicking()) {
            pair.give_back();
        }
    }
}
