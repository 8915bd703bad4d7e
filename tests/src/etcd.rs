//! An etcd of one or three members on this machine, for the coordinators' store. Debian's etcd-server; also compiled into the
//! unit tests of the store, so it knows nothing else of this crate.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a member may take to serve on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An etcd; its members end when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    dir: TempDir,
}

#[derive(Debug)]
struct Member {
    args: Vec<String>,
    /// `host:port` for clients.
    address: String,
    child: Option<Child>,
}

impl Etcd {
    /// Starts an etcd of so many members, in plain text.
    pub fn start(members: usize) -> Self {
        Self::start_with(members, &[])
    }

    /// The same with further flags for every member. With `--cert-file` clients come over TLS.
    pub fn start_with(members: usize, flags: &[String]) -> Self {
        let dir = tempfile::Builder::new().prefix("causeway-etcd-").tempdir().expect("a directory for etcd");
        let ports: Vec<(u16, u16)> = (0..members).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        let scheme = if flags.iter().any(|flag| flag.starts_with("--cert-file")) { "https" } else { "http" };
        let made = ports.iter().enumerate().map(|(n, (client, peer))| {
            let mut args = vec![
                format!("--name=m{n}"),
                format!("--data-dir={}", dir.path().join(format!("m{n}")).display()),
                format!("--listen-client-urls={scheme}://127.0.0.1:{client}"),
                format!("--advertise-client-urls={scheme}://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                "--initial-cluster-state=new".to_owned(),
                // Half the defaults: leases of two seconds are granted, and a member that is gone is noticed within one.
                "--heartbeat-interval=50".to_owned(),
                "--election-timeout=500".to_owned(),
            ];
            args.extend(flags.iter().cloned());
            Member { args, address: format!("127.0.0.1:{client}"), child: None }
        });
        let mut etcd = Self { members: made.collect(), dir };
        (0..members).for_each(|n| etcd.spawn(n));
        (0..members).for_each(|n| etcd.until_serving(n));
        etcd
    }

    /// `host:port` of every member, with commas.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// `kill -9` of a member.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().expect("kill a child that was not reaped");
            child.wait().expect("wait for a killed child");
        }
    }

    /// Starts a killed member again with its data.
    pub fn restart(&mut self, member: usize) {
        self.spawn(member);
        self.until_serving(member);
    }

    /// Forgets all that was before a revision; an etcd in plain text only.
    pub fn compact(&self, revision: i64) {
        let address = &self.members[0].address;
        let body = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
        let head = format!(
            "POST /v3/kv/compaction HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut http = TcpStream::connect(address).expect("etcd serves");
        http.write_all((head + &body).as_bytes()).expect("ask etcd");
        let mut answer = String::new();
        http.read_to_string(&mut answer).expect("etcd answers");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// SIGSTOP, or SIGCONT.
    pub fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].child.as_ref().expect("the member runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("signal a child that was not reaped");
    }

    fn spawn(&mut self, member: usize) {
        let log = self.dir.path().join(format!("m{member}.log"));
        let log = File::options().create(true).append(true).open(log).expect("open etcd's log");
        let command = &mut self.members[member];
        let child = Command::new("etcd")
            .args(&command.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start etcd: {error}; tools/ensure-test-deps.sh installs it"));
        command.child = Some(child);
    }

    fn until_serving(&self, member: usize) {
        let begun = Instant::now();
        while TcpStream::connect(&self.members[member].address).is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join(format!("m{member}.log"))).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "etcd does not serve; it said:\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

/// A port that nobody has now. etcd cannot be given port 0: its members have to know each other's before they start.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
