//! Preflight at the source: the engine's findings, and whether the destination agent can be reached from here.

use crate::session::Registry;
use handover::{DatabaseName, Finding, Kind, OperationId, Side};
use proto::v1::{self, transfer_client::TransferClient};
use service::dial::DialOptions;
use std::time::Duration;

/// A destination that does not answer a probe within this is taken for unreachable.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// What is to be probed; nothing is probed without an address.
pub struct Dest {
    pub address: String,
    pub instance: String,
    pub identity: String,
}

/// Examines a database and the way to its destination.
pub async fn examine(
    registry: &Registry,
    database: &DatabaseName,
    kind: Kind,
    operation: Option<&OperationId>,
    dest: &Dest,
) -> engines::Result<v1::SourcePreflightResponse> {
    let engine = &registry.shared().engine;
    let (facts, probed) = tokio::join!(engine.preflight(database, kind, operation), probe(registry, dest));
    let facts = facts?;
    let findings = facts.findings.iter().chain(&probed).map(proto::convert::finding_to_wire).collect();
    Ok(v1::SourcePreflightResponse { findings, requirements: facts.requirements, seed_bytes: facts.seed_bytes })
}

async fn probe(registry: &Registry, dest: &Dest) -> Option<Finding> {
    if dest.address.is_empty() {
        return None;
    }
    let error = |code: &str, message: String, remedy: &str| Some(Finding::error(Side::Source, code, message, remedy));
    let shared = registry.shared();
    let mut options = DialOptions::transfer();
    if !dest.identity.is_empty() {
        options = options.expecting(dest.identity.clone());
    }
    let answer = shared.env.timeout(PROBE_WITHIN, async {
        let channel =
            shared.dialer.connect_with(&dest.address, &options).await.map_err(|e| service::status::chain(&e))?;
        let answer = TransferClient::new(channel).probe(v1::ProbeRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| service::status::describe(&status))
    });
    let answered = match answer.await {
        Ok(answered) => answered,
        Err(elapsed) => Err(format!("no answer within {} s", elapsed.limit.as_secs())),
    };
    match answered {
        Err(why) => error(
            "NO_NETWORK_PATH",
            format!("the source agent cannot reach the destination agent at {}: {why}", dest.address),
            "open the way from source agent to destination agent: route, firewall, and the instance's transfer_address",
        ),
        Ok(answer) if !dest.instance.is_empty() && answer.instance != dest.instance => error(
            "WRONG_DESTINATION",
            format!("at {} answers instance {:?}, not {:?}", dest.address, answer.instance, dest.instance),
            "correct the instance's transfer_address",
        ),
        Ok(answer) if answer.protocol != proto::PROTOCOL => error(
            "WRONG_PROTOCOL",
            format!("the destination agent speaks transfer protocol {}, this one {}", answer.protocol, proto::PROTOCOL),
            "run agents of the same version at both ends",
        ),
        Ok(answer) if answer.engine != shared.engine.name() => error(
            "WRONG_ENGINE",
            format!("the destination's engine is {:?}, the source's {:?}", answer.engine, shared.engine.name()),
            "choose a destination instance of the same engine",
        ),
        Ok(_) => None,
    }
}
