//! The seed: what is in it, in which pieces, and how each piece is read in the held snapshot.

pub(super) mod dump;
pub(super) mod large_objects;
pub(super) mod plan;
pub(super) mod properties;
pub(super) mod reader;
pub(super) mod schema;
