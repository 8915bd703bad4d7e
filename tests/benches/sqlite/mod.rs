//! SQLite: the embedded default.

mod freeze;
mod log;
mod memory;
mod seed;

use crate::{Args, Measure, Subject};

/// What is measured, in this order.
pub const SUBJECTS: [(Subject, Measure<Args>); 4] = [
    (Subject::Seed, seed::measure),
    (Subject::Log, log::measure),
    (Subject::Freeze, freeze::measure),
    (Subject::Memory, memory::measure),
];
