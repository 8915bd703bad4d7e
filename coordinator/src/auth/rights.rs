//! Which request needs which right: the only place that says so.
//!
//! Starting, completing and cancelling need `read` on the source's resource group and `write` on the database at both
//! ends; overrides need `admin` on the database at both ends; registering and removing an instance `admin` on it, as it is
//! and as it is to be; adopting operations `admin` on the coordinator. An operation may be read by whoever may read its database at either end; what may not be read does
//! not exist for the caller.

use std::collections::HashMap;

use handover::{DatabaseName, InstanceName, OperationId, operation::Operation};

use super::{
    caller::Caller,
    names::{Action, Name},
    resource::{Place, Resource},
};
use crate::{
    admission::Wish,
    core::Core,
    store::{self, InstanceRecord},
};

/// The caller lacks rights; all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Who.
    pub who: Name,
    /// What is missing: a right and what it is about.
    pub rights: Vec<(Action, String)>,
}

/// Why a request may not be made.
#[derive(Debug)]
pub enum Refused {
    /// Rights are missing.
    Missing(Missing),
    /// It could not be found out.
    Store(store::Error),
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// The database of an operation, at both ends.
pub struct Ends<'a> {
    /// The source.
    pub source: &'a InstanceName,
    /// The destination.
    pub destination: &'a InstanceName,
    /// The database.
    pub database: &'a DatabaseName,
}

impl<'a> Ends<'a> {
    /// Those of several databases between the same two instances.
    pub fn all(source: &'a InstanceName, destination: &'a InstanceName, databases: &'a [DatabaseName]) -> Vec<Self> {
        databases.iter().map(|database| Ends { source, destination, database }).collect()
    }
}

impl<'a> From<&'a Operation> for Ends<'a> {
    fn from(operation: &'a Operation) -> Self {
        let Operation { source, destination, database, .. } = operation;
        Self { source, destination, database }
    }
}

impl Caller {
    /// Start what is wished.
    pub async fn may_start(&self, core: &Core, wish: &Wish) -> Result<(), Refused> {
        let Wish { source, destination, databases, .. } = wish;
        self.may_operate(core, &Ends::all(source, destination, databases)).await
    }

    /// Start, complete or cancel operations on these.
    pub async fn may_operate(&self, core: &Core, all: &[Ends<'_>]) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        for Ends { source, destination, database } in all {
            let (source, destination) = (asking.place(source).await?, asking.place(destination).await?);
            asking.need(Action::Read, source.group());
            asking.need(Action::Write, Resource::Database(source, (*database).clone()));
            asking.need(Action::Write, Resource::Database(destination, (*database).clone()));
        }
        asking.answer()
    }

    /// Override an operation.
    pub async fn may_override(&self, core: &Core, operation: &Operation) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        for instance in [&operation.source, &operation.destination] {
            let place = asking.place(instance).await?;
            asking.need(Action::Admin, Resource::Database(place, operation.database.clone()));
        }
        asking.answer()
    }

    /// Register an instance, which may replace one.
    pub async fn may_register(&self, core: &Core, record: &InstanceRecord) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        if let Some(known) = core.instances.get(&record.name).await? {
            asking.need(Action::Admin, Resource::Instance(Place::of(&known.record)));
        }
        asking.need(Action::Admin, Resource::Instance(Place::of(record)));
        asking.answer()
    }

    /// Remove an instance.
    pub async fn may_remove(&self, core: &Core, name: &InstanceName) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        let place = asking.place(name).await?;
        asking.need(Action::Admin, Resource::Instance(place));
        asking.answer()
    }

    /// See an instance and ask its agents.
    pub async fn may_look_into(&self, core: &Core, name: &InstanceName) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        let place = asking.place(name).await?;
        asking.need(Action::Read, Resource::Instance(place));
        asking.answer()
    }

    /// Remove what a move left under a name.
    pub async fn may_purge(&self, core: &Core, name: &InstanceName, database: &DatabaseName) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        let place = asking.place(name).await?;
        asking.need(Action::Write, Resource::Database(place, database.clone()));
        asking.answer()
    }

    /// Take up the operations that agents remember.
    pub fn may_adopt(&self, core: &Core) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        asking.need(Action::Admin, Resource::Coordinator);
        asking.answer()
    }

    /// Ask about the rights of others.
    pub fn may_ask_about_others(&self, core: &Core) -> Result<(), Refused> {
        let mut asking = Asking::new(self, core);
        asking.need(Action::Admin, Resource::Coordinator);
        asking.answer()
    }
}

/// Questions about one request.
struct Asking<'a> {
    caller: &'a Caller,
    core: &'a Core,
    places: HashMap<InstanceName, Place>,
    asked: Vec<(Action, Resource)>,
    missing: Vec<(Action, String)>,
}

impl<'a> Asking<'a> {
    fn new(caller: &'a Caller, core: &'a Core) -> Self {
        Self { caller, core, places: HashMap::new(), asked: Vec::new(), missing: Vec::new() }
    }

    async fn place(&mut self, name: &InstanceName) -> Result<Place, store::Error> {
        place(self.core, &mut self.places, name).await
    }

    fn need(&mut self, action: Action, resource: Resource) {
        let question = (action, resource);
        if self.asked.contains(&question) {
            return;
        }
        if !self.caller.check(question.0, &question.1) {
            self.missing.push((question.0, question.1.to_string()));
        }
        self.asked.push(question);
    }

    fn answer(self) -> Result<(), Refused> {
        match self.missing.as_slice() {
            [] => Ok(()),
            _ => Err(Refused::Missing(Missing { who: self.caller.name().clone(), rights: self.missing })),
        }
    }
}

/// What a caller may see, of many. Remembers its answers, so it is for one request.
pub struct Reader {
    caller: Caller,
    places: HashMap<InstanceName, Place>,
    databases: HashMap<(InstanceName, DatabaseName), bool>,
}

impl Reader {
    /// For one request of a caller.
    pub fn new(caller: &Caller) -> Self {
        Self { caller: caller.clone(), places: HashMap::new(), databases: HashMap::new() }
    }

    /// Whether it may see an operation; if not, that is noted.
    pub async fn sees(&mut self, core: &Core, operation: &Operation) -> Result<bool, store::Error> {
        let Operation { source, destination, database, .. } = operation;
        let sees = self.reads(core, source, database).await? || self.reads(core, destination, database).await?;
        if !sees {
            self.caller.hides();
        }
        Ok(sees)
    }

    /// Whether it may see an instance; if not, that is noted.
    pub fn sees_instance(&self, record: &InstanceRecord) -> bool {
        let sees = self.caller.may(Action::Read, &Resource::Instance(Place::of(record))).allowed;
        if !sees {
            self.caller.hides();
        }
        sees
    }

    /// Whether it may see a database at an instance.
    pub async fn reads(
        &mut self,
        core: &Core,
        instance: &InstanceName,
        database: &DatabaseName,
    ) -> Result<bool, store::Error> {
        let key = (instance.clone(), database.clone());
        if let Some(known) = self.databases.get(&key) {
            return Ok(*known);
        }
        let place = place(core, &mut self.places, instance).await?;
        let reads = self.caller.may(Action::Read, &Resource::Database(place, database.clone())).allowed;
        self.databases.insert(key, reads);
        Ok(reads)
    }

    /// Note in the audit log that the request was about this operation.
    pub fn concerns(&self, operation: &OperationId) {
        self.caller.concerns(operation);
    }

    /// Note that something else was left out.
    pub fn hides(&self) {
        self.caller.hides();
    }
}

async fn place(
    core: &Core,
    known: &mut HashMap<InstanceName, Place>,
    name: &InstanceName,
) -> Result<Place, store::Error> {
    if let Some(place) = known.get(name) {
        return Ok(place.clone());
    }
    let found = core.instances.get(name).await?;
    let place = found.map_or_else(|| Place::unknown(name.clone()), |found| Place::of(&found.record));
    known.insert(name.clone(), place.clone());
    Ok(place)
}
