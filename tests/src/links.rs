//! The links of a cluster, each at a fixed address: a process or server may be started elsewhere and is found all the same.

use crate::{builder::Party, proxy::Proxy};
use tokio::runtime::Handle;

/// All links of a cluster that moves from west to east.
#[derive(Debug)]
pub struct Links {
    /// Users to the coordinator.
    pub users: Proxy,
    /// The coordinator to the source agent.
    pub source: Proxy,
    /// The coordinator to the destination agent.
    pub dest: Proxy,
    /// The source agent to the destination agent.
    pub transfer: Proxy,
    /// Agents and applications to west's server, if it is one.
    pub west: Proxy,
    /// The same for east's.
    pub east: Proxy,
}

impl Links {
    pub(crate) fn start(runtime: &Handle) -> Self {
        let link = || Proxy::start(runtime).expect("listen on loopback");
        Self { users: link(), source: link(), dest: link(), transfer: link(), west: link(), east: link() }
    }

    /// The link over which a party is given its commands or requests.
    pub fn to(&self, party: Party) -> &Proxy {
        match party {
            Party::Coordinator => &self.users,
            Party::Source(_) => &self.source,
            Party::Dest(_) => &self.dest,
        }
    }

    /// The link to an instance's server.
    pub fn to_server(&self, instance: &str) -> &Proxy {
        if instance == "west" { &self.west } else { &self.east }
    }

    /// A party listens here from now on.
    pub fn lead_to(&self, party: Party, address: &str) {
        self.to(party).lead_to(address);
        if let Party::Dest(_) = party {
            self.transfer.lead_to(address);
        }
    }
}
