//! The play: start, seed, ready, write on, complete, prove.

use std::{path::Path, time::Duration};

use ledger::history::now_us;
use proto::v1;

use super::{
    application::{Application, WRITERS},
    children::{Children, Programs},
    instances::Instances,
    proof::{self, Evidence},
    stage::{self, EAST, WEST},
    story::Story,
};
use crate::{
    args::{DemoArgs, DemoMode, EngineWord},
    commands::{Context, complete::reasons, word},
    exit::Exit,
    failure::Failure,
    rpc::Client,
    units,
    view::{Operation, Operations},
    watch::{self, Goal, Sink},
};

/// Transactions that show that the application is at work again after the flip.
const ENOUGH: u64 = 100;
/// How long the application writes at the source after a copy was completed.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// How often the servers are looked after while the application writes on.
const LOOK: Duration = Duration::from_millis(200);

/// Who plays; it outlives the play, to be ended on every path.
pub(super) struct Cast<'a> {
    pub(super) programs: &'a Programs,
    pub(super) children: &'a mut Children,
    pub(super) instances: &'a mut Option<Instances>,
}

/// Plays it from the beginning; the exit is that of the proof.
pub(super) async fn play(
    context: &Context<'_>,
    args: &DemoArgs,
    dir: &Path,
    cast: Cast<'_>,
    story: &mut Story,
) -> Result<Exit, Failure> {
    let Cast { programs, children, instances } = cast;
    let env = &context.env;
    let kind = match args.mode {
        DemoMode::Move => v1::Kind::Move,
        DemoMode::Copy => v1::Kind::Copy,
    };
    let gerund = if args.mode == DemoMode::Move { "moves" } else { "copies" };
    let engine = if args.engine == EngineWord::Sqlite { "SQLite" } else { "PostgreSQL" };
    story.title(&format!("Causeway {gerund} a live {engine} database from {WEST} to {EAST}"));
    stage::certificates(context, args, dir, story).await?;
    let instances = stage::instances(context, args, dir, instances, story).await?;
    let client = stage::set(context, dir, programs, instances, children, story).await?;

    story.begin("application", "starting the writers");
    let mut application = Application::start(args, &programs.path("causeway-ledger"), dir, instances)?;
    application.more(env, ENOUGH, None).await?;
    story.done(format!(
        "{WRITERS} writer processes, {} transactions/s; plain {}, they know nothing of Causeway",
        units::count(args.rate.into()),
        instances.engine_name()
    ));

    let ready = make_ready(&client, kind, instances.database(), &mut application, story).await?;
    let version = ready.version;

    story.begin("ready", format!("the application writes on for {} s", args.seconds));
    let before = application.acknowledged()?;
    let until = env.monotonic() + Duration::from_secs(args.seconds);
    while env.monotonic() < until {
        env.sleep(LOOK).await;
        if let Some(fallen) = children.fallen() {
            return Err(Failure::new(Exit::Failed, "run the servers", fallen));
        }
    }
    let written = application.acknowledged()?.saturating_sub(before);
    let lag = lag(&client, &ready.id).await?;
    story.done(format!("{} transactions while ready, applied at {EAST} as they come ({lag})", units::count(written)));

    story.begin("complete", "flipping the roles");
    let asked_us = now_us();
    let completed = complete(&client, &ready.id, version, story).await?;
    if completed.state != "succeeded" {
        let why = reasons(context.output, std::slice::from_ref(&completed));
        return Err(Failure::new(Exit::Failed, format!("complete the {}", word(kind)), why.trim_end().to_owned()));
    }
    let took = format!("done {} after it was asked for", units::ms(now_us().saturating_sub(asked_us) / 1000));
    let east = instances.place(EAST);
    match args.mode {
        DemoMode::Move => {
            application.more(env, ENOUGH, Some(&east)).await?;
            story.done(format!("{took}; the application is at {} now", story.accent(EAST)));
        }
        DemoMode::Copy => {
            story.done(format!("{took}; the application has noticed nothing"));
            story.begin("afterwards", format!("the application goes on at {WEST}"));
            env.sleep(AFTERWARDS).await;
            application.more(env, ENOUGH, None).await?;
        }
    }
    let (summary, history) = application.stop(env).await?;
    let west_state = state_at(&client, WEST, instances.database()).await?;
    let evidence = Evidence {
        mode: args.mode,
        database: instances.database(),
        places: (instances.place(WEST), instances.place(EAST)),
        state_after_move: instances.state_after_move(),
        history,
        summary,
        asked_us,
        west_state,
        completed,
    };
    proof::prove(context, evidence, story).await
}

/// Starts the operation and follows it until it is ready.
async fn make_ready(
    client: &Client,
    kind: v1::Kind,
    database: &str,
    application: &mut Application,
    story: &mut Story,
) -> Result<Operation, Failure> {
    let env = client.env();
    let name = word(kind);
    story.begin(if kind == v1::Kind::Move { "move" } else { "copy" }, "preflight at both agents");
    let before = application.acknowledged()?;
    let began = env.monotonic();
    let request = v1::StartOperationRequest {
        kind: kind.into(),
        source: WEST.to_owned(),
        destination: EAST.to_owned(),
        databases: vec![database.to_owned()],
        request_id: env.uuid_v7(),
        ..v1::StartOperationRequest::default()
    };
    let answer = client.start_operation(&format!("start the {name} of {database}"), request).await?;
    let Operations { operations } = Operations::from(answer.operations.as_slice());
    let ended = watch::follow(client, &operations, Goal::Ready, story).await?;
    let took = env.monotonic().saturating_sub(began);
    let Some(ready) = ended.into_iter().next().filter(|operation| operation.state == "ready_for_completion") else {
        return Err(Failure::new(Exit::Failed, format!("start the {name}"), "it did not become ready"));
    };
    let meanwhile = application.acknowledged()?.saturating_sub(before);
    let bytes = ready.progress.as_ref().map_or(0, |progress| progress.seed_bytes_done);
    story.done(format!(
        "{} seeded in {}, ready; {} transactions were committed meanwhile",
        units::bytes(bytes),
        units::duration(took),
        units::count(meanwhile)
    ));
    Ok(ready)
}

async fn lag(client: &Client, id: &str) -> Result<String, Failure> {
    let request = v1::GetOperationRequest { id: id.to_owned() };
    let answer = client.get_operation("look at the operation", request).await?;
    let progress = answer.operation.and_then(|operation| operation.progress).unwrap_or_default();
    Ok(format!("lag {}, {}", units::bytes(progress.lag_bytes), units::ms(progress.lag_ms)))
}

async fn complete(
    client: &Client,
    id: &str,
    version: u64,
    story: &mut (dyn Sink + Send),
) -> Result<Operation, Failure> {
    let selector = v1::OperationSelector { ids: vec![id.to_owned()], ..v1::OperationSelector::default() };
    let request = v1::CompleteOperationRequest { operations: Some(selector), max_freeze_ms: 0, grace_ms: 0 };
    let answer = client.complete_operation("complete the operation", request).await?;
    let Operations { operations } = Operations::from(answer.operations.as_slice());
    let ended = watch::follow(client, &operations, Goal::Completed, story).await?;
    let missing =
        || Failure::new(Exit::Failed, "complete the operation", format!("it is gone since version {version}"));
    ended.into_iter().next().ok_or_else(missing)
}

/// What the instance's agent says of the database.
async fn state_at(client: &Client, instance: &str, name: &str) -> Result<String, Failure> {
    let request = v1::ListDatabasesRequest { instance: instance.to_owned() };
    let answer = client.list_databases(&format!("list the databases of {instance}"), request).await?;
    let found = answer.databases.into_iter().find(|database| database.name == name);
    Ok(found.map_or_else(|| "gone".to_owned(), |database| database.state))
}
