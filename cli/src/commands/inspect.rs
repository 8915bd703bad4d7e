//! `list`, `operation show`, `operation explain` and `operation watch`.

use proto::v1::{ExplainOperationRequest, GetOperationRequest, Kind, ListOperationsRequest};

use super::{Context, word};
use crate::{
    args::{Format, ListArgs, WatchArgs, WatchGoal},
    exit::Exit,
    failure::Failure,
    render,
    rpc::Client,
    view::{Explanation, Operation, Operations},
    watch::{self, Goal},
};

/// Operations asked for at once.
const PAGE: usize = 500;

pub(super) async fn list(context: &Context<'_>, kind: Kind, args: ListArgs) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let (operations, more) = pages(&client, kind, &args).await?;
    let output = context.output;
    let shown = Operations { operations };
    output.answer(&shown, || render::operations(output, &shown.operations, context.now()));
    if more {
        output.note(&format!("there are more than {}; give --limit 0 for all", args.limit));
    }
    Ok(Exit::Ok)
}

/// Up to the limit, and whether there are more.
async fn pages(client: &Client, kind: Kind, args: &ListArgs) -> Result<(Vec<Operation>, bool), Failure> {
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let filter = args.filter.clone();
    let mut request = ListOperationsRequest {
        kind: kind.into(),
        source: filter.source.unwrap_or_default(),
        destination: filter.dest.unwrap_or_default(),
        databases: filter.database,
        only_latest_per_database: filter.only_latest_per_database,
        page_size: u32::try_from(limit.min(PAGE)).unwrap_or(0),
        page_token: String::new(),
        only_active: filter.active,
        batch: filter.batch.unwrap_or_default(),
    };
    let doing = match kind {
        Kind::Unspecified => "list operations".to_owned(),
        kind => format!("list operations of kind {}", word(kind)),
    };
    let mut operations = Vec::new();
    loop {
        let page = client.list_operations(&doing, request.clone()).await?;
        operations.extend(page.operations.iter().map(Operation::from));
        let more = !page.next_page_token.is_empty();
        if !more || operations.len() >= limit {
            let cut = operations.len() > limit;
            operations.truncate(limit);
            return Ok((operations, more || cut));
        }
        request.page_token = page.next_page_token;
    }
}

pub(super) async fn show(context: &Context<'_>, ids: &[String]) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let operations = get_all(&client, ids).await?;
    let output = context.output;
    match operations.as_slice() {
        [one] => output.answer(one, || render::details(output, one)),
        all => output.answer(&Operations { operations: all.to_vec() }, || {
            all.iter().map(|one| render::details(output, one)).collect::<Vec<_>>().join("\n")
        }),
    }
    Ok(Exit::Ok)
}

pub(super) async fn explain(context: &Context<'_>, id: String) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let doing = format!("explain operation {id}");
    let answer = client.explain_operation(&doing, ExplainOperationRequest { id }).await?;
    if answer.operation.is_none() {
        return Err(super::unanswered(&doing));
    }
    let explanation = Explanation::from(&answer);
    let output = context.output;
    output.answer(&explanation, || render::explanation(output, &explanation, context.now()));
    Ok(Exit::Ok)
}

pub(super) async fn watch(context: &Context<'_>, args: WatchArgs) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let operations = match &args.batch {
        None => get_all(&client, &args.id).await?,
        Some(batch) => {
            let mut list = ListArgs::default();
            list.filter.batch = Some(batch.clone());
            let (operations, _) = pages(&client, Kind::Unspecified, &list).await?;
            if operations.is_empty() {
                let message = format!("no operation belongs to the batch {batch}");
                return Err(Failure::new(Exit::NotFound, "watch operations", message)
                    .remedy("see the batches with `causeway operation list -o json`"));
            }
            operations
        }
    };
    let goal = match args.until {
        WatchGoal::Ready => Goal::Ready,
        WatchGoal::Ended => Goal::Ended,
    };
    let output = context.output;
    let mut sink = watch::sink(output);
    let reached = watch::follow(&client, &operations, goal, &mut *sink).await?;
    if output.format == Format::Table {
        output.note(&super::complete::reasons(output, &reached));
    }
    Ok(goal.verdict(&reached))
}

async fn get_all(client: &Client, ids: &[String]) -> Result<Vec<Operation>, Failure> {
    let mut operations = Vec::with_capacity(ids.len());
    for id in ids {
        let doing = format!("show operation {id}");
        let answer = client.get_operation(&doing, GetOperationRequest { id: id.clone() }).await?;
        operations.push(answer.operation.as_ref().map(Operation::from).ok_or_else(|| super::unanswered(&doing))?);
    }
    Ok(operations)
}
