//! What the engine notes about an operation beside its role record.

use super::super::payload::DatabaseProperties;
use serde::{Deserialize, Serialize};

/// Durable in the maintenance database. It changes before what it tells of does, except for `oid` and `opened`, which change
/// in the transaction that gives the database its name and in the flip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    /// The generation of the plan that the database was made for, 0 before there is one.
    pub(super) generation: u64,
    /// The database, once it has its name. What has none yet is known by its other one, see [`super::database::incoming`].
    pub(super) oid: Option<u32>,
    /// What the flip gives to the database.
    pub(super) properties: DatabaseProperties,
    /// Roles that were created because the destination lacked them.
    #[serde(default)]
    pub(super) roles: Vec<String>,
    /// The flip is done: owner, limit and settings are the users' from here on, and are not set again.
    pub(super) opened: bool,
}
