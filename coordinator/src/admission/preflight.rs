//! What both agents find: the source examines, the destination judges what the source requires.

use handover::{DatabaseName, Finding, Kind, OperationId, Severity};

use crate::{
    agents::{self, Agents, Description, DestAddress, Half},
    store::InstanceRecord,
};

/// The two instances of an operation.
pub struct Pair<'a> {
    /// The source.
    pub source: &'a InstanceRecord,
    /// The destination.
    pub dest: &'a InstanceRecord,
}

/// Whether both agents are there, and the ones that are meant.
pub(super) struct Who {
    pub(super) source: bool,
    pub(super) dest: bool,
    pub(super) findings: Vec<Finding>,
}

/// Ask both agents who they are.
pub(super) async fn identify(agents: &Agents, source: Option<&InstanceRecord>, dest: Option<&InstanceRecord>) -> Who {
    let (from, to) = futures::join!(
        async {
            match source.filter(|source| !source.source_agent.is_empty()) {
                Some(source) => {
                    Some(describe(agents.source(source), |agent| async move { agent.describe().await }).await)
                }
                None => None,
            }
        },
        async {
            match dest.filter(|dest| !dest.dest_agent.is_empty()) {
                Some(dest) => Some(describe(agents.dest(dest), |agent| async move { agent.describe().await }).await),
                None => None,
            }
        },
    );
    let mut findings = Vec::new();
    let mut protocols = Vec::new();
    let mut check = |half, instance: Option<&InstanceRecord>, told: Option<Result<Description, agents::Error>>| {
        let (Some(instance), Some(told)) = (instance, told) else {
            return false;
        };
        match told {
            Err(error) => {
                findings.push(as_finding(&error));
                false
            }
            Ok(told) => {
                let wrong = impostor(half, instance, &told);
                protocols.push(told.protocol);
                let fine = wrong.is_none();
                findings.extend(wrong);
                fine
            }
        }
    };
    let (source_fine, dest_fine) = (check(Half::Source, source, from), check(Half::Dest, dest, to));
    if let [one, other] = protocols[..]
        && one != other
    {
        let message = format!("the source agent speaks transfer protocol {one}, the destination agent {other}");
        let remedy = "run the same version of Causeway at both instances";
        findings.push(Finding::error(handover::Side::Coordinator, "PROTOCOLS_DIFFER", message, remedy));
    }
    Who { source: source_fine, dest: dest_fine, findings }
}

async fn describe<A, F>(agent: Result<A, agents::Error>, ask: impl FnOnce(A) -> F) -> Result<Description, agents::Error>
where
    F: Future<Output = Result<Description, agents::Error>>,
{
    ask(agent?).await
}

/// The finding about an agent that answers, but is not the one that was registered.
fn impostor(half: Half, instance: &InstanceRecord, told: &Description) -> Option<Finding> {
    let meant = told.half == half.as_str() && told.instance == instance.name.as_str() && told.engine == instance.engine;
    (!meant).then(|| {
        let address = if half == Half::Source { &instance.source_agent } else { &instance.dest_agent };
        let message = format!(
            "at {address} answers the {} agent of instance {} ({}), not the {} agent of {} ({})",
            told.half,
            told.instance,
            told.engine,
            half.as_str(),
            instance.name,
            instance.engine
        );
        let remedy = format!("correct the addresses and the engine with which {} is registered", instance.name);
        Finding::error(half.side(), "WRONG_AGENT", message, remedy)
    })
}

/// What both agents found about a database.
#[derive(Debug, Default)]
pub struct Examined {
    /// All findings, the source's first.
    pub findings: Vec<Finding>,
    /// The agent that could not be asked or understood, so that findings may be missing.
    pub unheard: Option<agents::Error>,
}

impl Examined {
    /// Whether something stands in the way.
    pub fn stands_in_the_way(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// All that is known, as findings.
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings.into_iter().chain(self.unheard.as_ref().map(as_finding)).collect()
    }
}

/// Ask both agents about a database.
pub async fn examine(
    agents: &Agents,
    pair: &Pair<'_>,
    kind: Kind,
    database: &DatabaseName,
    operation: Option<&OperationId>,
) -> Examined {
    let mut examined = Examined::default();
    examined.unheard = try_examine(agents, pair, kind, database, operation, &mut examined.findings).await.err();
    let refused = examined.unheard.as_ref().is_some_and(|error| !error.unreachable());
    if refused && examined.stands_in_the_way() {
        // Where the source finds no database to speak of, a destination has nothing to judge: that is no news.
        examined.unheard = None;
    }
    examined
}

async fn try_examine(
    agents: &Agents,
    pair: &Pair<'_>,
    kind: Kind,
    database: &DatabaseName,
    operation: Option<&OperationId>,
    findings: &mut Vec<Finding>,
) -> Result<(), agents::Error> {
    let (source, dest) = (agents.source(pair.source)?, agents.dest(pair.dest)?);
    let identity = if agents.tls() { pair.dest.dest_identity() } else { String::new() };
    let to =
        DestAddress { address: pair.dest.transfer_address(), instance: pair.dest.name.as_str(), identity: &identity };
    let judged = source.preflight(database, kind, to, operation).await?;
    findings.extend(judged.findings);
    findings.extend(dest.preflight(database, &pair.source.engine, &judged.requirements, operation).await?);
    Ok(())
}

/// An agent that cannot be asked, as a finding.
pub fn as_finding(error: &agents::Error) -> Finding {
    let reason = error.reason();
    let side = error.party().half.side();
    Finding::error(side, &reason.code, reason.message, reason.remedy)
}
