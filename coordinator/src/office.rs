//! Who answers requests here: this coordinator while it leads, else whoever does.

use std::sync::Arc;
use std::time::Duration;

use service::Env;
use tokio::sync::watch;

use crate::{core::Core, store::etcd};

/// Where requests go.
#[derive(Clone)]
pub enum Standing {
    /// This coordinator leads.
    Leading(Arc<Core>),
    /// The coordinator at this address does.
    Following(String),
    /// Nobody can be found, and why.
    Vacant(String),
}

/// The present standing. Cloning is cheap; clones share it.
#[derive(Clone)]
pub struct Office {
    standing: watch::Sender<Standing>,
}

impl Office {
    /// Nobody has been found yet.
    pub fn new() -> Self {
        Self { standing: watch::Sender::new(Standing::Vacant("this coordinator is starting".to_owned())) }
    }

    /// As it is now.
    pub fn now(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Completes once the coordinator at `address` is not known to lead any more.
    pub async fn until_left_by(&self, address: &str) {
        let led = |standing: &Standing| matches!(standing, Standing::Following(leader) if leader == address);
        // The sender lives as long as this does.
        let _ = self.standing.subscribe().wait_for(|standing| !led(standing)).await;
    }

    /// It has changed.
    pub fn set(&self, standing: Standing) {
        // What stood before is dropped after the lock is free.
        drop(self.standing.send_replace(standing));
    }

    /// What the election has found.
    pub fn see(&self, seen: etcd::Seen) {
        if let (etcd::Seen::Leader(leader), false) = (&seen, matches!(self.now(), Standing::Following(_))) {
            tracing::info!(leader, "following");
        }
        self.set(match seen {
            etcd::Seen::Leader(address) => Standing::Following(address),
            etcd::Seen::Nobody(why) => Standing::Vacant(why),
        });
    }
}

impl Default for Office {
    fn default() -> Self {
        Self::new()
    }
}

/// For how long this coordinator may give commands: for ever, or until its lease runs out.
#[derive(Debug, Clone, Default)]
pub struct Mandate {
    until: Option<etcd::Until>,
}

impl Mandate {
    /// Until the lease of a lead runs out.
    pub fn until(lead: &etcd::Lead) -> Self {
        Self { until: Some(lead.until()) }
    }

    /// Whether it lasts. A leader that was paused finds out here, before it gives another command; what it sent before was sent
    /// while it led, and a newer leader's commands carry newer versions.
    pub fn lasts(&self, env: &Env) -> bool {
        self.until.as_ref().is_none_or(|until| env.monotonic() < until.at())
    }

    /// Completes at once while it lasts, and else never: whoever waits is about to be ended.
    pub async fn require(&self, env: &Env) {
        // Looked at again, because a lease may be found to last longer after all.
        while !self.lasts(env) {
            env.sleep(Duration::from_millis(100)).await;
        }
    }
}
