//! End to end: real processes, real databases, real faults. One file a subject.
//!
//! Tests run as many at a time as there are cores (libtest's default): a cluster mostly waits, and more of them would
//! only make freezes long.

mod adopt;
mod callers;
mod clients;
mod coordinators;
mod databases;
mod endings;
mod explain;
mod faults;
mod flip;
mod journeys;
mod kills;
mod layers;
mod networks;
mod overrides;
mod postgres;
mod queue;
mod requests;
mod wire;
mod zombies;
