//! The stage: certificates, two instances, a database, and the five servers.

use std::{fs, path::Path};

use ledger::{FillOptions, fill};
use proto::v1;
use service::{Tls, TlsFiles, certs::issue_dev, dial::Dialer};

use super::{
    children::{Children, Programs},
    story::Story,
};
use crate::{
    args::DemoArgs,
    commands::{Context, certs},
    failure::Failure,
    rpc::Client,
    units,
};

/// The two instances.
pub(super) const WEST: &str = "west";
/// Where the database goes.
pub(super) const EAST: &str = "east";
/// The database, which for SQLite is a file in the instance's directory.
pub(super) const DATABASE: &str = "shop.db";
/// Who the demo is to the coordinator.
const USER: &str = "demo";

/// Makes everything up to the servers, and connects to the coordinator.
pub(super) async fn set(
    context: &Context<'_>,
    args: &DemoArgs,
    programs: &Programs,
    dir: &Path,
    children: &mut Children,
    story: &mut Story,
) -> Result<Client, Failure> {
    certificates(context, dir, story).await?;
    database(context, args, dir, story).await?;

    story.begin("processes", "starting a coordinator and four agents");
    start_servers(programs, dir, children)?;
    let addresses = children.addresses(&context.env).await?;
    let [coordinator, west_source, west_dest, east_source, east_dest] = addresses.as_slice() else {
        return Err(Failure::local("start the servers", &std::io::Error::other("one is missing")));
    };
    let tls = Tls::load(&context.env, TlsFiles::in_dir(&dir.join("certs"), &format!("user-{USER}"))).await;
    let tls = tls.map_err(|error| Failure::local("load the demo's certificate", &error))?;
    let client = Client::dial(&Dialer::new(context.env.clone(), Some(tls)), coordinator).await?;
    for (name, source_agent, dest_agent) in [(WEST, west_source, west_dest), (EAST, east_source, east_dest)] {
        let instance = v1::Instance {
            name: name.to_owned(),
            engine: "sqlite".to_owned(),
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

async fn certificates(context: &Context<'_>, dir: &Path, story: &mut Story) -> Result<(), Failure> {
    story.begin("certificates", "making an authority");
    let now = context.env.now();
    let specs = certs::specs(&[WEST.to_owned(), EAST.to_owned()], &[USER.to_owned()], now);
    let count = specs.len();
    let certs = dir.join("certs");
    context
        .env
        .blocking(move || issue_dev(&certs, &specs, now))
        .await
        .map_err(|error| Failure::local("make certificates", &error))?;
    story.done(format!("an authority and {count} certificates: every connection below is mutual TLS"));
    Ok(())
}

async fn database(context: &Context<'_>, args: &DemoArgs, dir: &Path, story: &mut Story) -> Result<(), Failure> {
    story.begin("database", format!("filling {} MB", args.size_mb));
    for place in [WEST, EAST, "logs"] {
        fs::create_dir_all(dir.join(place)).map_err(|error| Failure::local("make the instances", &error))?;
    }
    let options = FillOptions::new(dir.join(WEST).join(DATABASE), args.size_mb);
    let filled = context.env.blocking(move || fill(&options)).await;
    let filled = filled.map_err(|error| Failure::local("fill the database", &error))?;
    let name = story.accent(&format!("{WEST}/{DATABASE}"));
    story.done(format!("{name}, {}, {} rows", units::bytes(filled.bytes), units::count(filled.rows)));
    Ok(())
}

/// In the order: coordinator, then source and destination agent of west and of east.
fn start_servers(programs: &Programs, dir: &Path, children: &mut Children) -> Result<(), Failure> {
    let certs = dir.join("certs");
    let mut start = |name: &str, program: &str, more: Vec<String>| {
        let file = |ending: &str| certs.join(format!("{name}{ending}")).display().to_string();
        let mut args = vec![
            "--listen=127.0.0.1:0".to_owned(),
            format!("--ca={}", certs.join("ca.pem").display()),
            format!("--cert={}", file(".pem")),
            format!("--key={}", file("-key.pem")),
        ];
        args.extend(more);
        children.start(name, &programs.path(program), &args, dir.join("logs").join(format!("{name}.log")))
    };
    let store = format!("--store=redb:{}", dir.join("coordinator.redb").display());
    start("coordinator", "causeway-coordinator", vec![store])?;
    for instance in [WEST, EAST] {
        for half in ["agent-source", "agent-dest"] {
            let databases = format!("--dir={}", dir.join(instance).display());
            let more = vec![format!("--instance={instance}"), "--engine=sqlite".to_owned(), databases];
            start(&format!("{half}-{instance}"), &format!("causeway-{half}"), more)?;
        }
    }
    Ok(())
}
