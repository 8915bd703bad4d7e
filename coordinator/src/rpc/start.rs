//! Starting: examine, and then write operations, busy databases and request in one commit.

use handover::{
    Attempt, OperationId, Token,
    operation::{Operation, Options, State, Times},
};
use proto::{convert, v1};

use super::{
    error::Error,
    fields::{Fields, checked},
    wire,
};
use crate::{
    admission::{self, Found, Wish},
    auth::Caller,
    core::Core,
    store::{self, Creation, Done, Record, RequestRecord, Stored},
};

/// Window of an operation in seconds: a minute, so that a person can act at all, to a week.
const WINDOW_SECONDS: std::ops::RangeInclusive<u64> = 60..=604_800;
const REQUEST_ID_MAX: usize = 64;
/// Tries for ids that sort after all that exist: each waits a millisecond for the clock to move on.
const ID_TRIES: u32 = 50;

pub(super) async fn start(
    core: &Core,
    caller: &Caller,
    request: v1::StartOperationRequest,
) -> Result<v1::StartOperationResponse, Error> {
    let asked = read(&request)?;
    caller.may_start(core, &asked.wish).await?;
    if let Some(answer) = repeated(core, &asked).await? {
        return Ok(answer);
    }
    let found = admission::examine(core, &asked.wish).await?;
    if asked.validate_only {
        return Ok(v1::StartOperationResponse { operations: Vec::new(), findings: findings(&found) });
    }
    if found.iter().any(Found::stands_in_the_way) {
        // What stands in the way may be the very operations of this request, sent on another connection.
        return repeated(core, &asked).await?.ok_or(Error::PreflightFailed(found));
    }
    match create(core, caller, &asked, &found).await? {
        Some(created) => {
            for stored in &created {
                let operation = stored.operation();
                caller.concerns(&operation.id);
                tracing::info!(
                    operation = %operation.id, batch = operation.batch, kind = %operation.kind, by = %caller,
                    source = %operation.source, destination = %operation.destination, database = %operation.database,
                    "operation started"
                );
            }
            let operations = created.iter().map(|stored| wire::operation(core, stored)).collect();
            Ok(v1::StartOperationResponse { operations, findings: findings(&found) })
        }
        // The same request was faster on another connection.
        None => repeated(core, &asked).await?.ok_or(Error::Contended),
    }
}

struct Asked {
    wish: Wish,
    request_id: Option<String>,
    validate_only: bool,
    log_budget_bytes: u64,
    window_seconds: u64,
}

impl Asked {
    fn record(&self, batch: &str) -> RequestRecord {
        RequestRecord {
            batch: batch.to_owned(),
            kind: self.wish.kind,
            source: self.wish.source.clone(),
            destination: self.wish.destination.clone(),
            databases: self.wish.databases.clone(),
            log_budget_bytes: self.log_budget_bytes,
            window_seconds: self.window_seconds,
        }
    }
}

fn read(request: &v1::StartOperationRequest) -> Result<Asked, Error> {
    let mut fields = Fields::default();
    let kind = fields.kind("kind", request.kind);
    let source = fields.instance("source", &request.source);
    let destination = fields.instance("destination", &request.destination);
    if request.databases.is_empty() {
        fields.wrong("databases", "give 1 to 100 database names");
    }
    let databases = fields.databases("databases", &request.databases);
    let id = &request.request_id;
    if id.len() > REQUEST_ID_MAX || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        fields.wrong("request_id", "give up to 64 letters, digits and '-', or nothing");
    }
    if request.window_seconds != 0 && !WINDOW_SECONDS.contains(&request.window_seconds) {
        fields.wrong("window_seconds", "give 60 to 604800 seconds, or 0 for the coordinator's default");
    }
    fields.check()?;
    Ok(Asked {
        wish: Wish {
            kind: checked(kind, "kind")?,
            source: checked(source, "source")?,
            destination: checked(destination, "destination")?,
            databases,
        },
        request_id: (!id.is_empty()).then(|| id.clone()),
        validate_only: request.validate_only,
        log_budget_bytes: request.log_budget_bytes,
        window_seconds: request.window_seconds,
    })
}

/// The answer to a request that was made before under the same id.
async fn repeated(core: &Core, asked: &Asked) -> Result<Option<v1::StartOperationResponse>, Error> {
    let Some(id) = asked.request_id.as_ref().filter(|_| !asked.validate_only) else {
        return Ok(None);
    };
    let Some(before) = core.records.request(id).await? else {
        return Ok(None);
    };
    if !before.same_as(&asked.record("")) {
        return Err(Error::RequestIdReused(id.clone()));
    }
    let mut operations = Vec::new();
    let mut findings = Vec::new();
    for id in core.records.batch(&before.batch).await? {
        if let Some(stored) = core.records.operation(&id).await? {
            let operation = wire::operation(core, &stored);
            findings.push(v1::DatabaseFindings {
                database: operation.database.clone(),
                findings: operation.findings.clone(),
            });
            operations.push(operation);
        }
    }
    Ok(Some(v1::StartOperationResponse { operations, findings }))
}

/// Write the operations; nothing if a request of the same id got there first.
async fn create(core: &Core, caller: &Caller, asked: &Asked, found: &[Found]) -> Result<Option<Vec<Stored>>, Error> {
    let _gate = core.gate.lock().await;
    if let Some(id) = &asked.request_id
        && core.records.request(id).await?.is_some()
    {
        return Ok(None);
    }
    // What may have changed while the agents were asked.
    let again = admission::recheck(core, &asked.wish).await?;
    if again.iter().any(Found::stands_in_the_way) {
        return Err(Error::PreflightFailed(again));
    }
    let ids = ids(core, found.len()).await?;
    let batch = core.env.uuid_v7();
    let records = ids.into_iter().zip(found).map(|(id, found)| new(core, caller, asked, &batch, id, found));
    let records: Vec<Record> = records.collect();
    let request = asked.request_id.as_ref().map(|id| (id.clone(), asked.record(&batch)));
    let creation = Creation { records, request, above: handover::CommandVersion(0) };
    match core.records.create(&creation).await {
        Ok(version) => {
            // The quota must be right for whoever comes through the gate next.
            core.caught_up(version).await;
            Ok(Some(creation.records.into_iter().map(|record| Stored { version, record }).collect()))
        }
        Err(store::Error::Conflict { .. }) => Ok(None),
        Err(store::Error::Busy { instance, database, operation }) => {
            let findings = vec![admission::busy_finding(&instance, &database, &operation)];
            Err(Error::PreflightFailed(vec![Found { database, findings }]))
        }
        Err(error) => Err(error.into()),
    }
}

/// Ids in ascending order, after all that exist: their order is that of the queue and of lists.
async fn ids(core: &Core, count: usize) -> Result<Vec<OperationId>, Error> {
    let newest = core.records.newest(None, 1).await?;
    let newest = newest.first().map(|stored| stored.id().clone());
    let mut tries = 0;
    loop {
        let mut ids: Vec<OperationId> =
            (0..count).filter_map(|_| OperationId::parse(&core.env.uuid_v7()).ok()).collect();
        ids.sort_unstable();
        tries += 1;
        // A clock that was set back cannot be waited for; ids are then unique all the same.
        if tries >= ID_TRIES || newest.is_none() || ids.first() > newest.as_ref() {
            return Ok(ids);
        }
        core.env.sleep(std::time::Duration::from_millis(1)).await;
    }
}

fn new(core: &Core, caller: &Caller, asked: &Asked, batch: &str, id: OperationId, found: &Found) -> Record {
    let window_ms = match asked.window_seconds {
        0 => i64::try_from(core.limits.window.as_millis()).unwrap_or(i64::MAX),
        seconds => i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX),
    };
    Record::new(Operation {
        id,
        batch: batch.to_owned(),
        kind: asked.wish.kind,
        source: asked.wish.source.clone(),
        destination: asked.wish.destination.clone(),
        database: found.database.clone(),
        token: Token::parse(&core.env.token()).expect("32 hexadecimal digits are a token"),
        options: Options { log_budget_bytes: asked.log_budget_bytes, window_ms },
        state: State::Queued,
        attempt: Attempt(0),
        findings: found.findings.clone(),
        reason: None,
        times: Times { created_ms: core.now_ms(), ..Times::default() },
        hook: None,
        freeze_ms: None,
        overrides: Vec::new(),
    })
    .done(Done::Start, caller.name(), core.now_ms())
}

fn findings(found: &[Found]) -> Vec<v1::DatabaseFindings> {
    found
        .iter()
        .map(|found| v1::DatabaseFindings {
            database: found.database.to_string(),
            findings: found.findings.iter().map(convert::finding_to_wire).collect(),
        })
        .collect()
}
