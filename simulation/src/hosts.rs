//! The processes: the services' own code, put together as their `main` functions do.

use crate::{
    engine::{SimDest, SimSource},
    env::env,
    world::{COORDINATOR, DEST, PORT, SOURCE, World},
};
use coordinator::{
    Config, Coordinator,
    auth::AuthConfig,
    config::StoreAddress,
    store::{self, InstanceRecord, RedbStore},
};
use handover::InstanceName;
use service::{dial::Dialer, env::Listener};
use std::{path::Path, sync::Arc, time::Duration};

/// Where a machine serves.
pub fn address(machine: &str) -> String {
    format!("{machine}:{PORT}")
}

fn instance(name: &str) -> InstanceName {
    InstanceName::parse(name).expect("a plain name")
}

fn record(name: &str, source_agent: String, dest_agent: String) -> InstanceRecord {
    InstanceRecord {
        name: instance(name),
        engine: "memory".to_owned(),
        source_agent,
        dest_agent,
        transfer_address: String::new(),
        subscription: String::new(),
        resource_group: String::new(),
        region: String::new(),
        failover_group: String::new(),
        source_identity: String::new(),
        dest_identity: String::new(),
    }
}

/// A dialer of the users.
pub fn dialer(world: &World) -> Dialer {
    Dialer::new(env(&world.users), None)
}

async fn listen(env: &service::Env) -> Box<dyn Listener> {
    service::serve::bind(env, &format!("0.0.0.0:{PORT}"), false).await.expect("a port that nobody else has")
}

/// The coordinator's process.
pub async fn coordinator(world: Arc<World>) -> turmoil::Result {
    let process = world.machines[0].start();
    let env = env(&process);
    let listener = listen(&env).await;
    let store = match RedbStore::open_on(&env, Path::new("store"), world.disk.of(&process)).await {
        Ok(store) => store,
        Err(error) => {
            if !matches!(error, store::Error::Full { .. } | store::Error::Io { .. }) {
                world.violated(format!("the store does not open: {error}"));
            }
            process.note(format_args!("the store does not open: {error}"));
            return Ok(());
        }
    };
    let instances = vec![record("west", address(SOURCE), String::new()), record("east", String::new(), address(DEST))];
    let config = Config {
        store: StoreAddress::Redb("store".into()),
        limits: world.limits.clone(),
        instances,
        auth: AuthConfig::default(),
    };
    let coordinator = Coordinator::over(env, None, config, Arc::new(store)).await?;
    let ended = coordinator.run(listener, process.shutdown.clone()).await;
    process.note(format_args!("{COORDINATOR} ends: {:?}", ended.err().map(|error| error.to_string())));
    Ok(())
}

/// The source agent's process.
pub async fn source(world: Arc<World>, fence_timeout: Duration) -> turmoil::Result {
    let process = world.machines[1].start();
    let env = env(&process);
    let listener = listen(&env).await;
    let engine = Arc::new(SimSource::new(world.west.clone(), &process, world.planted));
    let settings = agent_source::config::Settings {
        instance: instance("west"),
        coordinator_identities: vec!["spiffe://causeway/coordinator".to_owned()],
        fence_timeout,
        seed_lanes: 2,
        compress: false,
        seed_bytes_per_second: 0,
    };
    let ended = agent_source::run(env, listener, None, engine, settings, process.shutdown.clone()).await;
    process.note(format_args!("{SOURCE} ends: {:?}", ended.err().map(|error| error.to_string())));
    Ok(())
}

/// The destination agent's process.
pub async fn dest(world: Arc<World>) -> turmoil::Result {
    let process = world.machines[2].start();
    let env = env(&process);
    let listener = listen(&env).await;
    let engine = Arc::new(SimDest::new(world.east.clone(), &process, world.planted));
    let settings = agent_dest::config::Settings::new(instance("east"));
    let ended = agent_dest::run(env, listener, None, engine, settings, process.shutdown.clone()).await;
    process.note(format_args!("{DEST} ends: {:?}", ended.err().map(|error| error.to_string())));
    Ok(())
}
