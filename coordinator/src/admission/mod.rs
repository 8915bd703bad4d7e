//! Who may start what: the coordinator's own rules, and what both agents find. Everything at once.

pub mod preflight;
mod rules;

use futures::{StreamExt as _, stream};
use handover::{DatabaseName, Finding, InstanceName, Kind, Severity};

use crate::{
    core::Core,
    store::{self, InstanceRecord},
};
use preflight::Pair;

/// What is to be started, its fields checked already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Copy or move.
    pub kind: Kind,
    /// The source instance.
    pub source: InstanceName,
    /// The destination instance.
    pub destination: InstanceName,
    /// The databases, each once.
    pub databases: Vec<DatabaseName>,
}

/// What was found about one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The database.
    pub database: DatabaseName,
    /// Errors and warnings.
    pub findings: Vec<Finding>,
}

impl Found {
    /// Whether something stands in the way.
    pub fn stands_in_the_way(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Databases examined at once: an examination is a handful of queries at each side.
const AT_ONCE: usize = 8;

/// Examine a wish by every rule. Changes nothing.
pub async fn examine(core: &Core, wish: &Wish) -> Result<Vec<Found>, store::Error> {
    let (found, [source, dest]) = own_rules(core, wish).await?;
    // Both agents are asked who they are once, not for each database.
    let who = preflight::identify(&core.agents, source.as_ref(), dest.as_ref()).await;
    let pair = match (&source, &dest) {
        (Some(source), Some(dest)) if source.name != dest.name && who.source && who.dest => Some(Pair { source, dest }),
        _ => None,
    };
    let examined = found.into_iter().map(|mut found| {
        found.findings.extend(who.findings.iter().cloned());
        let pair = pair.as_ref();
        async move {
            if let Some(pair) = pair {
                let examined = preflight::examine(&core.agents, pair, wish.kind, &found.database, None).await;
                found.findings.extend(examined.into_findings());
            }
            found
        }
    });
    Ok(stream::iter(examined).buffered(AT_ONCE).collect().await)
}

/// Examine a wish by the coordinator's own rules alone, under the gate: what may have changed since [`examine`].
pub async fn recheck(core: &Core, wish: &Wish) -> Result<Vec<Found>, store::Error> {
    Ok(own_rules(core, wish).await?.0)
}

type Instances = [Option<InstanceRecord>; 2];

async fn own_rules(core: &Core, wish: &Wish) -> Result<(Vec<Found>, Instances), store::Error> {
    let source = core.instances.get(&wish.source).await?.map(|known| known.record);
    let dest = core.instances.get(&wish.destination).await?.map(|known| known.record);
    let mut common = rules::instances(&core.limits, wish, source.as_ref(), dest.as_ref());
    common.extend(rules::quota(&core.limits, core.hub.active(), wish.databases.len()));
    let at_source = core.records.busy_at(&wish.source).await?;
    let at_dest = core.records.busy_at(&wish.destination).await?;
    let found = wish.databases.iter().map(|database| {
        let mut findings = common.clone();
        findings.extend(rules::busy(wish, database, &at_source, &at_dest));
        Found { database: database.clone(), findings }
    });
    Ok((found.collect(), [source, dest]))
}

/// The finding about a database that is taken.
pub use rules::busy_finding;
