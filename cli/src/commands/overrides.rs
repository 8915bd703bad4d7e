//! `forget`, `force-unfence` and `force-promote`: for when a side is gone for ever. They ask twice.

use std::io::{self, BufRead, IsTerminal, Write};

use proto::v1::{ForcePromoteRequest, ForceUnfenceRequest, ForgetOperationRequest, GetOperationRequest, Side};

use super::{Context, unanswered};
use crate::{
    args::Override,
    exit::Exit,
    failure::Failure,
    render::{self, Look},
    rpc::Client,
    view::Operation,
};

/// Which override.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    ForgetSource,
    ForgetDest,
    Unfence,
    Promote,
}

impl Which {
    fn verb(self) -> &'static str {
        match self {
            Self::ForgetSource => "forget the source side of",
            Self::ForgetDest => "forget the destination side of",
            Self::Unfence => "reopen the source of",
            Self::Promote => "open the destination of",
        }
    }

    /// What is lost if the side is not gone for ever.
    fn warning(self, operation: &Operation) -> String {
        let Operation { database, source, destination, .. } = operation;
        match self {
            Self::ForgetSource => format!(
                "The coordinator goes on as if {source} were cleaned up. If {source} comes back, what the operation left \
                 there (log, a fence on {database}) has to be removed by hand."
            ),
            Self::ForgetDest => format!(
                "The coordinator goes on as if {destination} were cleaned up. If {destination} comes back, the half-made \
                 {database} there has to be removed by hand."
            ),
            Self::Unfence => format!(
                "{database} at {source} accepts writes again, without an answer from {destination}. If {destination} is \
                 not gone and became the primary, there are TWO primaries, and their writes cannot be merged."
            ),
            Self::Promote => format!(
                "{database} at {destination} is opened as it is. What {source} committed after the last log that arrived \
                 is LOST. If {source} is not gone, there are TWO primaries, and their writes cannot be merged."
            ),
        }
    }
}

pub(super) async fn run(context: &Context<'_>, which: Which, target: Override) -> Result<Exit, Failure> {
    let Override { id, yes_i_know } = target;
    let doing = format!("{} operation {id}", which.verb());
    let asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    // Before the coordinator is asked: a script without the flag learns what is missing in any case.
    match &yes_i_know {
        Some(confirm) if *confirm != id => {
            return Err(Failure::new(Exit::Usage, doing, format!("--yes-i-know says {confirm:?}, not {id:?}"))
                .remedy("give the operation's id a second time"));
        }
        None if !asked => {
            return Err(Failure::new(Exit::Usage, doing, "this can lose data and has to be confirmed")
                .remedy(format!("add --yes-i-know {id}, once you have made sure that the side is gone for ever")));
        }
        _ => {}
    }
    let client = context.client().await?;
    if yes_i_know.is_none() {
        let answer = client.get_operation(&doing, GetOperationRequest { id: id.clone() }).await?;
        let operation = answer.operation.as_ref().map(Operation::from).ok_or_else(|| unanswered(&doing))?;
        let output = context.output;
        eprintln!("{}", render::details(output, &operation));
        eprintln!("{} {}", output.paint_error(Look::Bad, "Careful:"), which.warning(&operation));
        let confirmed = confirm(&id, &mut io::stdin().lock(), &mut io::stderr());
        if !confirmed.map_err(|error| Failure::local("ask for the operation's id", &error))? {
            return Err(Failure::new(Exit::Refused, doing, "that is not the operation's id; nothing was done"));
        }
    }
    let operation = call(&client, which, &doing, id).await?;
    let output = context.output;
    output.answer(&operation, || render::details(output, &operation));
    Ok(Exit::Ok)
}

/// Asks for the id twice; whether it was given both times.
fn confirm(id: &str, input: &mut impl BufRead, prompt: &mut impl Write) -> io::Result<bool> {
    for question in ["Type the operation's id to go on: ", "And once more, to be sure: "] {
        write!(prompt, "{question}")?;
        prompt.flush()?;
        let mut line = String::new();
        input.read_line(&mut line)?;
        if line.trim() != id {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn call(client: &Client, which: Which, doing: &str, id: String) -> Result<Operation, Failure> {
    let confirm = id.clone();
    let forget = |side: Side| ForgetOperationRequest { id: id.clone(), side: side.into(), confirm: confirm.clone() };
    let operation = match which {
        Which::ForgetSource => client.forget_operation(doing, forget(Side::Source)).await?.operation,
        Which::ForgetDest => client.forget_operation(doing, forget(Side::Dest)).await?.operation,
        Which::Unfence => client.force_unfence(doing, ForceUnfenceRequest { id, confirm }).await?.operation,
        Which::Promote => client.force_promote(doing, ForcePromoteRequest { id, confirm }).await?.operation,
    };
    operation.as_ref().map(Operation::from).ok_or_else(|| unanswered(doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_asked_for_twice() {
        let ask = |text: &str| {
            let mut prompt = Vec::new();
            let confirmed = confirm("0197-a", &mut text.as_bytes(), &mut prompt).unwrap();
            (confirmed, String::from_utf8_lossy(&prompt).matches(": ").count())
        };
        assert_eq!(ask("0197-a\n0197-a\n"), (true, 2));
        assert_eq!(ask("0197-a\nyes\n"), (false, 2));
        assert_eq!(ask("y\n"), (false, 1));
        assert_eq!(ask(""), (false, 1));
    }
}
