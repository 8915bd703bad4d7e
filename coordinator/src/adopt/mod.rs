//! Taking up the operations that the agents remember: for a coordinator whose store was lost entirely.
//!
//! What an operation is about to do next follows from the two role records alone, because the agents decide by them and the
//! coordinator only asks. What a store knew besides (when it was started and by which request, the figures) is gone.

mod rebuild;

use std::{collections::BTreeMap, fmt, time::Duration};

use futures::future::join_all;
use handover::{
    CommandVersion, OperationId, Token,
    operation::{Operation, Options, State, Times},
};

use crate::{
    agents::{self, Description, Half, Remembered},
    core::Core,
    store::{self, Creation, InstanceRecord, Record, Stored},
};

/// A coordinator that drives an operation asks its agents several times a second, and every two seconds while one does not
/// answer. Who was heard within this is alive, or was a moment ago.
const ALIVE: Duration = Duration::from_secs(10);

/// Why nothing is adopted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nobody to ask.
    #[error("no instance is known, so there is no agent to ask")]
    NoInstances,
    /// Some agents did not answer; each may hold the other half of an operation.
    #[error("not every agent can be asked what it remembers: {}", list(.0))]
    Unheard(Vec<agents::Error>),
    /// An agent answers where another should.
    #[error("at the address of the {half} of {expected} answers that of {found}")]
    WrongAgent {
        /// Which of the two agents.
        half: Half,
        /// The instance as registered.
        expected: String,
        /// What answers.
        found: String,
    },
    /// Another coordinator drives the operations.
    #[error("a coordinator spoke to instance {instance} about operation {operation} {ms} ms ago", ms = ago.as_millis())]
    Alive {
        /// The instance.
        instance: String,
        /// The operation.
        operation: OperationId,
        /// When.
        ago: Duration,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

fn list<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

/// What came of it.
pub struct Adopted {
    /// The operations taken up, or that would be.
    pub operations: Vec<Stored>,
    /// Those that are not, because that would not be safe.
    pub refused: Vec<Refused>,
}

/// An operation that is left alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The operation.
    pub operation: OperationId,
    /// What is remembered of it, and where.
    pub found: String,
    /// Why it is not taken up.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// Both halves of an operation, as far as agents remember it.
#[derive(Default)]
struct Halves<'a> {
    sources: Vec<(&'a InstanceRecord, &'a Remembered)>,
    dests: Vec<(&'a InstanceRecord, &'a Remembered)>,
}

/// Takes up every operation that the agents of the known instances remember and this store does not hold; or, with `only_look`,
/// tells what would be.
pub async fn adopt(core: &Core, only_look: bool) -> Result<Adopted, Error> {
    // Nobody starts an operation on these databases meanwhile.
    let _gate = core.gate.lock().await;
    let instances: Vec<InstanceRecord> = core.instances.all().await?.into_iter().map(|known| known.record).collect();
    if instances.is_empty() {
        return Err(Error::NoInstances);
    }
    let heard = ask(core, &instances).await?;
    let mut halves: BTreeMap<OperationId, Halves<'_>> = BTreeMap::new();
    let mut above = CommandVersion(0);
    for (instance, half, description) in &heard {
        above = above.max(description.watermark);
        for known in &description.operations {
            above = above.max(known.version);
            let both = halves.entry(known.operation.clone()).or_default();
            match half {
                Half::Source => both.sources.push((instance, known)),
                Half::Dest => both.dests.push((instance, known)),
            }
        }
    }
    let (mut records, mut refused) = (Vec::new(), Vec::new());
    let batch = core.env.uuid_v7();
    for (id, both) in &halves {
        if core.records.operation(id).await?.is_some_and(|stored| !stored.operation().state.ended()) {
            continue;
        }
        alone(id, both)?;
        match rebuild_one(core, &instances, id, both, &batch).await? {
            Ok(record) => records.push(record),
            Err(why) => refused.push(why),
        }
    }
    let version = match (only_look, records.is_empty()) {
        (false, false) => {
            let creation = Creation { records: records.clone(), request: None, above };
            let version = core.records.create(&creation).await?;
            core.caught_up(version).await;
            version
        }
        _ => CommandVersion(0),
    };
    let operations = records.into_iter().map(|record| Stored { version, record }).collect();
    Ok(Adopted { operations, refused })
}

type Heard<'a> = (&'a InstanceRecord, Half, Description);

/// Asks every agent what it remembers.
async fn ask<'a>(core: &Core, instances: &'a [InstanceRecord]) -> Result<Vec<Heard<'a>>, Error> {
    let one = async |instance: &'a InstanceRecord, half: Half| -> Result<Heard<'a>, agents::Error> {
        let description = match half {
            Half::Source => core.agents.source(instance)?.describe().await?,
            Half::Dest => core.agents.dest(instance)?.describe().await?,
        };
        Ok((instance, half, description))
    };
    let sources = instances.iter().filter(|i| !i.source_agent.is_empty()).map(|i| one(i, Half::Source));
    let dests = instances.iter().filter(|i| !i.dest_agent.is_empty()).map(|i| one(i, Half::Dest));
    let (sources, dests) = futures::join!(join_all(sources), join_all(dests));
    let (mut heard, mut unheard) = (Vec::new(), Vec::new());
    for answer in sources.into_iter().chain(dests) {
        match answer {
            Ok(answer) => heard.push(answer),
            Err(error) => unheard.push(error),
        }
    }
    if !unheard.is_empty() {
        return Err(Error::Unheard(unheard));
    }
    for (instance, half, description) in &heard {
        if description.instance != instance.name.as_str() || description.half != half.as_str() {
            let found = format!("{} {}", description.half, description.instance);
            return Err(Error::WrongAgent { half: *half, expected: instance.name.to_string(), found });
        }
    }
    Ok(heard)
}

/// Refuses while somebody else drives the operation.
fn alone(id: &OperationId, both: &Halves<'_>) -> Result<(), Error> {
    for (instance, known) in &both.sources {
        if let Some(ago) = known.heard_ago.filter(|ago| *ago < ALIVE) {
            return Err(Error::Alive { instance: instance.name.to_string(), operation: id.clone(), ago });
        }
    }
    Ok(())
}

async fn rebuild_one(
    core: &Core,
    instances: &[InstanceRecord],
    id: &OperationId,
    both: &Halves<'_>,
    batch: &str,
) -> Result<Result<Record, Refused>, Error> {
    let refuse = |why: String, remedy: &str| {
        let known = both
            .sources
            .iter()
            .chain(&both.dests)
            .map(|(instance, known)| format!("{} at {} ({})", known.database, instance.name, known.phase));
        let found = known.collect::<Vec<_>>().join(", ");
        Ok(Err(Refused { operation: id.clone(), found, why, remedy: remedy.to_owned() }))
    };
    let (source, dest) = match (both.sources.as_slice(), both.dests.as_slice()) {
        ([], []) => return refuse("nobody remembers it".to_owned(), ""),
        (sources, dests) if sources.len() > 1 || dests.len() > 1 => {
            let why = "more than one instance remembers the same half of it: one is a copy of the other".to_owned();
            return refuse(why, "remove the instance that is the copy, or its records, and adopt again");
        }
        (sources, dests) => (sources.first().copied(), dests.first().copied()),
    };
    if let (Some((_, a)), Some((_, b))) = (source, dest)
        && (&a.database, a.kind) != (&b.database, b.kind)
    {
        let why = "its two halves are about different things".to_owned();
        return refuse(why, "report this with what `causeway coordinator adopt --validate-only` says");
    }
    let remembered = [source, dest].into_iter().flatten().next().map(|(_, known)| known);
    let Some(remembered) = remembered else { return refuse("nobody remembers it".to_owned(), "") };
    let source_instance = match source {
        Some((instance, _)) => Some(instance),
        None => source_of(instances, dest),
    };
    let Some(source_instance) = source_instance else {
        let why = "only its destination remembers it, and nothing tells which instance was its source".to_owned();
        return refuse(why, "leave only the instance that was its source registered beside it, and adopt again");
    };
    let dest_instance = match dest {
        Some((instance, _)) => Some(instance),
        None => instances
            .iter()
            .find(|i| Some(i.transfer_address()) == source.map(|(_, known)| known.dest_address.as_str())),
    };
    let Some(dest_instance) = dest_instance else {
        let address = source.map_or("", |(_, known)| known.dest_address.as_str());
        let why = format!("its destination, which was at {address}, is not registered");
        return refuse(why, "register that instance, with the transfer address that it had, and adopt again");
    };
    let database = &remembered.database;
    for instance in [source_instance, dest_instance] {
        if let Some(other) = core.records.busy_with(&instance.name, database).await? {
            let why = format!("{database} at {} takes part in operation {other} of this coordinator", instance.name);
            return refuse(why, "wait for that operation to end, or cancel it, and adopt again");
        }
    }
    let (source, dest) = (source.map(|(_, known)| known), dest.map(|(_, known)| known));
    let now_ms = core.now_ms();
    let max_freeze_ms = u64::try_from(core.limits.max_freeze.as_millis()).unwrap_or(u64::MAX);
    let grace_ms = u64::try_from(core.limits.grace.as_millis()).unwrap_or(u64::MAX);
    let rebuilt = match rebuild::rebuild(remembered.kind, source, dest, max_freeze_ms, grace_ms) {
        Ok(rebuilt) => rebuilt,
        Err(rebuild::Conflict { why, remedy }) => return refuse(why, remedy),
    };
    let window_ms = i64::try_from(core.limits.window.as_millis()).unwrap_or(i64::MAX);
    // One that goes back to ready by itself has a window, like one that becomes ready.
    let ready_ms = matches!(rebuilt.state, State::Completing(_)).then_some(now_ms);
    let operation = Operation {
        id: id.clone(),
        batch: batch.to_owned(),
        kind: remembered.kind,
        source: source_instance.name.clone(),
        destination: dest_instance.name.clone(),
        database: database.clone(),
        // The agents have theirs, and it is needed for nothing that is still to come.
        token: Token::parse(&core.env.token()).expect("32 hexadecimal digits are a token"),
        options: Options { log_budget_bytes: source.map_or(0, |known| known.log_budget_bytes), window_ms },
        state: rebuilt.state,
        attempt: rebuilt.attempt,
        findings: Vec::new(),
        reason: Some(rebuild::reason()),
        times: Times {
            created_ms: created_ms(id).unwrap_or(now_ms),
            started_ms: Some(now_ms),
            ready_ms,
            deadline_ms: ready_ms.map(|ready_ms| ready_ms.saturating_add(window_ms)),
            ended_ms: None,
        },
        hook: None,
        freeze_ms: None,
        overrides: vec![("adopt".to_owned(), now_ms)],
    };
    Ok(Ok(Record { since_ms: Some(now_ms), ..Record::new(operation) }))
}

/// The source of an operation that only its destination remembers, if there is no doubt about it.
fn source_of<'a>(
    instances: &'a [InstanceRecord],
    dest: Option<(&InstanceRecord, &Remembered)>,
) -> Option<&'a InstanceRecord> {
    let (dest, known) = dest?;
    let mut candidates = instances.iter().filter(|instance| {
        let able = !instance.source_agent.is_empty() && instance.name != dest.name && instance.engine == dest.engine;
        able && (known.source_identity.is_empty() || instance.source_identity() == known.source_identity)
    });
    candidates.next().filter(|_| candidates.next().is_none())
}

/// When an operation was made, as its id tells (RFC 9562, version 7).
fn created_ms(id: &OperationId) -> Option<i64> {
    let digits: String = id.as_str().chars().filter(char::is_ascii_hexdigit).take(12).collect();
    (digits.len() == 12 && id.as_str().as_bytes().get(14) == Some(&b'7'))
        .then(|| i64::from_str_radix(&digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_when_its_operation_was_made() {
        let id = |text| OperationId::parse(text).expect("an id");
        assert_eq!(created_ms(&id("019b76da-a800-7abc-8def-0123456789ab")), Some(1_767_225_600_000));
        assert_eq!(created_ms(&id("shop")), None);
    }
}
