//! `instance` and `database`.

use proto::v1::{
    self, ListDatabasesRequest, ListInstancesRequest, PurgeDatabaseRequest, RegisterInstanceRequest,
    RemoveInstanceRequest,
};

use super::{Context, unanswered};
use crate::{
    args::{DatabaseCommand, InstanceCommand, PurgeArgs, RegisterArgs},
    exit::Exit,
    failure::Failure,
    render,
    view::{Database, Databases, Instance, Instances, Nothing},
};

pub(super) async fn instance(context: &Context<'_>, command: InstanceCommand) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let output = context.output;
    match command {
        InstanceCommand::Register(args) => {
            let doing = format!("register instance {}", args.name);
            let request = RegisterInstanceRequest { instance: Some(message(*args)) };
            let answer = client.register_instance(&doing, request).await?;
            let instance = answer.instance.as_ref().map(Instance::from).ok_or_else(|| unanswered(&doing))?;
            output.answer(&instance, || render::instances(output, std::slice::from_ref(&instance)));
        }
        InstanceCommand::List => {
            let answer = client.list_instances("list instances", ListInstancesRequest {}).await?;
            let shown = Instances { instances: answer.instances.iter().map(Instance::from).collect() };
            output.answer(&shown, || render::instances(output, &shown.instances));
        }
        InstanceCommand::Remove { name } => {
            let doing = format!("remove instance {name}");
            client.remove_instance(&doing, RemoveInstanceRequest { name: name.clone() }).await?;
            output.answer(&Nothing {}, || format!("instance {name} is forgotten; its databases are not touched"));
        }
    }
    Ok(Exit::Ok)
}

fn message(args: RegisterArgs) -> v1::Instance {
    v1::Instance {
        name: args.name,
        engine: args.engine,
        source_agent: args.source_agent,
        dest_agent: args.dest_agent,
        transfer_address: args.transfer_address,
        subscription: args.subscription,
        resource_group: args.resource_group,
        region: args.region,
        failover_group: args.failover_group,
        source_identity: args.source_identity,
        dest_identity: args.dest_identity,
        version: 0,
        from_config: false,
    }
}

pub(super) async fn database(context: &Context<'_>, command: DatabaseCommand) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let output = context.output;
    match command {
        DatabaseCommand::List { instance } => {
            let doing = format!("list the databases of {instance}");
            let answer = client.list_databases(&doing, ListDatabasesRequest { instance }).await?;
            let shown = Databases { databases: answer.databases.iter().map(Database::from).collect() };
            output.answer(&shown, || render::databases(output, &shown.databases));
        }
        DatabaseCommand::Purge(PurgeArgs { instance, database }) => {
            let doing = format!("purge {database} at {instance}");
            let request = PurgeDatabaseRequest { instance: instance.clone(), database: database.clone() };
            client.purge_database(&doing, request).await?;
            output.answer(&Nothing {}, || format!("the tombstone of {database} at {instance} is removed"));
        }
    }
    Ok(Exit::Ok)
}
