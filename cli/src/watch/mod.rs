//! Following operations until a goal: through lost connections, with progress for people or events for scripts.

mod bars;
mod lines;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::Duration,
};

use proto::v1;
use service::Backoff;

pub use bars::Bars;
pub use lines::Lines;

use crate::{
    args::Format,
    exit::Exit,
    failure::Failure,
    render::Output,
    rpc::{Broken, Client},
    view::Operation,
};

/// How long a coordinator may be away: it is restarted within seconds, and a script should not hang for ever.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// When a watch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// All are ready for completion, or ended.
    Ready,
    /// All have ended.
    Ended,
    /// All have ended, or went back to ready because an attempt was given up.
    Completed,
}

/// What shows the progress.
pub trait Sink {
    /// An operation as it is now.
    fn update(&mut self, operation: &Operation);
    /// Something that hinders the watch itself, or the end of that.
    fn trouble(&mut self, text: &str);
    /// The watch is over; what is shown shall stay on the screen.
    fn close(&mut self);
}

impl Goal {
    fn is_reached(self, operation: &Operation) -> bool {
        match operation.state.as_str() {
            "succeeded" | "failed" | "cancelled" => true,
            "ready_for_completion" => self != Self::Ended,
            _ => false,
        }
    }

    /// Whether an operation ended the watch as was hoped for.
    fn is_success(self, operation: &Operation) -> bool {
        match operation.state.as_str() {
            "succeeded" => true,
            "ready_for_completion" => self == Self::Ready,
            _ => false,
        }
    }

    /// The exit code that the final states give.
    pub fn verdict(self, operations: &[Operation]) -> Exit {
        if operations.iter().all(|operation| self.is_success(operation)) { Exit::Ok } else { Exit::Failed }
    }
}

/// The sink that fits the output: bars on a terminal, plain lines elsewhere, events for scripts.
pub fn sink(output: &Output) -> Box<dyn Sink + Send> {
    match output.format {
        Format::Table if io::stderr().is_terminal() => Box::new(Bars::new(*output)),
        Format::Table => Box::new(Lines::new()),
        Format::Json | Format::Yaml => Box::new(Events(*output)),
    }
}

struct Events(Output);

impl Sink for Events {
    fn update(&mut self, operation: &Operation) {
        self.0.event(operation);
    }

    fn trouble(&mut self, text: &str) {
        eprintln!("{text}");
    }

    fn close(&mut self) {}
}

/// Follows operations until all have reached the goal, and answers them as they are then, in the order of the ids.
/// `known` are operations as a command just answered them: older states do not count.
pub async fn follow(
    client: &Client,
    known: &[Operation],
    goal: Goal,
    sink: &mut (dyn Sink + Send),
) -> Result<Vec<Operation>, Failure> {
    let ids: Vec<String> = known.iter().map(|operation| operation.id.clone()).collect();
    let mut watch = Watch { goal, newest: known.iter().map(|o| (o.id.clone(), o.clone())).collect() };
    known.iter().for_each(|operation| sink.update(operation));
    let interrupt = tokio::signal::ctrl_c();
    let watched = tokio::select! {
        watched = watch.run(client, &ids, sink) => watched,
        _ = interrupt => Err(interrupted(&ids)),
    };
    sink.close();
    watched?;
    Ok(ids.iter().filter_map(|id| watch.newest.remove(id)).collect())
}

fn interrupted(ids: &[String]) -> Failure {
    let again = format!("follow with `causeway operation watch {}`", ids.join(" "));
    let message = match ids.len() {
        1 => "you stopped watching; the operation goes on at the coordinator".to_owned(),
        n => format!("you stopped watching; the {n} operations go on at the coordinator"),
    };
    Failure::new(Exit::Interrupted, "", message).remedy(again)
}

struct Watch {
    goal: Goal,
    newest: BTreeMap<String, Operation>,
}

impl Watch {
    async fn run(&mut self, client: &Client, ids: &[String], sink: &mut (dyn Sink + Send)) -> Result<(), Failure> {
        let env = client.env();
        let mut backoff = Backoff::default();
        let mut away_since = None;
        while !self.is_over() {
            let broken = match client.watch(ids.to_vec()).await {
                Err(broken) => broken,
                Ok(mut updates) => loop {
                    match updates.next().await {
                        Ok(Some(operation)) => {
                            if away_since.take().is_some() {
                                sink.trouble("the coordinator is back");
                            }
                            backoff.reset();
                            self.take(&operation, sink);
                            if self.is_over() {
                                return Ok(());
                            }
                        }
                        // A coordinator that shuts down ends its streams in good order.
                        Ok(None) => break Broken::Lost,
                        Err(broken) => break broken,
                    }
                },
            };
            if let Broken::Refused(failure) = broken {
                return Err(failure);
            }
            let now = env.monotonic();
            let since = *away_since.get_or_insert_with(|| {
                sink.trouble("lost the coordinator; the operation goes on at the agents, trying again");
                now
            });
            if now.saturating_sub(since) > AWAY_MAX {
                let message = format!("the coordinator has been away for {} s", AWAY_MAX.as_secs());
                return Err(Failure::new(Exit::Unreachable, "watch operations", message)
                    .remedy(format!("see to the coordinator, then `causeway operation watch {}`", ids.join(" "))));
            }
            backoff.wait(env).await;
        }
        Ok(())
    }

    fn take(&mut self, wire: &v1::Operation, sink: &mut (dyn Sink + Send)) {
        let operation = Operation::from(wire);
        match self.newest.get(&operation.id) {
            Some(known) if known.version <= operation.version => {
                sink.update(&operation);
                self.newest.insert(operation.id.clone(), operation);
            }
            // A state from before the command that was just answered, or an operation nobody asked for.
            _ => {}
        }
    }

    fn is_over(&self) -> bool {
        self.newest.values().all(|operation| self.goal.is_reached(operation))
    }
}

#[cfg(test)]
mod tests;
