//! Hurting a party in one of the ways, and making it well again.

use super::{Engine, Fault, Victim, cell::Stage};
use crate::{
    application::Application,
    builder::{DEST, Party, SOURCE},
    proxy::Proxy,
    wait::PATIENCE,
};
use rustix::process::Signal;
use std::{thread, time::Duration};

/// How long what was killed or cut stays away.
const AWAY: Duration = Duration::from_secs(1);

/// What an agent that another one took over ends with.
const SUPERSEDED: i32 = 75;

impl Stage {
    /// Hurts a party; `go` lets the process at the failpoint go on, once the party is hurt. Returns when it is well again.
    #[track_caller]
    pub fn strike(&self, victim: Victim, fault: Fault, application: &mut Option<Application>, go: impl FnOnce()) {
        let links = self.cluster.links();
        match (victim, self.engine) {
            (Victim::Coordinator, _) => self.process(Party::Coordinator, fault, go),
            (Victim::Source, _) => self.process(SOURCE, fault, go),
            (Victim::Dest, _) => self.process(DEST, fault, go),
            (Victim::West, Engine::Sqlite) => self.writers_process(fault, application, go),
            (Victim::West, Engine::Postgres) => self.server("west", fault, go),
            (Victim::East, _) => self.server("east", fault, go),
            (Victim::Transfer, _) => self.links(&[&links.transfer], fault, go),
            (Victim::Control, _) => self.links(&[&links.source, &links.dest], fault, go),
        }
    }

    fn process(&self, party: Party, fault: Fault, go: impl FnOnce()) {
        match (fault, party) {
            (Fault::Kill, _) => {
                self.cluster.kill(party);
                go();
                thread::sleep(AWAY);
                self.cluster.restart(party);
            }
            (Fault::Stop, _) => {
                self.cluster.stop(party);
                go();
                thread::sleep(self.stop);
                self.cluster.resume(party);
            }
            // Its store is locked as long as a process has it open, so there is no second one beside a stopped one.
            (Fault::Elsewhere, Party::Coordinator) => {
                self.cluster.kill(party);
                go();
                let mut other = self.cluster.rival(party);
                other.until_listening(PATIENCE);
                self.cluster.replace(party, other);
            }
            (Fault::Elsewhere, Party::Source(_) | Party::Dest(_)) => {
                self.cluster.stop(party);
                go();
                let mut other = self.cluster.rival(party);
                other.until_listening(PATIENCE);
                let mut first = self.cluster.replace(party, other);
                first.signal(Signal::CONT);
                let status = first.until_exit(PATIENCE);
                assert_eq!(status.code(), Some(SUPERSEDED), "the one that was taken over: {}", first.log_tail(10));
            }
        }
    }

    fn server(&self, instance: &'static str, fault: Fault, go: impl FnOnce()) {
        let server = self.cluster.postgres(instance);
        match fault {
            Fault::Kill => {
                server.kill();
                go();
                thread::sleep(AWAY);
                server.restart();
            }
            Fault::Stop => {
                server.signal_all(Signal::STOP);
                go();
                thread::sleep(self.stop);
                server.signal_all(Signal::CONT);
            }
            Fault::Elsewhere => {
                server.kill();
                go();
                server.restart_elsewhere();
                let port = server.server().port();
                self.cluster.links().to_server(instance).lead_to(format!("127.0.0.1:{port}"));
            }
        }
    }

    fn writers_process(&self, fault: Fault, application: &mut Option<Application>, go: impl FnOnce()) {
        match fault {
            Fault::Stop => {
                let running = application.as_ref().expect("the application writes");
                running.signal(Signal::STOP);
                go();
                thread::sleep(self.stop);
                running.signal(Signal::CONT);
            }
            Fault::Kill | Fault::Elsewhere => {
                drop(application.take());
                go();
                thread::sleep(AWAY);
                *application = Some(self.writers(2).start());
            }
        }
    }

    fn links(&self, links: &[&Proxy], fault: Fault, go: impl FnOnce()) {
        let each = |act: fn(&Proxy)| links.iter().for_each(|link| act(link));
        match fault {
            Fault::Kill | Fault::Elsewhere => each(Proxy::cut),
            Fault::Stop => each(Proxy::hold),
        }
        go();
        thread::sleep(if fault == Fault::Stop { self.stop } else { AWAY });
        each(Proxy::mend);
    }
}
