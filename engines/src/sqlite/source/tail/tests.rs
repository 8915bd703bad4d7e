//! The tail.
