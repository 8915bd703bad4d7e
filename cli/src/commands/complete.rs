//! `complete` and `cancel`, and what is said about operations that did not end as hoped.

use std::time::Duration;

use proto::v1::{CancelOperationRequest, CompleteOperationRequest, Kind, OperationSelector};

use super::{Context, word};
use crate::{
    args::{CancelArgs, CompleteArgs, Selection},
    exit::Exit,
    failure::Failure,
    render::{self, Look, Output},
    view::{DatabaseFindings, Operations},
    watch::{self, Goal},
};

pub(super) async fn complete(context: &Context<'_>, kind: Kind, args: CompleteArgs) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let doing = doing("complete", kind, &args.selection);
    let request = CompleteOperationRequest {
        operations: Some(selector(kind, args.selection)),
        max_freeze_ms: args.max_freeze.map_or(0, whole_ms),
        grace_ms: args.grace.map_or(0, whole_ms),
    };
    let answer = client.complete_operation(&doing, request).await?;
    let Operations { operations } = Operations::from(answer.operations.as_slice());
    let output = context.output;
    if !args.watch {
        output.answer(&Operations { operations: operations.clone() }, || {
            render::operations(output, &operations, context.now())
        });
        return Ok(Exit::Ok);
    }
    let mut sink = watch::sink(output);
    let ended = watch::follow(&client, &operations, Goal::Completed, &mut *sink).await?;
    output.note(&reasons(output, &ended));
    Ok(Goal::Completed.verdict(&ended))
}

pub(super) async fn cancel(context: &Context<'_>, kind: Kind, args: CancelArgs) -> Result<Exit, Failure> {
    let client = context.client().await?;
    let doing = doing("cancel", kind, &args.selection);
    let request = CancelOperationRequest { operations: Some(selector(kind, args.selection)) };
    let answer = client.cancel_operation(&doing, request).await?;
    let Operations { operations } = Operations::from(answer.operations.as_slice());
    let output = context.output;
    if !args.watch {
        output.answer(&Operations { operations: operations.clone() }, || {
            render::operations(output, &operations, context.now())
        });
        return Ok(Exit::Ok);
    }
    let mut sink = watch::sink(output);
    let ended = watch::follow(&client, &operations, Goal::Ended, &mut *sink).await?;
    // It was cancelled as asked, unless the flip or a failure came first.
    let as_asked = ended.iter().all(|operation| operation.state == "cancelled");
    Ok(if as_asked { Exit::Ok } else { Exit::Failed })
}

/// Why operations did not succeed, and what is to be redone after those that did; empty if there is nothing to say.
pub(super) fn reasons(output: &Output, operations: &[crate::view::Operation]) -> String {
    let mut text = String::new();
    for operation in operations {
        if let Some(reason) = operation.reason.as_ref().filter(|_| operation.state != "succeeded") {
            let head = output.paint_error(Look::Bad, format!("{}:", operation.database));
            text.push_str(&format!("{head} {}\n  reason: {}\n", reason.message, reason.code));
            if !reason.remedy.is_empty() {
                text.push_str(&format!("  remedy: {}\n", reason.remedy));
            }
        }
        if let Some(hook) = operation.on_online.as_ref().filter(|hook| !hook.ok) {
            let head = output.paint_error(Look::Warn, format!("{}:", operation.database));
            text.push_str(&format!("{head} the on_online hook failed with exit code {}\n", hook.exit_code));
        }
        if operation.state == "succeeded" && !operation.findings.is_empty() {
            let database = format!(
                "{}: warned of at its start, some of it to redo at {}",
                operation.database, operation.destination
            );
            let redo = [DatabaseFindings { database, findings: operation.findings.clone() }];
            text.push_str(&render::findings(&redo, |look, text| output.paint_error(look, text)));
        }
    }
    text
}

fn selector(kind: Kind, selection: Selection) -> OperationSelector {
    OperationSelector {
        ids: selection.id,
        source: selection.source.unwrap_or_default(),
        destination: selection.dest.unwrap_or_default(),
        databases: selection.database,
        kind: kind.into(),
    }
}

fn doing(verb: &str, kind: Kind, selection: &Selection) -> String {
    let names = if selection.id.is_empty() { &selection.database } else { &selection.id };
    format!("{verb} the {} of {}", word(kind), names.join(", "))
}

/// Rounded up: 0 would mean the coordinator's default.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args::Format, view::tests::operation};

    #[test]
    fn a_limit_never_turns_into_the_default() {
        assert_eq!([0, 1, 999, 1_000, 1_001].map(|us| whole_ms(Duration::from_micros(us))), [1, 1, 1, 1, 2]);
    }

    #[test]
    fn a_reason_comes_with_its_remedy_and_success_with_what_to_redo() {
        let output = Output::plain(Format::Table);
        let mut shop = operation();
        shop.state = "ready_for_completion".to_owned();
        shop.reason = Some(crate::view::Reason {
            code: "FREEZE_EXCEEDED".into(),
            message: "too long".into(),
            remedy: "try later".into(),
        });
        assert_eq!(
            reasons(&output, &[shop.clone()]),
            "shop: too long\n  reason: FREEZE_EXCEEDED\n  remedy: try later\n"
        );
        shop.state = "succeeded".to_owned();
        assert!(
            reasons(&output, &[shop])
                .starts_with("shop: warned of at its start, some of it to redo at east\n  ! warning HOOK_NOT_SET")
        );
    }
}
