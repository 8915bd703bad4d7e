//! Reading operations: one, or pages of many from the newest down.

use std::collections::HashSet;

use handover::{DatabaseName, InstanceName, Kind, OperationId, operation::Operation};
use proto::v1;

use super::{
    error::Error,
    fields::{Fields, checked},
    page, select, wire,
};
use crate::{
    auth::{Caller, Reader},
    core::Core,
    store::{Sieve, Stored},
};

const PAGE_MAX: u32 = 1000;
const PAGE_DEFAULT: u32 = 100;
/// Records read from the store at once, if most are passed over.
const READ: usize = 1024;

pub(super) async fn get(
    core: &Core,
    caller: &Caller,
    request: v1::GetOperationRequest,
) -> Result<v1::GetOperationResponse, Error> {
    let mut fields = Fields::default();
    let id = fields.operation("id", &request.id);
    fields.check()?;
    let stored = select::seen(core, caller, &checked(id, "id")?).await?;
    Ok(v1::GetOperationResponse { operation: Some(wire::operation(core, &stored)) })
}

struct Filter {
    kind: Option<Kind>,
    source: Option<InstanceName>,
    destination: Option<InstanceName>,
    databases: Vec<DatabaseName>,
    batch: Option<String>,
    only_active: bool,
}

impl Filter {
    fn sieve(&self) -> Sieve {
        let mut sieve = Sieve::default();
        self.source.iter().for_each(|name| sieve.source(name));
        self.destination.iter().for_each(|name| sieve.destination(name));
        if let [database] = &self.databases[..] {
            sieve.database(database);
        }
        self.batch.iter().for_each(|batch| sieve.batch(batch));
        sieve
    }

    fn takes(&self, operation: &Operation) -> bool {
        self.kind.is_none_or(|kind| operation.kind == kind)
            && self.source.as_ref().is_none_or(|source| operation.source == *source)
            && self.destination.as_ref().is_none_or(|destination| operation.destination == *destination)
            && (self.databases.is_empty() || self.databases.contains(&operation.database))
            && self.batch.as_ref().is_none_or(|batch| operation.batch == *batch)
            && !(self.only_active && operation.state.ended())
    }
}

pub(super) async fn list(
    core: &Core,
    caller: &Caller,
    request: v1::ListOperationsRequest,
) -> Result<v1::ListOperationsResponse, Error> {
    let mut fields = Fields::default();
    let filter = Filter {
        kind: fields.kind_if_given("kind", request.kind),
        source: fields.instance_if_given("source", &request.source),
        destination: fields.instance_if_given("destination", &request.destination),
        databases: fields.databases("databases", &request.databases),
        batch: fields.batch_if_given("batch", &request.batch),
        only_active: request.only_active,
    };
    if request.page_size > PAGE_MAX {
        fields.wrong("page_size", format!("give 1 to {PAGE_MAX}, or 0 for {PAGE_DEFAULT}"));
    }
    let after = match page::after(&request) {
        Ok(after) => after,
        Err(problem) => {
            fields.wrong("page_token", problem);
            None
        }
    };
    fields.check()?;
    let size = if request.page_size == 0 { PAGE_DEFAULT } else { request.page_size };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let (found, more) =
        scan(core, &mut Reader::new(caller), &filter, request.only_latest_per_database, after.as_ref(), size).await?;
    let next_page_token = match found.last().filter(|_| more) {
        Some(last) => page::token(&request, last.id()),
        None => String::new(),
    };
    let operations = found.iter().map(|stored| wire::operation(core, stored)).collect();
    Ok(v1::ListOperationsResponse { operations, next_page_token })
}

/// A page of what the filter takes and the reader may see, and whether more follows.
async fn scan(
    core: &Core,
    reader: &mut Reader,
    filter: &Filter,
    only_latest: bool,
    after: Option<&OperationId>,
    size: usize,
) -> Result<(Vec<Stored>, bool), Error> {
    let sieve = filter.sieve();
    // Mostly all that is read is shown, and one more than the page tells whether there is another.
    let mut read = if sieve.is_empty() { READ.min(size + 1) } else { READ };
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    // Whether an operation is the latest of its database shows only to one who has seen all newer ones.
    let mut before = if only_latest { None } else { after.cloned() };
    loop {
        let page = core.records.newest_through(&sieve, before.as_ref(), read).await?;
        for stored in page.found {
            let operation = stored.operation();
            if !filter.takes(operation) || !reader.sees(core, operation).await? {
                continue;
            }
            if only_latest {
                let Operation { source, destination, database, .. } = operation;
                if !seen.insert((source.clone(), destination.clone(), database.clone())) {
                    continue;
                }
                if after.is_some_and(|after| operation.id >= *after) {
                    continue;
                }
            }
            if found.len() == size {
                return Ok((found, true));
            }
            found.push(stored);
        }
        if page.more_below.is_none() {
            return Ok((found, false));
        }
        before = page.more_below;
        read = READ;
    }
}
