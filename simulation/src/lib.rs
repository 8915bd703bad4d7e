//! The real coordinator and the real agents on a simulated network, clock and disk, with clients that write and whatever
//! can go wrong: a run follows from its seed alone and replays exactly.

mod trace;

mod disk;
mod env;
mod machine;

mod engine;
mod planted;

mod hosts;
mod ledger;
mod limits;
mod users;
mod world;

mod chaos;
mod check;
mod run;

pub use planted::Planted;
pub use run::{Outcome, run};
