//! `coordinator adopt`: for a coordinator whose store was lost.

use std::path::Path;

use proto::v1::{self, AdoptOperationsRequest, RegisterInstanceRequest};
use serde::Deserialize;

use super::Context;
use crate::{
    args::{AdoptArgs, CoordinatorCommand},
    exit::Exit,
    failure::Failure,
    render::{self, Look},
    view::Adoption,
};

pub(super) async fn run(context: &Context<'_>, command: CoordinatorCommand) -> Result<Exit, Failure> {
    match command {
        CoordinatorCommand::Adopt(args) => adopt(context, args).await,
    }
}

async fn adopt(context: &Context<'_>, args: AdoptArgs) -> Result<Exit, Failure> {
    let instances = args.instances.as_deref().map(read).transpose()?.unwrap_or_default();
    let client = context.client().await?;
    for instance in instances {
        let doing = format!("register instance {}", instance.name);
        client.register_instance(&doing, RegisterInstanceRequest { instance: Some(instance.into()) }).await?;
    }
    let request = AdoptOperationsRequest { validate_only: args.validate_only };
    let answer = client.adopt_operations("adopt what the agents remember", request).await?;
    let (output, shown) = (context.output, Adoption::from(&answer));
    output.answer(&shown, || {
        let head = match (shown.operations.is_empty(), args.validate_only) {
            (true, _) => "no operation is taken up".to_owned(),
            (false, true) => {
                format!("would be taken up:\n{}", render::operations(output, &shown.operations, context.now()))
            }
            (false, false) => format!("taken up:\n{}", render::operations(output, &shown.operations, context.now())),
        };
        let left = shown.not_adopted.iter().map(|left| {
            let name = output.paint(Look::Bad, format!("left alone: operation {}", left.operation));
            format!("\n{name} ({})\n  {}\n  {}", left.found, left.message, left.remedy)
        });
        format!("{head}{}", left.collect::<String>())
    });
    Ok(if shown.not_adopted.is_empty() { Exit::Ok } else { Exit::Refused })
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    instance: Vec<Instance>,
}

/// An instance as it stands in the coordinator's configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Instance {
    name: String,
    engine: String,
    #[serde(default)]
    source_agent: String,
    #[serde(default)]
    dest_agent: String,
    #[serde(default)]
    transfer_address: String,
    #[serde(default)]
    subscription: String,
    #[serde(default)]
    resource_group: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    failover_group: String,
    #[serde(default)]
    source_identity: String,
    #[serde(default)]
    dest_identity: String,
}

impl From<Instance> for v1::Instance {
    fn from(file: Instance) -> Self {
        v1::Instance {
            name: file.name,
            engine: file.engine,
            source_agent: file.source_agent,
            dest_agent: file.dest_agent,
            transfer_address: file.transfer_address,
            subscription: file.subscription,
            resource_group: file.resource_group,
            region: file.region,
            failover_group: file.failover_group,
            source_identity: file.source_identity,
            dest_identity: file.dest_identity,
            version: 0,
            from_config: false,
        }
    }
}

fn read(path: &Path) -> Result<Vec<Instance>, Failure> {
    let doing = format!("read {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Failure::local(&doing, &error))?;
    parse(&text).map_err(|error| {
        Failure::usage(format!("{doing}: {error}"))
            .remedy("write [[instance]] sections as in the coordinator's configuration, see docs/operating.md")
    })
}

/// Other sections may stand in the file: it may well be the coordinator's own.
fn parse(text: &str) -> Result<Vec<Instance>, toml::de::Error> {
    Ok(toml::from_str::<File>(text)?.instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coordinators_own_file_will_do() {
        let text =
            "ready_lag_ms = 7\n[[instance]]\nname = \"west\"\nengine = \"sqlite\"\nsource_agent = \"db1:7441\"\n";
        let instances = parse(text).expect("instances");
        assert_eq!((instances.len(), instances[0].source_agent.as_str()), (1, "db1:7441"));
        for wrong in ["[[instance]]\nname = \"west\"\n", &text.replace("source_agent", "agent"), "instance = 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
