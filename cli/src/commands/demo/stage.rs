//! The stage: certificates, two instances, a database, and the five servers.

use std::{fs, path::Path};

use proto::v1;
use service::{Tls, TlsFiles, certs::issue_dev, dial::Dialer};

use super::{
    children::{Children, Programs},
    instances::Instances,
    story::Story,
};
use crate::{
    args::DemoArgs,
    commands::{Context, certs},
    failure::Failure,
    rpc::{Bearer, Client},
    units,
};

/// The two instances.
pub(super) const WEST: &str = "west";
/// Where the database goes.
pub(super) const EAST: &str = "east";
/// Who the demo is to the coordinator.
const USER: &str = "demo";

/// Starts the processes, and connects to the coordinator.
pub(super) async fn set(
    context: &Context<'_>,
    dir: &Path,
    programs: &Programs,
    instances: &Instances,
    children: &mut Children,
    story: &mut Story,
) -> Result<Client, Failure> {
    story.begin("processes", "starting a coordinator and four agents");
    start_servers(programs, dir, instances, children)?;
    let addresses = children.addresses(&context.env).await?;
    let [coordinator, west_source, west_dest, east_source, east_dest] = addresses.as_slice() else {
        return Err(Failure::local("start the servers", &std::io::Error::other("one is missing")));
    };
    let tls = Tls::load(&context.env, TlsFiles::in_dir(&dir.join("certs"), &format!("user-{USER}"))).await;
    let tls = tls.map_err(|error| Failure::local("load the demo's certificate", &error))?;
    let client = Client::dial(&Dialer::new(context.env.clone(), Some(tls)), coordinator, Bearer::default()).await?;
    for (name, source_agent, dest_agent) in [(WEST, west_source, west_dest), (EAST, east_source, east_dest)] {
        let instance = v1::Instance {
            name: name.to_owned(),
            engine: instances.engine().to_owned(),
            source_agent: source_agent.clone(),
            dest_agent: dest_agent.clone(),
            subscription: "demo".to_owned(),
            resource_group: "demo".to_owned(),
            region: "here".to_owned(),
            ..v1::Instance::default()
        };
        let request = v1::RegisterInstanceRequest { instance: Some(instance) };
        client.register_instance(&format!("register instance {name}"), request).await?;
    }
    story.done(format!(
        "coordinator at {coordinator}; source and destination agents for {} and {}",
        story.accent(WEST),
        story.accent(EAST)
    ));
    Ok(client)
}

/// Makes the certificates.
pub(super) async fn certificates(
    context: &Context<'_>,
    args: &DemoArgs,
    dir: &Path,
    story: &mut Story,
) -> Result<(), Failure> {
    story.begin("certificates", "making an authority");
    let now = context.env.now();
    let mut specs = certs::specs(&[WEST.to_owned(), EAST.to_owned()], &[USER.to_owned()], now);
    specs.extend(super::instances::specs(args.engine, now));
    let count = specs.len();
    let certs = dir.join("certs");
    context
        .env
        .blocking(move || issue_dev(&certs, &specs, now))
        .await
        .map_err(|error| Failure::local("make certificates", &error))?;
    certs::write_policy(&dir.join("certs"), &[USER.to_owned()])
        .map_err(|error| Failure::local("write a policy", &error))?;
    story.done(format!("an authority and {count} certificates: every connection below is mutual TLS"));
    Ok(())
}

/// Makes the two instances, and the database at west.
pub(super) async fn instances<'a>(
    context: &Context<'_>,
    args: &DemoArgs,
    dir: &Path,
    made: &'a mut Option<Instances>,
    story: &mut Story,
) -> Result<&'a Instances, Failure> {
    fs::create_dir_all(dir.join("logs")).map_err(|error| Failure::local("make the instances", &error))?;
    story.begin("instances", "making west and east");
    let instances = &*made.insert(Instances::make(args.engine, &context.env, dir, args.keep).await?);
    if let Some(described) = instances.described() {
        story.done(described);
    }
    story.begin("database", format!("filling {} MB", args.size_mb));
    let filled = instances.fill(&context.env, args.size_mb).await?;
    let name = story.accent(&format!("{WEST}/{}", instances.database()));
    story.done(format!("{name}, {}, {} rows", units::bytes(filled.bytes), units::count(filled.rows)));
    Ok(instances)
}

/// In the order: coordinator, then source and destination agent of west and of east.
fn start_servers(
    programs: &Programs,
    dir: &Path,
    instances: &Instances,
    children: &mut Children,
) -> Result<(), Failure> {
    let certs = dir.join("certs");
    let mut start = |name: &str, program: &str, more: Vec<String>, secrets: &[(&str, String)]| {
        let file = |ending: &str| certs.join(format!("{name}{ending}")).display().to_string();
        let mut args = vec![
            "--listen=127.0.0.1:0".to_owned(),
            format!("--ca={}", certs.join("ca.pem").display()),
            format!("--cert={}", file(".pem")),
            format!("--key={}", file("-key.pem")),
        ];
        args.extend(more);
        let log = dir.join("logs").join(format!("{name}.log"));
        children.start(name, &programs.path(program), &args, secrets, log)
    };
    let store = format!("--store=redb:{}", dir.join("coordinator.redb").display());
    let policy = format!("--policy={}", certs.join(certs::POLICY).display());
    let audit = format!("--audit={}", dir.join("logs/audit.jsonl").display());
    start("coordinator", "causeway-coordinator", vec![store, policy, audit], &[])?;
    for instance in [WEST, EAST] {
        for half in ["agent-source", "agent-dest"] {
            let (mut more, secrets) = instances.agent(instance, half, &certs);
            more.push(format!("--instance={instance}"));
            start(&format!("{half}-{instance}"), &format!("causeway-{half}"), more, &secrets)?;
        }
    }
    Ok(())
}
