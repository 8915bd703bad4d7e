//! Two network namespaces joined by a veth pair: the peered networks of two instances on one machine.
//!
//! Needs root and iproute2. The addresses exist inside the namespaces only.

use crate::builder::Site;
use rustix::thread::LinkNameSpaceType;
use std::{
    fs::File,
    os::fd::AsFd,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// The namespaces, gone when dropped.
#[derive(Debug)]
pub struct Networks {
    tag: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The address of the coordinator's and west's namespace.
pub const WEST: &str = "10.99.0.1";
/// The address of east's namespace.
pub const EAST: &str = "10.99.0.2";

impl Networks {
    /// Makes both namespaces and joins them.
    pub fn joined() -> Self {
        // Interface names have at most 15 characters.
        let networks = Self { tag: format!("{:x}{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) };
        let (west, east) = (networks.namespace("west"), networks.namespace("east"));
        ip(&["netns", "add", &west]);
        ip(&["netns", "add", &east]);
        let (w, e) = (networks.interface("w"), networks.interface("e"));
        ip(&["link", "add", &w, "netns", &west, "type", "veth", "peer", "name", &e, "netns", &east]);
        for (namespace, interface, address) in [(&west, &w, WEST), (&east, &e, EAST)] {
            ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", interface]);
            ip(&["-n", namespace, "link", "set", interface, "up"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        networks
    }

    /// Where a process of a namespace lives.
    pub fn site(&self, of: &str) -> Site {
        let host = if of == "west" { WEST } else { EAST };
        let wrapper = ["ip", "netns", "exec", &self.namespace(of)].map(str::to_owned).to_vec();
        Site { host: host.to_owned(), wrapper }
    }

    /// Moves this thread, and those it starts from now on, into a namespace: a cluster that is made by it has its clients
    /// there. libtest runs each test in a thread of its own, so it needs no way back.
    pub fn enter(&self, of: &str) {
        let namespace = File::open(Path::new("/run/netns").join(self.namespace(of))).expect("open the namespace");
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("enter the namespace");
    }

    /// The name of a namespace: "west" or "east".
    pub fn namespace(&self, of: &str) -> String {
        format!("cw{}-{of}", self.tag)
    }

    /// Takes west's end of the link down.
    pub fn cut(&self) {
        ip(&["-n", &self.namespace("west"), "link", "set", &self.interface("w"), "down"]);
    }

    /// Brings it up again.
    pub fn mend(&self) {
        ip(&["-n", &self.namespace("west"), "link", "set", &self.interface("w"), "up"]);
    }

    fn interface(&self, end: &str) -> String {
        format!("cw{}{end}", self.tag)
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for of in ["west", "east"] {
            // The veth pair goes with its namespace; one that was not made need not go.
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(of)]).output();
        }
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("run ip (Debian package iproute2)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {said}(needs root and iproute2)", args.join(" "));
}
