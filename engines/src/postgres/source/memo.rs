//! What the source engine itself has to remember of an operation, beside the role.

use super::super::{payload::PlanHeader, position::Lsn};
use crate::source::Part;
use serde::{Deserialize, Serialize};

/// The memo of an operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// The generation of the seed: how many slots there have been.
    pub(super) generation: u64,
    /// The slot of that generation, once it is there with its snapshot. A slot that is not named here is half made.
    pub(super) slot: Option<Slot>,
    /// The seed of that generation, once it was planned.
    pub(super) plan: Option<SeedPlan>,
    /// Tables that were given REPLICA IDENTITY FULL, noted before they were.
    pub(super) identities: Vec<Identity>,
}

/// A slot with its snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    /// Where its log begins.
    pub(super) start: String,
    /// The snapshot's name, as long as its holder lives.
    pub(super) snapshot: String,
    /// The snapshot's oldest transaction still running then: what it or a later one wrote may be newer than the seed.
    pub(super) xmin: u64,
}

impl Slot {
    pub(super) fn start(&self) -> crate::Result<Lsn> {
        self.start.parse()
    }
}

/// What is seeded, and in which pieces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SeedPlan {
    pub(super) header: PlanHeader,
    /// For each part what it is of, and about how large.
    pub(super) parts: Vec<(String, u64)>,
    /// For each part of large objects, the first OID in it and the first that is not.
    pub(super) large_objects: Vec<(u32, Option<u32>)>,
    /// Sizes of large relations by schema and name: they change, but a schema that is read again must not.
    pub(super) sizes: Vec<(String, String, u64)>,
}

impl SeedPlan {
    /// The parts as the contract has them.
    pub(super) fn parts(&self) -> Vec<Part> {
        let parts = self.parts.iter().zip(0..);
        parts.map(|((object, bytes), part)| Part { part, object: object.clone(), bytes: *bytes }).collect()
    }
}

/// A table's replica identity before the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) schema: String,
    pub(super) name: String,
    /// As `pg_class.relreplident` has it.
    pub(super) was: String,
    /// The index, if it was one.
    pub(super) index: Option<String>,
}
