//! End to end: real processes, real databases, real faults. One file a subject.

mod journeys;
