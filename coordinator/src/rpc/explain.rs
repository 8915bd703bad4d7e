//! Explaining an operation: both agents are asked how they stand, and the rest is words.

use std::time::Duration;

use proto::v1;

use super::{
    error::Error,
    fields::{Fields, checked},
    select, wire,
};
use crate::{
    agents,
    auth::Caller,
    core::Core,
    driver::Waiting,
    explain::{self, Choice, Said, Sides},
    store::Stored,
};

/// Whoever asks for an explanation wants it now, also when an agent hangs.
const ANSWER_MAX: Duration = Duration::from_secs(3);

pub(super) async fn explain(
    core: &Core,
    caller: &Caller,
    request: v1::ExplainOperationRequest,
) -> Result<v1::ExplainOperationResponse, Error> {
    let mut fields = Fields::default();
    let id = fields.operation("id", &request.id);
    fields.check()?;
    let id = checked(id, "id")?;
    let stored = select::seen(core, caller, &id).await?;
    let sides = Box::pin(sides(core, &stored)).await;
    // What it has become while the agents were asked.
    let stored = select::one(core, &id).await?;
    let operation = stored.operation();
    let shown = wire::operation(core, &stored);
    let waiting = core.hub.view(&id).map(|view| view.waiting).unwrap_or_default();
    let choices = explain::choices(operation, &sides, &shown.waiting_for, core.now_ms());
    Ok(v1::ExplainOperationResponse {
        summary: explain::summary(operation, shown.queue_place),
        since: stored.record.since_ms.map(wire::timestamp),
        clients: explain::writers(operation, &sides),
        source_agent: sides.source.words(),
        dest_agent: sides.dest.words(),
        choices: choices.into_iter().map(choice).collect(),
        waits: waiting.into_values().map(wait).collect(),
        operation: Some(shown),
    })
}

/// The phase of an agent's role, in its own word.
type Asked = Result<String, agents::Error>;

/// Asks both agents side by side.
async fn sides(core: &Core, stored: &Stored) -> Sides {
    let operation = stored.operation();
    if !explain::concerns_agents(operation) {
        return Sides { source: Said::Unasked, dest: Said::Unasked };
    }
    let source = async {
        let known = core.instances.get(&operation.source).await.map_err(|error| error.to_string())?;
        let known = known.ok_or_else(|| format!("instance {} is not known any more", operation.source))?;
        let agent = core.agents.source(&known.record).map_err(|error| error.to_string())?;
        Ok::<Asked, String>(agent.status(&operation.id).await.map(|status| status.phase))
    };
    let dest = async {
        let known = core.instances.get(&operation.destination).await.map_err(|error| error.to_string())?;
        let known = known.ok_or_else(|| format!("instance {} is not known any more", operation.destination))?;
        let agent = core.agents.dest(&known.record).map_err(|error| error.to_string())?;
        Ok::<Asked, String>(agent.status(&operation.id).await.map(|status| status.phase))
    };
    let (source, dest) = futures::join!(core.env.timeout(ANSWER_MAX, source), core.env.timeout(ANSWER_MAX, dest));
    let late = format!("no answer within {} s", ANSWER_MAX.as_secs());
    let said = |asked: Option<Result<Asked, String>>| match asked {
        None => Said::Silent(late.clone()),
        Some(Err(why)) => Said::Silent(why),
        Some(Ok(Ok(phase))) => Said::Phase(phase),
        Some(Ok(Err(error))) if error.unknown_operation() => Said::Nothing,
        Some(Ok(Err(error))) => Said::Silent(error.to_string()),
    };
    Sides { source: said(source.ok()), dest: said(dest.ok()) }
}

fn wait(waiting: Waiting) -> v1::Wait {
    v1::Wait { whom: waiting.why, since: Some(wire::timestamp(waiting.since_ms)) }
}

fn choice(choice: Choice) -> v1::Choice {
    v1::Choice { command: choice.command, effect: choice.effect, is_override: choice.is_override }
}
