//! Measures the road on SQLite.

fn main() {}
