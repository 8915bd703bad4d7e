//! The in-memory engine passes the suite.

use super::{MemoryDest, MemoryInstance, MemorySource};
use crate::{conformance::Harness, dest::DestEngine, host::RealHost, source::SourceEngine};
use async_trait::async_trait;
use handover::DatabaseName;
use std::{collections::BTreeMap, sync::Arc};

struct Memory {
    source: MemoryInstance,
    dest: MemoryInstance,
    name: DatabaseName,
}

impl Memory {
    fn new() -> Self {
        let name = DatabaseName::parse("shop").expect("a name");
        let memory = Self { source: MemoryInstance::new(), dest: MemoryInstance::new(), name };
        memory.source.create(&memory.name);
        memory
    }
}

#[async_trait]
impl Harness for Memory {
    fn source(&mut self) -> Arc<dyn SourceEngine> {
        Arc::new(MemorySource::new(self.source.clone(), Arc::new(RealHost)))
    }
    fn dest(&mut self) -> Arc<dyn DestEngine> {
        Arc::new(MemoryDest::new(self.dest.clone(), Arc::new(RealHost)))
    }
    fn database(&self) -> DatabaseName {
        self.name.clone()
    }
    async fn write(&self, key: &str, value: Option<&str>) -> bool {
        self.source.write(&self.name, key, value).is_ok()
    }
    async fn write_at_dest(&self, key: &str, value: &str) -> bool {
        self.dest.write(&self.name, key, Some(value)).is_ok()
    }
    async fn rows(&self) -> BTreeMap<String, String> {
        self.source.rows(&self.name).expect("the source has it")
    }
    async fn rows_at_dest(&self) -> BTreeMap<String, String> {
        self.dest.rows(&self.name).expect("the destination has it")
    }
    async fn lose_log(&self) -> bool {
        self.source.lose_log(&self.name).is_ok()
    }
    fn leftovers(&self) -> Vec<String> {
        let sides = [("source", &self.source), ("dest", &self.dest)];
        sides.iter().filter(|(_, instance)| !instance.is_clean()).map(|(side, _)| (*side).to_owned()).collect()
    }
    fn swap(&mut self) {
        std::mem::swap(&mut self.source, &mut self.dest);
    }
}

crate::conformance_suite!(Memory::new());
