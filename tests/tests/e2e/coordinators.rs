//! Several coordinators on etcd: one leads, the others pass requests on. The leader dies, is paused and wakes up, etcd loses
//! members and goes away: no operation is lost, none is driven twice.

use crate::{clients::Grpcurl, journeys::assert_moved, kills::Dice};
use causeway_tests::{
    Cluster, DEST, Kind, Op, Party, State,
    builder::USER,
    content,
    etcd::Etcd,
    operation::request,
    operator::{causeway, causeway_at},
    server::Server,
    v1,
    wait::{self, PATIENCE},
};
use proto::etcd::etcdserverpb::{RangeRequest, kv_client::KvClient};
use rustix::process::Signal;
use service::{
    Env,
    certs::Spec,
    dial::Dialer,
    status::{describe, reason_of},
};
use std::{
    fs, thread,
    time::{Duration, Instant},
};
use tonic::Code;

const PREFIX: &str = "/causeway-e2e/";
/// How long a lead outlives its leader here.
const LEASE: Duration = Duration::from_secs(3);

/// Three coordinators, and the etcd they share.
struct Panel {
    rivals: Vec<Server>,
    etcd: Etcd,
    cluster: Cluster,
}

impl Panel {
    fn start(members: usize) -> Self {
        Self::with(members, |builder| builder)
    }

    fn with(members: usize, adjust: impl FnOnce(causeway_tests::Builder) -> causeway_tests::Builder) -> Self {
        let etcd = Etcd::start(members);
        let store = store(&etcd);
        let builder = Cluster::builder().flag("coordinator", format!("--store={store}"));
        let cluster = adjust(builder).start();
        let rival = |n: usize| {
            let mut rival = cluster.rival_with(Party::Coordinator, &[]);
            rival.until_listening(PATIENCE);
            println!("coordinator {n} at {}", rival.address());
            rival
        };
        let rivals = vec![rival(1), rival(2)];
        Self { rivals, etcd, cluster }
    }

    fn addresses(&self) -> Vec<String> {
        let first = self.cluster.address(Party::Coordinator);
        std::iter::once(first).chain(self.rivals.iter().map(Server::address)).collect()
    }

    /// Who leads, as etcd has it; waits for somebody who does.
    fn leader(&self) -> usize {
        let addresses = self.addresses();
        wait::until("a coordinator that leads", PATIENCE, || {
            let leader = self.key("leader")?;
            addresses.iter().position(|address| *address == leader)
        })
    }

    fn key(&self, name: &str) -> Option<String> {
        for endpoint in self.etcd.endpoints().split(',') {
            let channel = self.cluster.block_on(async { Dialer::new(Env::real(), None).channel(endpoint) });
            let request = RangeRequest { key: format!("{PREFIX}{name}").into_bytes(), ..RangeRequest::default() };
            let mut client = KvClient::new(channel.expect("a good address"));
            if let Ok(answer) = self.cluster.call(client.range(request)) {
                return answer.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
            }
        }
        None
    }

    fn kill(&mut self, coordinator: usize) {
        match coordinator {
            0 => self.cluster.kill(Party::Coordinator),
            n => self.rivals[n - 1].kill(),
        }
    }

    fn restart(&mut self, coordinator: usize) {
        match coordinator {
            0 => self.cluster.restart(Party::Coordinator),
            n => self.rivals[n - 1].restart(),
        }
    }

    fn signal(&self, coordinator: usize, signal: Signal) {
        match (coordinator, signal) {
            (0, Signal::STOP) => self.cluster.stop(Party::Coordinator),
            (0, _) => self.cluster.resume(Party::Coordinator),
            (n, _) => self.rivals[n - 1].signal(signal),
        }
    }

    fn log(&self, coordinator: usize) -> String {
        match coordinator {
            0 => self.cluster.log_tail(Party::Coordinator, 400),
            n => self.rivals[n - 1].log_tail(400),
        }
    }

    /// Another than the one that leads, which clients ask from now on.
    fn ask_a_follower(&self, leader: usize) -> usize {
        let follower = (leader + 1) % 3;
        self.cluster.ask(&self.addresses()[follower]);
        follower
    }

    /// Kills the one that leads, and starts it again once another does.
    fn kill_the_leader(&mut self) {
        let leader = self.leader();
        self.ask_a_follower(leader);
        self.kill(leader);
        let begun = Instant::now();
        let next = self.until_another_leads(leader);
        println!("coordinator {leader} died, {next} leads after {:?}", begun.elapsed());
        self.restart(leader);
    }

    fn until_another_leads(&self, than: usize) -> usize {
        wait::until("another leader", PATIENCE, || Some(self.leader()).filter(|leader| *leader != than))
    }
}

fn store(etcd: &Etcd) -> String {
    let lease = LEASE.as_secs();
    format!("etcd://{}{PREFIX}?tls=off&lease_seconds={lease}&timeout_ms=1000", etcd.endpoints())
}

/// Starts an operation, whoever leads; the request's id makes a repeated start the same one.
fn start(cluster: &Cluster, kind: Kind, database: &str) -> String {
    let request = v1::StartOperationRequest {
        request_id: format!("start-{}", database.replace('.', "-")),
        ..request(kind, &[database])
    };
    let answer = wait::until("a start", PATIENCE, || match cluster.try_start(request.clone()) {
        Ok(answer) => Some(answer),
        Err(status) if status.code() == Code::Unavailable => None,
        Err(status) => panic!("start {database}: {}", describe(&status)),
    });
    answer.operations.into_iter().next().expect("a start answers its operations").id
}

/// Asks for completion, whoever leads, until it is under way or over.
fn complete(op: &Op<'_>) {
    op.until_ready();
    wait::until("a completion", PATIENCE, || {
        let asked = op.try_complete(Duration::ZERO).is_ok();
        let under_way = || op.look().is_some_and(|op| matches!(op.state(), State::Completing | State::Succeeded));
        (asked || under_way()).then_some(())
    });
}

/// Sees it through, with another completion if an attempt was given up.
fn succeed(op: &Op<'_>) -> v1::Operation {
    wait::until("the end", PATIENCE * 2, || {
        let now = op.look()?;
        match now.state() {
            State::Succeeded => return Some(now),
            State::ReadyForCompletion => drop(op.try_complete(Duration::ZERO)),
            State::Failed | State::Cancelled => panic!("{}", causeway_tests::operation::story(&now)),
            _ => {}
        }
        None
    })
}

/// Asks a process's hook how often it ran.
fn hook(cluster_dir: &std::path::Path) -> (String, std::path::PathBuf) {
    let file = cluster_dir.join("online");
    (format!("--on-online=echo online >> {}", file.display()), file)
}

#[test]
fn the_leader_dies_in_every_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let (flag, online) = hook(dir.path());
    let mut panel = Panel::with(1, |builder| {
        // The seed takes long enough to be killed in.
        builder.flag("source", "--seed-bytes-per-second=3000000").flag("dest", flag)
    });
    content::filled(&panel.cluster.west().database("shop.db"), 20);
    let mut application = panel.cluster.application("shop.db").with(|o| o.rate = 200.0).start();
    let id = start(&panel.cluster, Kind::Move, "shop.db");
    let state = |panel: &Panel| panel.cluster.operation(&id).now().state();
    let mut seen = Vec::new();
    for awaited in [State::Preparing, State::Seeding, State::ReadyForCompletion] {
        let op = panel.cluster.operation(&id);
        op.until_it(awaited.as_str_name(), |op| op.state() as i32 >= awaited as i32);
        seen.push(state(&panel));
        panel.kill_the_leader();
    }
    println!("killed in {seen:?}");
    assert!(seen.contains(&State::Seeding), "the seed was over before the kill: {seen:?}");
    panel.cluster.operation(&id).until_ready();
    application.until_more_commits(100);
    // While it completes, with the flip before or after the kill.
    complete(&panel.cluster.operation(&id));
    panel.kill_the_leader();
    let moved = succeed(&panel.cluster.operation(&id));
    application.until_commits_at(&panel.cluster.east().database("shop.db"), 100);
    assert_moved(&panel.cluster, "shop.db", &application.finish());
    assert_eq!(fs::read_to_string(&online).expect("the hook ran").lines().count(), 1, "driven twice: {moved:?}");

    // And while it cancels.
    content::filled(&panel.cluster.west().database("crm.db"), 1);
    let id = start(&panel.cluster, Kind::Move, "crm.db");
    panel.cluster.operation(&id).until_ready();
    panel.cluster.stop(DEST);
    wait::until("a cancel", PATIENCE, || panel.cluster.operation(&id).try_cancel().ok());
    panel.kill_the_leader();
    assert_eq!(panel.cluster.operation(&id).now().state(), State::Cancelling);
    panel.cluster.resume(DEST);
    panel.cluster.operation(&id).until(State::Cancelled);
    assert!(panel.cluster.west().is_writable("crm.db"));
}

/// Kills the leader at random moments of completions of moves, so that in many rounds every step is hit.
fn dies_while_completing(rounds: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    let (flag, online) = hook(dir.path());
    let mut panel = Panel::with(1, |builder| builder.flag("dest", flag));
    let mut dice = Dice::new();
    for round in 0..rounds {
        let name = format!("round-{round}.db");
        let mut application = panel.cluster.application(&name).new_database().with(|o| o.rate = 300.0).start();
        let id = start(&panel.cluster, Kind::Move, &name);
        panel.cluster.operation(&id).until_ready();
        complete(&panel.cluster.operation(&id));
        let delay = Duration::from_micros(dice.below(40_000));
        thread::sleep(delay);
        panel.kill_the_leader();
        let after = succeed(&panel.cluster.operation(&id));
        println!("round {round}: died after {delay:?}, attempt {}", after.attempt);
        application.until_commits_at(&panel.cluster.east().database(&name), 50);
        assert_moved(&panel.cluster, &name, &application.finish());
        let ran = fs::read_to_string(&online).expect("the hook ran").lines().count();
        assert_eq!(ran, round as usize + 1, "driven twice: {after:?}");
    }
}

#[test]
fn the_leader_dies_at_any_moment_of_a_completion() {
    dies_while_completing(3);
}

#[test]
#[ignore = "a soak: `make soak` runs it"]
fn the_leader_dies_at_any_moment_of_many_completions() {
    dies_while_completing(60);
}

#[test]
fn a_leader_that_was_paused_beyond_its_lease_changes_nothing() {
    let panel = Panel::start(1);
    content::filled(&panel.cluster.west().database("shop.db"), 1);
    let mut application = panel.cluster.application("shop.db").with(|o| o.rate = 200.0).start();
    let id = start(&panel.cluster, Kind::Move, "shop.db");
    let op = || panel.cluster.operation(&id);
    op().until_ready();
    let stale = panel.leader();
    let follower = panel.ask_a_follower(stale);
    // The leader is in the middle of a cutover that cannot go on, and is then paused with it.
    panel.cluster.stop(DEST);
    complete(&op());
    panel.signal(stale, Signal::STOP);
    // What is passed on to it is answered all the same, once it has lost the lead.
    let mut asking =
        v1::coordinator_client::CoordinatorClient::new(panel.cluster.channel(&panel.addresses()[follower], USER));
    let refused = panel.cluster.call(asking.get_operation(v1::GetOperationRequest { id: id.clone() }));
    let refused = describe(&refused.expect_err("the one that is asked is paused"));
    assert!(refused.contains("has lost the lead"), "{refused}");
    let leader = panel.until_another_leads(stale);
    // The follower may learn of the new leader a moment after etcd does, and still ask the one that is paused.
    wait::until("a cancel", PATIENCE, || op().try_cancel().ok());
    panel.cluster.resume(DEST);
    op().until(State::Cancelled);
    let traces = panel.cluster.east().traces();
    // It wakes up with its cutover in hand.
    panel.signal(stale, Signal::CONT);
    wait::until("the stale leader to know", PATIENCE, || panel.log(stale).contains("has run out").then_some(()));
    // It does what was in its hands at once, or never: it has asked all of its agents by now.
    application.until_more_commits(100);
    assert!(panel.cluster.west().is_writable("shop.db"), "the stale leader fenced the source");
    assert_eq!(panel.cluster.east().traces(), traces, "the stale leader made something");
    panel.cluster.ask(&panel.addresses()[stale]);
    assert_eq!(op().now().state(), State::Cancelled, "the one that was stale passes requests on");
    // And it passes on a start, and the next leader goes on with it.
    let again = v1::StartOperationRequest { request_id: "again".to_owned(), ..request(Kind::Move, &["shop.db"]) };
    let id = wait::until("a start", PATIENCE, || panel.cluster.try_start(again.clone()).ok()).operations[0].id.clone();
    panel.signal(leader, Signal::STOP);
    panel.until_another_leads(leader);
    complete(&panel.cluster.operation(&id));
    succeed(&panel.cluster.operation(&id));
    panel.signal(leader, Signal::CONT);
    application.until_commits_at(&panel.cluster.east().database("shop.db"), 50);
    assert_moved(&panel.cluster, "shop.db", &application.finish());
}

#[test]
fn etcd_loses_members_and_then_all_of_itself_for_longer_than_the_lease() {
    let mut panel = Panel::start(3);
    content::filled(&panel.cluster.west().database("shop.db"), 5);
    let mut application = panel.cluster.application("shop.db").with(|o| o.rate = 200.0).start();
    let id = start(&panel.cluster, Kind::Move, "shop.db");
    panel.cluster.operation(&id).until_ready();
    // One of three: whoever it is, the coordinators go on with the others.
    for member in 0..3 {
        panel.etcd.kill(member);
        let other = format!("other-{member}.db");
        content::filled(&panel.cluster.west().database(&other), 1);
        let id = start(&panel.cluster, Kind::Copy, &other);
        complete(&panel.cluster.operation(&id));
        succeed(&panel.cluster.operation(&id));
        panel.etcd.restart(member);
    }
    // All of it, in the middle of a completion.
    panel.cluster.stop(DEST);
    complete(&panel.cluster.operation(&id));
    for member in 0..3 {
        panel.etcd.kill(member);
    }
    let refused = wait::until("the refusal", PATIENCE, || {
        let request = v1::GetOperationRequest { id: id.clone() };
        panel
            .cluster
            .call(panel.cluster.coordinator().get_operation(request))
            .err()
            .filter(|status| reason_of(status).as_deref() == Some("NO_LEADER"))
    });
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(describe(&refused).contains("etcd"), "{}", describe(&refused));
    panel.cluster.resume(DEST);
    thread::sleep(LEASE * 2);
    for member in 0..3 {
        panel.etcd.restart(member);
    }
    succeed(&panel.cluster.operation(&id));
    application.until_commits_at(&panel.cluster.east().database("shop.db"), 100);
    assert_moved(&panel.cluster, "shop.db", &application.finish());
}

#[test]
fn any_coordinator_answers_for_the_one_that_leads() {
    let panel = Panel::with(1, |builder| builder.both_ways());
    let leader = panel.leader();
    let follower = panel.ask_a_follower(leader);
    content::filled(&panel.cluster.west().database("shop.db"), 1);
    let id = start(&panel.cluster, Kind::Move, "shop.db");
    let op = panel.cluster.operation(&id);
    // Through the command line, with all of the addresses, of which the first is nobody's.
    let all = format!("127.0.0.1:1,{}", panel.addresses().join(","));
    let shown = causeway_at(&panel.cluster, &all, &["operation", "show", &op.id]);
    assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
    let watched =
        causeway_at(&panel.cluster, &panel.addresses()[follower], &["operation", "watch", &op.id, "--until", "ready"]);
    assert_eq!(watched.status.code(), Some(0), "{}", String::from_utf8_lossy(&watched.stderr));
    // Through a client that is not ours, which knows the services by reflection only.
    let grpcurl = Grpcurl::at(&panel.cluster, panel.addresses()[follower].clone(), USER);
    let got = grpcurl.call("causeway.v1.Coordinator/GetOperation", &serde_json::json!({ "id": op.id }));
    assert_eq!(got[0]["operation"]["database"], "shop.db");
    // Who asks stays who they are; and nobody but a coordinator speaks for others.
    let who = |certificate: &str, at: usize, on_behalf: Option<&str>| {
        let channel = panel.cluster.channel(&panel.addresses()[at], certificate);
        let mut client = v1::coordinator_client::CoordinatorClient::new(channel);
        let mut request = tonic::Request::new(v1::WhoAmIRequest {});
        if let Some(name) = on_behalf {
            request.metadata_mut().insert("causeway-on-behalf-of", name.parse().expect("a name"));
            request.metadata_mut().insert("causeway-from", "10.0.0.1:1".parse().expect("an address"));
        }
        panel.cluster.call(client.who_am_i(request)).expect("an answer").principal
    };
    panel.cluster.issue(Spec::new("ann", "spiffe://causeway/user/ann", Env::real().now()));
    assert_eq!(who("ann", follower, None), "user:ann");
    assert_eq!(who("ann", leader, Some("user:tester")), "user:ann");
    assert_eq!(who("ann", follower, Some("user:tester")), "user:ann");
    let completed = causeway(&panel.cluster, &["operation", "list"]);
    assert_eq!(completed.status.code(), Some(0));
    complete(&op);
    succeed(&op);
}

#[test]
fn a_store_moves_from_a_file_to_etcd_in_the_middle_of_an_operation() {
    let etcd = Etcd::start(1);
    let cluster = Cluster::new();
    content::filled(&cluster.west().database("shop.db"), 1);
    let mut application = cluster.application("shop.db").with(|o| o.rate = 200.0).start();
    let op: Op<'_> = cluster.start_move("shop.db");
    op.until_ready();
    let (from, to) = (format!("redb:{}", cluster.store().display()), store(&etcd));
    let early = causeway(&cluster, &["store", "copy", &from, &to]);
    let why = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(early.status.code() == Some(4) && why.contains("another process uses it"), "{why}");
    cluster.kill(Party::Coordinator);
    let copied = causeway(&cluster, &["store", "copy", &from, &to]);
    assert_eq!(copied.status.code(), Some(0), "{}", String::from_utf8_lossy(&copied.stderr));
    println!("{}", String::from_utf8_lossy(&copied.stdout));
    cluster.set_flag(Party::Coordinator, &format!("--store={to}"));
    cluster.restart(Party::Coordinator);
    op.until_ready();
    let busy = causeway(&cluster, &["store", "copy", &to, "redb:/tmp/causeway-never-made.redb"]);
    let why = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(busy.status.code() == Some(4) && why.contains("stop all coordinators"), "{why}");
    application.until_more_commits(50);
    complete(&op);
    succeed(&op);
    application.until_commits_at(&cluster.east().database("shop.db"), 50);
    assert_moved(&cluster, "shop.db", &application.finish());
}
