//! The calls themselves: the only place where the coordinator speaks gRPC to agents.

mod dest;
mod source;

use std::future::Future;
use std::time::Duration;

use handover::{Attempt, CommandVersion, operation::Reason};
use proto::{
    convert,
    v1::{self, dest_agent_client::DestAgentClient, source_agent_client::SourceAgentClient},
};
use service::{
    Env,
    dial::{self, Pool},
    status,
};
use tonic::{Response, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::{DatabaseInfo, Description, Error, Half, Party, Remembered};
use crate::{progress::Progress, store::InstanceRecord};

/// How long an agent may take to answer.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// A question about state: nothing is done for it.
    pub question: Duration,
    /// A command: something is made durable, dropped or removed for it.
    pub command: Duration,
}

/// Calls agents over connections that are kept.
pub struct Agents {
    env: Env,
    pool: Pool,
    tls: bool,
    timeouts: Timeouts,
}

impl Agents {
    /// Calls through `pool`; with `tls` an agent must prove to be the one its instance names.
    pub fn new(env: Env, pool: Pool, tls: bool, timeouts: Timeouts) -> Self {
        Self { env, pool, tls, timeouts }
    }

    /// Whether agents prove who they are.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The source agent of an instance.
    pub fn source(&self, instance: &InstanceRecord) -> Result<SourceAgent, Error> {
        let (channel, link) = self.link(Half::Source, instance, &instance.source_agent, instance.source_identity())?;
        Ok(SourceAgent { client: SourceAgentClient::new(channel), link })
    }

    /// The destination agent of an instance.
    pub fn dest(&self, instance: &InstanceRecord) -> Result<DestAgent, Error> {
        let (channel, link) = self.link(Half::Dest, instance, &instance.dest_agent, instance.dest_identity())?;
        Ok(DestAgent { client: DestAgentClient::new(channel), link })
    }

    fn link(
        &self,
        half: Half,
        instance: &InstanceRecord,
        address: &str,
        identity: String,
    ) -> Result<(Channel, Link), Error> {
        let party = Party { half, instance: instance.name.clone(), address: address.to_owned() };
        if address.is_empty() {
            let message = format!("instance {} has no {half}", instance.name);
            return Err(Error::Misconfigured { party, message, remedy: "register it with its address".to_owned() });
        }
        let channel = if self.tls { self.pool.get_expecting(address, &identity) } else { self.pool.get(address) };
        match channel {
            Ok(channel) => Ok((channel, Link { env: self.env.clone(), party, timeouts: self.timeouts.clone() })),
            Err(error) => Err(dialled(party, &error)),
        }
    }
}

#[derive(Clone)]
struct Link {
    env: Env,
    party: Party,
    timeouts: Timeouts,
}

impl Link {
    async fn ask<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        self.call(self.timeouts.question, call).await
    }

    async fn command<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
        self.call(self.timeouts.command, call).await
    }

    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match self.env.timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(elapsed) => {
                let (message, remedy) = (elapsed.to_string(), String::new());
                Err(Error::Unreachable { party: self.party.clone(), message, remedy })
            }
        }
    }

    fn error(&self, status: &Status) -> Error {
        let party = self.party.clone();
        let text = status::describe(status).replace('\n', "; ");
        if let Some(failed) = cause::<dial::Error>(status) {
            return dialled(party, failed);
        }
        if status::is_transport(status) {
            return Error::Unreachable { party, message: text, remedy: String::new() };
        }
        let code = status::reason_of(status).unwrap_or_else(|| code_name(status.code()));
        let remedy = status::remedy_of(status).unwrap_or_default();
        let message = if status.message().is_empty() { text } else { status.message().to_owned() };
        // A refusal without our details comes from something between us and the agent, or from its server's shutdown.
        let retryable = status::retryable(status);
        let known = status
            .get_details_error_info()
            .and_then(|info| info.metadata.get("known")?.parse().ok())
            .map(CommandVersion);
        Error::Refused { party, reason: Box::new(Reason { code, message, remedy }), retryable, known }
    }

    fn malformed(&self, message: impl Into<String>) -> Error {
        Error::Malformed { party: self.party.clone(), message: message.into() }
    }
}

/// An error of dialling: its text names the address, which the party does too, and ends with the remedy.
fn dialled(party: Party, error: &dial::Error) -> Error {
    let text = error.to_string();
    let (what, remedy) = text.split_once("; ").unwrap_or((&text, ""));
    let message = what.strip_prefix(&format!("connect to {}: ", party.address)).unwrap_or(what).to_owned();
    let remedy = remedy.to_owned();
    match error.retryable() {
        true => Error::Unreachable { party, message, remedy },
        false => Error::Misconfigured { party, message, remedy },
    }
}

fn cause<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn code_name(code: tonic::Code) -> String {
    let words = format!("{code:?}");
    let mut name = String::new();
    for (at, letter) in words.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

macro_rules! both_halves {
    ($agent:ident, $client:ident, $half:literal) => {
        #[doc = concat!("The ", $half, " agent of one instance.")]
        #[derive(Clone)]
        pub struct $agent {
            client: $client<Channel>,
            link: Link,
        }

        impl $agent {
            /// Who this is.
            pub fn party(&self) -> &Party {
                &self.link.party
            }

            /// What it says it is.
            pub async fn describe(&self) -> Result<Description, Error> {
                let answer = self.link.ask(self.client.clone().describe(v1::DescribeRequest {})).await?;
                let operations = answer.operations.into_iter().map(remembered).collect::<Result<_, _>>();
                Ok(Description {
                    half: answer.agent,
                    instance: answer.instance,
                    engine: answer.engine,
                    protocol: answer.protocol,
                    operations: operations.map_err(|bad| self.link.malformed(bad.to_string()))?,
                    watermark: CommandVersion(answer.watermark),
                })
            }

            /// The databases of its instance.
            pub async fn databases(&self) -> Result<Vec<DatabaseInfo>, Error> {
                let request = v1::AgentListDatabasesRequest {};
                let answer = self.link.command(self.client.clone().list_databases(request)).await?;
                Ok(answer.databases.into_iter().map(database).collect())
            }
        }
    };
}

both_halves!(SourceAgent, SourceAgentClient, "source");
both_halves!(DestAgent, DestAgentClient, "destination");

fn remembered(wire: v1::KnownOperation) -> Result<Remembered, convert::BadField> {
    Ok(Remembered {
        operation: convert::operation_id("operation", &wire.operation)?,
        database: convert::database_name("database", &wire.database)?,
        kind: convert::kind("kind", wire.kind)?,
        phase: wire.phase,
        attempt: Attempt(wire.attempt),
        floor: Attempt(wire.floor),
        version: CommandVersion(wire.version),
        dest_address: wire.dest_address,
        source_identity: wire.source_identity,
        log_budget_bytes: wire.log_budget_bytes,
        heard_ago: wire.heard_ms_ago.map(Duration::from_millis),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn reason(wire: v1::Reason) -> Reason {
    Reason { code: wire.code, message: wire.message, remedy: wire.remedy }
}

fn database(wire: v1::Database) -> DatabaseInfo {
    DatabaseInfo {
        name: wire.name,
        size_bytes: wire.size_bytes,
        state: wire.state,
        findings: wire.findings.into_iter().map(convert::finding).collect(),
    }
}

fn progress(wire: v1::Progress) -> Progress {
    Progress {
        seed_bytes_done: wire.seed_bytes_done,
        seed_bytes_total: wire.seed_bytes_total,
        seed_objects_done: wire.seed_objects_done,
        seed_objects_total: wire.seed_objects_total,
        rows_done: wire.rows_done,
        bytes_per_second: wire.bytes_per_second,
        eta_seconds: wire.eta_seconds,
        log_bytes_applied: wire.log_bytes_applied,
        transactions_applied: wire.transactions_applied,
        lag_bytes: wire.lag_bytes,
        lag_ms: wire.lag_ms,
        retained_bytes: wire.retained_bytes,
        retained_budget_bytes: wire.retained_budget_bytes,
        reconnects: wire.reconnects,
        seed_bytes_sent: wire.seed_bytes_sent,
        object: wire.object,
        generation: wire.generation,
        observed_ms: None,
    }
}
