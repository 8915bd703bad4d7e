//! Which operations a request is about.

use handover::{DatabaseName, InstanceName, Kind, OperationId};
use proto::v1;

use super::{
    error::Error,
    fields::{Fields, checked},
};
use crate::{
    auth::{Caller, Ends, Reader},
    core::Core,
    store::Stored,
};

/// A selector, its fields checked.
pub(super) enum Selection {
    /// Those with these ids.
    Ids(Vec<OperationId>),
    /// The one that has not ended of each database.
    Databases {
        /// Its source.
        source: InstanceName,
        /// Its destination.
        destination: InstanceName,
        /// The databases.
        databases: Vec<DatabaseName>,
        /// Either, if not given.
        kind: Option<Kind>,
    },
}

impl Selection {
    /// Read the field `operations`; other violations of the request are told together with those found here.
    pub(super) fn read(mut fields: Fields, selector: Option<v1::OperationSelector>) -> Result<Self, Error> {
        let selector = selector.unwrap_or_default();
        let kind = fields.kind_if_given("operations.kind", selector.kind);
        let by_name = !selector.databases.is_empty() || !selector.source.is_empty() || !selector.destination.is_empty();
        match (selector.ids.is_empty(), by_name) {
            (true, false) => {
                fields.wrong("operations", "give ids, or source, destination and databases");
                fields.check()?;
                Ok(Selection::Ids(Vec::new()))
            }
            (false, true) => {
                fields.wrong("operations.ids", "give either ids, or source, destination and databases");
                fields.check()?;
                Ok(Selection::Ids(Vec::new()))
            }
            (false, false) => {
                let ids = fields.operations("operations.ids", &selector.ids);
                fields.check()?;
                Ok(Selection::Ids(ids))
            }
            (true, true) => {
                let source = fields.instance("operations.source", &selector.source);
                let destination = fields.instance("operations.destination", &selector.destination);
                if selector.databases.is_empty() {
                    fields.wrong("operations.databases", "give 1 to 100 database names");
                }
                let databases = fields.databases("operations.databases", &selector.databases);
                fields.check()?;
                Ok(Selection::Databases {
                    source: checked(source, "operations.source")?,
                    destination: checked(destination, "operations.destination")?,
                    databases,
                    kind,
                })
            }
        }
    }

    /// Whether the caller may complete and cancel these operations. Says nothing of operations it may not see: names are
    /// judged before anything is looked up, and ids only of what it sees.
    pub(super) async fn permit(&self, core: &Core, caller: &Caller, reader: &mut Reader) -> Result<(), Error> {
        match self {
            Selection::Ids(_) => {
                let found = self.load(core, reader).await?;
                let ends: Vec<Ends<'_>> = found.iter().map(|stored| stored.operation().into()).collect();
                caller.may_operate(core, &ends).await?;
            }
            Selection::Databases { source, destination, databases, .. } => {
                caller.may_operate(core, &Ends::all(source, destination, databases)).await?;
            }
        }
        Ok(())
    }

    /// The operations as they are now, all of them; those chosen by id only if the reader may see them.
    pub(super) async fn load(&self, core: &Core, reader: &mut Reader) -> Result<Vec<Stored>, Error> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        match self {
            Selection::Ids(ids) => {
                for id in ids {
                    match core.records.operation(id).await? {
                        Some(stored) if reader.sees(core, stored.operation()).await? => found.push(stored),
                        Some(_) | None => missing.push(format!("there is no operation {id}")),
                    }
                }
            }
            Selection::Databases { source, destination, databases, kind } => {
                for database in databases {
                    let stored = match core.records.busy_with(source, database).await? {
                        Some(id) => core.records.operation(&id).await?,
                        None => None,
                    };
                    let meant = stored.filter(|stored| {
                        let operation = stored.operation();
                        operation.source == *source
                            && operation.destination == *destination
                            && kind.is_none_or(|kind| operation.kind == kind)
                    });
                    match meant {
                        Some(stored) => found.push(stored),
                        None => missing.push(format!(
                            "no {} of database {database} from {source} to {destination} is under way",
                            kind.map_or("copy or move", Kind::as_str)
                        )),
                    }
                }
            }
        }
        found.iter().for_each(|stored| reader.concerns(stored.id()));
        if missing.is_empty() { Ok(found) } else { Err(Error::OperationNotFound(missing.join("; "))) }
    }
}

/// One operation.
pub(super) async fn one(core: &Core, id: &OperationId) -> Result<Stored, Error> {
    let stored = core.records.operation(id).await?;
    stored.ok_or_else(|| Error::OperationNotFound(format!("there is no operation {id}")))
}

/// One operation that the caller may see; any other does not exist for it.
pub(super) async fn seen(core: &Core, caller: &Caller, id: &OperationId) -> Result<Stored, Error> {
    let found = Selection::Ids(vec![id.clone()]).load(core, &mut Reader::new(caller)).await?;
    found.into_iter().next().ok_or_else(|| Error::OperationNotFound(format!("there is no operation {id}")))
}
