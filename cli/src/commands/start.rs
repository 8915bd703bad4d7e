//! `move start` and `copy start`.

use proto::v1::{Kind, StartOperationRequest, StartOperationResponse};

use super::{Context, word};
use crate::{
    args::StartArgs,
    exit::Exit,
    failure::Failure,
    render,
    rpc::Client,
    view::{DatabaseFindings, Operation, Started},
    watch::{self, Goal},
};

const PREFLIGHT_FAILED: &str = "PREFLIGHT_FAILED";

pub(super) async fn run(context: &Context<'_>, kind: Kind, args: StartArgs) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let request = StartOperationRequest {
        kind: kind.into(),
        source: args.source.clone(),
        destination: args.dest.clone(),
        databases: args.database.clone(),
        request_id: args.request_id.clone().unwrap_or_else(|| context.env.uuid_v7()),
        validate_only: args.validate_only,
        log_budget_bytes: args.log_budget.unwrap_or(0),
        // A window shorter than a second would otherwise turn into the default of a day.
        window_seconds: args.window.map_or(0, |window| window.as_secs().max(1)),
    };
    let names = args.database.join(", ");
    let verb = if args.validate_only { "validate" } else { "start" };
    let doing = format!("{verb} the {} of {names} from {} to {}", word(kind), args.source, args.dest);
    let answer = match client.start_operation(&doing, request.clone()).await {
        Err(failure) if failure.reason == PREFLIGHT_FAILED => return Err(explained(&client, request, failure).await),
        other => other?,
    };
    let started = Started::from(answer);
    match args.validate_only {
        true => Ok(report(context, &started)),
        false => follow(context, &client, &started, args.watch).await,
    }
}

/// The failure with all findings: an error carries only so many, and without their remedies.
async fn explained(client: &Client, request: StartOperationRequest, mut failure: Failure) -> Failure {
    let request = StartOperationRequest { validate_only: true, request_id: String::new(), ..request };
    let Ok(answer) = client.start_operation("validate", request).await else { return failure };
    let findings = Started::from(answer).findings;
    if !any_error(&findings) {
        return failure;
    }
    // The findings say it all, and better than the sentence that joins them.
    failure.message = "what the preflight found stands in the way".to_owned();
    (failure.details, failure.findings) = (Vec::new(), findings);
    failure
}

fn report(context: &Context<'_>, started: &Started) -> Exit {
    let output = context.output;
    output.answer(started, || render::findings(&started.findings, |look, text| output.paint(look, text)));
    if any_error(&started.findings) { Exit::Failed } else { Exit::Ok }
}

async fn follow(context: &Context<'_>, client: &Client, started: &Started, watched: bool) -> Result<Exit, Failure> {
    let output = context.output;
    let warned: Vec<DatabaseFindings> = started.findings.iter().filter(|f| !f.findings.is_empty()).cloned().collect();
    if !warned.is_empty() {
        output.note(&render::findings(&warned, |look, text| output.paint_error(look, text)));
    }
    if !watched {
        output.answer(started, || render::operations(output, &started.operations, context.now()));
        output.note(&format!("follow with: causeway operation watch {}", ids(&started.operations)));
        return Ok(Exit::Ok);
    }
    let mut sink = watch::sink(output);
    let reached = watch::follow(client, &started.operations, Goal::Ready, &mut *sink).await?;
    let exit = Goal::Ready.verdict(&reached);
    if exit == Exit::Ok {
        output.note(&format!("complete with: {}", render::next_step("complete", &reached)));
    } else {
        output.note(&super::complete::reasons(output, &reached));
    }
    Ok(exit)
}

fn ids(operations: &[Operation]) -> String {
    operations.iter().map(|operation| operation.id.as_str()).collect::<Vec<_>>().join(" ")
}

fn any_error(findings: &[DatabaseFindings]) -> bool {
    findings.iter().flat_map(|database| &database.findings).any(|finding| finding.is_error())
}

impl From<StartOperationResponse> for Started {
    fn from(answer: StartOperationResponse) -> Self {
        Self {
            operations: answer.operations.iter().map(Operation::from).collect(),
            findings: answer.findings.iter().map(DatabaseFindings::from).collect(),
        }
    }
}
