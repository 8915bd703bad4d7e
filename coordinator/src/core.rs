//! What the driver and the calls of users share.

use handover::CommandVersion;
use service::{Env, Shutdown};

use crate::{agents::Agents, config::Limits, driver::Hub, instances::Instances, office::Mandate, store::Records};

/// The parts of a coordinator, each made once.
pub struct Core {
    /// Clock, randomness, network.
    pub env: Env,
    /// Limits, thresholds and times.
    pub limits: Limits,
    /// The store.
    pub records: Records,
    /// The instances.
    pub instances: Instances,
    /// How to call agents.
    pub agents: Agents,
    /// What is known in memory.
    pub hub: Hub,
    /// Held by whoever decides by a count over several operations, from the count to the commit: starts and changes of
    /// instances. Admissions from a queue have a gate for each source, in the hub.
    pub gate: tokio::sync::Mutex<()>,
    /// For how long commands may be given.
    pub mandate: Mandate,
    /// Triggered when the process is to end, or another coordinator leads.
    pub shutdown: Shutdown,
}

impl Core {
    /// Wall clock in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.env.now().as_millis()
    }

    /// Completes once the hub counts what was committed at `version`; or the process ends, and nobody counts any more.
    pub async fn caught_up(&self, version: CommandVersion) {
        tokio::select! {
            biased;
            () = self.hub.caught_up(version) => {}
            () = self.shutdown.wait() => {}
        }
    }
}
