//! The small models hold, and every deliberate fault is noticed: by the property that it should break.

use causeway_model::{Mutation, Search, bounds, check};

#[test]
fn the_small_models_hold() {
    for bounds in bounds::SMALL_ONES {
        let report = check(bounds, None, Search::Everything, 2);
        eprintln!("{}: {} states in {:?}", bounds.name, report.states, report.took);
        assert!(report.failures.is_empty(), "{}: {:#?}", bounds.name, report.failures);
        assert!(report.missing.is_empty(), "{}: never happened: {:?}", bounds.name, report.missing);
        assert!(report.states > 1_000, "{} has only {} states", bounds.name, report.states);
    }
}

#[test]
fn every_fault_is_noticed() {
    for mutation in Mutation::ALL {
        let (bounds, property) = mutation.shown_by();
        let report = check(bounds, Some(mutation), Search::Shortest(property), 2);
        let found = report.failures.iter().find(|failure| failure.property == property);
        let found = found.unwrap_or_else(|| panic!("{mutation:?} breaks {property:?} nowhere in {}", bounds.name));
        eprintln!("{mutation:?}: {property:?} after {} steps, {} states", found.steps.len(), report.states);
    }
}
