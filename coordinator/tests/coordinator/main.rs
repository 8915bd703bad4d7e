//! The coordinator's very server, on port 0, against fake agents that run the real roles.

mod callers;
mod cluster;
mod fakes;
mod rights;

mod ends;
mod explain;
mod faults;
mod freeze;
mod journeys;
mod overrides;
mod queue;
mod requests;
mod restarts;
mod retention;
