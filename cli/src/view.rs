//! The API's messages as scripts get them: field names as in the API, enumerations as words, times in RFC 3339. Every
//! field is always there; what is unset is null.

use jiff::Timestamp;
use proto::v1;
use serde::Serialize;

/// Makes a struct that mirrors a message field by field.
macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident of $message:ident as $m:ident { $($field:ident: $type:ty = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[allow(missing_docs, reason = "documented in causeway/v1/*.proto, field by field")]
        pub struct $name { $(pub $field: $type,)* }

        impl From<&v1::$message> for $name {
            fn from($m: &v1::$message) -> Self {
                Self { $($field: $value,)* }
            }
        }
    };
}

mirror!(
    /// One copy or move of one database.
    Operation of Operation as m {
        id: String = m.id.clone(),
        batch: String = m.batch.clone(),
        kind: String = word(m.kind().as_str_name(), "KIND_"),
        source: String = m.source.clone(),
        destination: String = m.destination.clone(),
        database: String = m.database.clone(),
        state: String = word(m.state().as_str_name(), "STATE_"),
        status: String = m.status.clone(),
        step: String = m.step.clone(),
        queue_place: u32 = m.queue_place,
        attempt: u32 = m.attempt,
        reason: Option<Reason> = m.reason.as_ref().map(Reason::from),
        waiting_for: Vec<String> = m.waiting_for.clone(),
        findings: Vec<Finding> = m.findings.iter().map(Finding::from).collect(),
        progress: Option<Progress> = m.progress.as_ref().map(Progress::from),
        created: Option<Timestamp> = m.created.and_then(moment),
        started: Option<Timestamp> = m.started.and_then(moment),
        ready: Option<Timestamp> = m.ready.and_then(moment),
        complete_before: Option<Timestamp> = m.complete_before.and_then(moment),
        ended: Option<Timestamp> = m.ended.and_then(moment),
        version: u64 = m.version,
        on_online: Option<Hook> = m.on_online.as_ref().map(Hook::from),
        max_freeze_ms: u64 = m.max_freeze_ms,
        freeze_ms: u64 = m.freeze_ms,
        overrides: Vec<Override> = m.overrides.iter().map(Override::from).collect(),
        deeds: Vec<Deed> = m.deeds.iter().map(Deed::from).collect(),
    }
);

mirror!(
    /// What somebody did about an operation.
    Deed of Deed as m {
        what: String = m.what.clone(),
        by: String = m.by.clone(),
        at: Option<Timestamp> = m.at.and_then(moment),
    }
);

mirror!(
    /// Who the caller is.
    WhoAmI of WhoAmIResponse as m {
        principal: String = m.principal.clone(),
        proof: String = m.proof.clone(),
        groups: Vec<String> = m.groups.clone(),
        policy: bool = m.policy,
    }
);

mirror!(
    /// Whether something is allowed.
    Access of CheckAccessResponse as m {
        allowed: bool = m.allowed,
        policies: Vec<String> = m.policies.clone(),
        principal: String = m.principal.clone(),
        action: String = m.action.clone(),
        resource: String = m.resource.clone(),
    }
);

mirror!(
    /// An operation in words.
    Explanation of ExplainOperationResponse as m {
        operation: Option<Operation> = m.operation.as_ref().map(Operation::from),
        summary: String = m.summary.clone(),
        since: Option<Timestamp> = m.since.and_then(moment),
        clients: String = m.clients.clone(),
        source_agent: String = m.source_agent.clone(),
        dest_agent: String = m.dest_agent.clone(),
        choices: Vec<Choice> = m.choices.iter().map(Choice::from).collect(),
        waits: Vec<Wait> = m.waits.iter().map(Wait::from).collect(),
    }
);

mirror!(
    /// That an operation waits for somebody.
    Wait of Wait as m {
        whom: String = m.whom.clone(),
        since: Option<Timestamp> = m.since.and_then(moment),
    }
);

mirror!(
    /// One thing that a person can do about an operation.
    Choice of Choice as m {
        command: String = m.command.clone(),
        effect: String = m.effect.clone(),
        is_override: bool = m.is_override,
    }
);

mirror!(
    /// An override that an operator used.
    Override of Override as m {
        what: String = m.what.clone(),
        at: Option<Timestamp> = m.at.and_then(moment),
    }
);

mirror!(
    /// A reason with a stable code.
    Reason of Reason as m {
        code: String = m.code.clone(),
        message: String = m.message.clone(),
        remedy: String = m.remedy.clone(),
    }
);

mirror!(
    /// Outcome of a hook.
    Hook of Hook as m {
        ok: bool = m.ok,
        exit_code: i32 = m.exit_code,
        output: String = m.output.clone(),
        took_ms: u64 = m.took_ms,
    }
);

mirror!(
    /// How far an operation is.
    Progress of Progress as m {
        seed_bytes_done: u64 = m.seed_bytes_done,
        seed_bytes_total: u64 = m.seed_bytes_total,
        seed_objects_done: u32 = m.seed_objects_done,
        seed_objects_total: u32 = m.seed_objects_total,
        rows_done: u64 = m.rows_done,
        bytes_per_second: u64 = m.bytes_per_second,
        eta_seconds: Option<u64> = m.eta_seconds,
        log_bytes_applied: u64 = m.log_bytes_applied,
        transactions_applied: u64 = m.transactions_applied,
        lag_bytes: u64 = m.lag_bytes,
        lag_ms: u64 = m.lag_ms,
        retained_bytes: u64 = m.retained_bytes,
        retained_budget_bytes: u64 = m.retained_budget_bytes,
        reconnects: u32 = m.reconnects,
        seed_bytes_sent: u64 = m.seed_bytes_sent,
        object: String = m.object.clone(),
        generation: u64 = m.generation,
        observed: Option<Timestamp> = m.observed.and_then(moment),
    }
);

mirror!(
    /// One thing that a preflight found.
    Finding of Finding as m {
        severity: String = word(m.severity().as_str_name(), "SEVERITY_"),
        side: String = m.side.clone(),
        code: String = m.code.clone(),
        message: String = m.message.clone(),
        remedy: String = m.remedy.clone(),
    }
);

mirror!(
    /// What a preflight found about one database.
    DatabaseFindings of DatabaseFindings as m {
        database: String = m.database.clone(),
        findings: Vec<Finding> = m.findings.iter().map(Finding::from).collect(),
    }
);

mirror!(
    /// A database server, or a directory of databases.
    Instance of Instance as m {
        name: String = m.name.clone(),
        engine: String = m.engine.clone(),
        source_agent: String = m.source_agent.clone(),
        dest_agent: String = m.dest_agent.clone(),
        transfer_address: String = m.transfer_address.clone(),
        subscription: String = m.subscription.clone(),
        resource_group: String = m.resource_group.clone(),
        region: String = m.region.clone(),
        failover_group: String = m.failover_group.clone(),
        source_identity: String = m.source_identity.clone(),
        dest_identity: String = m.dest_identity.clone(),
        version: u64 = m.version,
        from_config: bool = m.from_config,
    }
);

mirror!(
    /// One user database of an instance.
    Database of Database as m {
        name: String = m.name.clone(),
        size_bytes: u64 = m.size_bytes,
        state: String = m.state.clone(),
        findings: Vec<Finding> = m.findings.iter().map(Finding::from).collect(),
        operation: String = m.operation.clone(),
    }
);

/// Operations, as from a list, a completion or a cancel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operations {
    /// In the order of the answer.
    pub operations: Vec<Operation>,
}

/// The answer to a start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Started {
    /// What was started; nothing with `--validate-only`.
    pub operations: Vec<Operation>,
    /// What the preflight found, for each database.
    pub findings: Vec<DatabaseFindings>,
}

/// All instances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instances {
    /// By name.
    pub instances: Vec<Instance>,
}

/// What a coordinator adopts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Adoption {
    /// Taken up, or that would be.
    pub operations: Vec<Operation>,
    /// Left alone.
    pub not_adopted: Vec<NotAdopted>,
}

/// An operation that a coordinator leaves alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotAdopted {
    /// Its id.
    pub operation: String,
    /// What is remembered of it, and where.
    pub found: String,
    /// Why it is left alone.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl From<&v1::AdoptOperationsResponse> for Adoption {
    fn from(wire: &v1::AdoptOperationsResponse) -> Self {
        let left = wire.not_adopted.iter().cloned();
        let left = left.map(|v1::NotAdopted { operation, found, message, remedy }| NotAdopted {
            operation,
            found,
            message,
            remedy,
        });
        Self { operations: wire.operations.iter().map(Operation::from).collect(), not_adopted: left.collect() }
    }
}

/// The databases of an instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Databases {
    /// By name.
    pub databases: Vec<Database>,
}

/// An answer without content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nothing {}

impl Finding {
    /// Whether it stands in the way.
    pub fn is_error(&self) -> bool {
        self.severity == "error"
    }
}

impl From<&[v1::Operation]> for Operations {
    fn from(messages: &[v1::Operation]) -> Self {
        Self { operations: messages.iter().map(Operation::from).collect() }
    }
}

/// The moment of a wire timestamp; `None` if it is out of range.
pub fn moment(wire: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(wire.seconds, wire.nanos).ok()
}

/// `STATE_CATCHING_UP` without its prefix in lower case.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
pub(crate) mod tests;
