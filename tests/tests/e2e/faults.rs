//! A dozen cells of the matrix of faults; `make faults` runs all.

use causeway_tests::{
    binaries,
    faults::{self, Settings},
};
use std::time::Duration;

#[test]
fn the_most_telling_cells_of_the_matrix_are_green() {
    let settings = Settings {
        // Mostly waiting, beside the other tests.
        parallel: 3,
        stop: Duration::from_secs(6),
        budget: Duration::from_secs(3600),
        keep: binaries::workspace().join("target/faults/red"),
    };
    let cells = faults::quick();
    let outcomes = faults::run(&cells, &settings, |outcome| {
        println!("{} took {:?}: {:?}", outcome.cell, outcome.took, outcome.wrong);
    });
    let red: Vec<_> = outcomes.iter().filter(|outcome| outcome.wrong.is_some()).collect();
    assert!(red.is_empty() && outcomes.len() == cells.len(), "{red:?}");
}
