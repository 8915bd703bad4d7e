//! An agent under test, and a client that commands it.

use agent::config::COORDINATOR_IDENTITY;
use causeway_agent_source::{Error, config::Settings, run};
use engines::{
    host::RealHost,
    memory::{MemoryInstance, MemorySource},
    source::SourceEngine,
};
use handover::InstanceName;
use proto::v1::source_agent_client::SourceAgentClient;
use service::{Env, Shutdown, Tls, dial::Dialer};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// Nothing here takes a second; a test that waits in vain should say so soon.
pub const PATIENCE: Duration = Duration::from_secs(10);

fn settings() -> Settings {
    Settings {
        instance: InstanceName::parse("west").expect("a name"),
        coordinator_identities: vec![COORDINATOR_IDENTITY.to_owned()],
        fence_timeout: Duration::from_secs(60),
        seed_lanes: 1,
        compress: false,
        seed_bytes_per_second: 0,
    }
}

/// An agent under test.
pub struct Agent {
    address: String,
    pub shutdown: Shutdown,
    pub task: JoinHandle<Result<(), Error>>,
}

/// Starts one over an engine.
pub async fn start(env: &Env, engine: Arc<dyn SourceEngine>, tls: Option<Tls>) -> Agent {
    let listener = env.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let shutdown = Shutdown::new();
    let task = tokio::spawn(run(env.clone(), listener, tls, engine, settings(), shutdown.clone()));
    Agent { address, shutdown, task }
}

pub fn memory(instance: &MemoryInstance) -> Arc<MemorySource> {
    Arc::new(MemorySource::new(instance.clone(), Arc::new(RealHost)))
}

pub async fn client(env: &Env, agent: &Agent) -> SourceAgentClient<tonic::transport::Channel> {
    let channel = Dialer::new(env.clone(), None).connect(&agent.address).await.expect("the agent answers");
    SourceAgentClient::new(channel)
}
