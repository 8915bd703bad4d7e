//! The model of the protocol: coordinator, source and destination built from the functions of `handover` that the
//! services run, explored by stateright over a network that loses, repeats, delays and reorders, with crashes anywhere.
//!
//! `world` says what there is, `transition` what may happen, `coordinator`, `source` and `dest` what the three parties do
//! then. `properties` are the invariants of DESIGN.md section 3, `drain` those that say "in the end". `mutation` breaks
//! rules on purpose, to show that the properties notice.

pub mod bounds;
mod check;
mod coordinator;
mod dest;
mod drain;
mod message;
mod mutation;
mod properties;
mod record;
mod rules;
mod source;
mod transition;
mod world;

pub use bounds::Bounds;
pub use check::{Counterexample, Report, Search, check};
pub use mutation::Mutation;
