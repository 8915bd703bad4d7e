//! The instances: those of the configuration file, which stand fast, and those registered at run time.

use std::collections::BTreeMap;

use handover::InstanceName;

use crate::store::{self, InstanceRecord, Records};

/// Longest free text of an instance, in bytes: names and paths of clouds stay well below.
const TEXT_MAX: usize = 255;

/// An instance as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// The instance.
    pub record: InstanceRecord,
    /// Grows with every change; 0 for one of the configuration file.
    pub version: u64,
    /// It stands in the configuration file.
    pub from_config: bool,
}

/// Finds instances. Those of the configuration file hide registered ones of the same name.
pub struct Instances {
    records: Records,
    configured: BTreeMap<InstanceName, InstanceRecord>,
}

impl Instances {
    /// The instances of the file and of the store.
    pub fn new(records: Records, configured: Vec<InstanceRecord>) -> Self {
        Self { records, configured: configured.into_iter().map(|record| (record.name.clone(), record)).collect() }
    }

    /// Whether the configuration file holds it.
    pub fn configured(&self, name: &InstanceName) -> bool {
        self.configured.contains_key(name)
    }

    /// One instance.
    pub async fn get(&self, name: &InstanceName) -> Result<Option<Known>, store::Error> {
        if let Some(record) = self.configured.get(name) {
            return Ok(Some(Known { record: record.clone(), version: 0, from_config: true }));
        }
        let found = self.records.instance(name).await?;
        Ok(found.map(|(record, version)| Known { record, version, from_config: false }))
    }

    /// All instances by name.
    pub async fn all(&self) -> Result<Vec<Known>, store::Error> {
        let mut all: BTreeMap<InstanceName, Known> = BTreeMap::new();
        for (record, version) in self.records.instances().await? {
            all.insert(record.name.clone(), Known { record, version, from_config: false });
        }
        for (name, record) in &self.configured {
            all.insert(name.clone(), Known { record: record.clone(), version: 0, from_config: true });
        }
        Ok(all.into_values().collect())
    }
}

/// What is wrong with an instance's fields, all at once: the field and the problem.
pub fn violations(instance: &InstanceRecord) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    if !matches!(instance.engine.as_str(), "sqlite" | "postgres" | "memory") {
        // The third is for tests.
        wrong.push(("engine", format!("{:?} is no engine: give sqlite or postgres", instance.engine)));
    }
    let addresses = [
        ("source_agent", &instance.source_agent),
        ("dest_agent", &instance.dest_agent),
        ("transfer_address", &instance.transfer_address),
    ];
    for (field, address) in addresses {
        if !address.is_empty() && service::dial::split(address).is_none() {
            wrong.push((field, format!("{address:?} is not an address: write host:port, such as db1.example:7443")));
        }
    }
    if instance.source_agent.is_empty() && instance.dest_agent.is_empty() {
        wrong.push(("source_agent", "give the address of its source agent, its destination agent, or both".to_owned()));
    }
    if instance.dest_agent.is_empty() && !instance.transfer_address.is_empty() {
        wrong.push(("transfer_address", "it means the destination agent: give dest_agent too".to_owned()));
    }
    let texts = [
        ("subscription", &instance.subscription),
        ("resource_group", &instance.resource_group),
        ("region", &instance.region),
        ("failover_group", &instance.failover_group),
        ("source_identity", &instance.source_identity),
        ("dest_identity", &instance.dest_identity),
    ];
    for (field, text) in texts {
        if text.len() > TEXT_MAX {
            wrong.push((field, format!("it has {} bytes, at most {TEXT_MAX} are allowed", text.len())));
        }
        if text.chars().any(char::is_control) {
            wrong.push((field, "it holds control characters".to_owned()));
        }
    }
    wrong
}
