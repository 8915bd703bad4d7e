//! What `make test` runs of the simulation: enough seeds to find what is plainly wrong, that a seed replays, and that faults put in
//! on purpose are found.

use std::process::{Command, Output};

fn simulation(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_causeway-simulation")).args(args).output().expect("run the simulation")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn nothing_is_found_in_two_hundred_seeds() {
    let output = simulation(&["--seeds", "200"]);
    let said = said(&output);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(said.contains("200 seeds, "), "{said}");
}

/// The hash is over everything that happened, to the last call of an engine and its moment.
#[test]
fn a_seed_replays_exactly() {
    for seed in ["7", "8", "9"] {
        let runs = [simulation(&["--seed", seed]), simulation(&["--seed", seed]), simulation(&["--seed", seed])];
        let lines = runs.map(|run| String::from_utf8_lossy(&run.stdout).lines().last().unwrap_or_default().to_owned());
        assert!(lines[0].starts_with("RAN ") && lines[0].contains(" trace "), "{lines:?}");
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:#?}");
    }
    let other = simulation(&["--seed", "10"]);
    assert!(!String::from_utf8_lossy(&other.stdout).contains(&"0".repeat(16)));
}

/// Each of these lies has to be found within so many seeds.
#[test]
fn planted_faults_are_found() {
    for fault in [
        "fence-leaks",
        "reopen-at-start",
        "marker-not-synced",
        "loses-change",
        "invents-change",
        "swaps-changes",
        "cleanup-skipped",
        "disk-lies",
    ] {
        let output = simulation(&["--seeds", "150", "--planted", fault, "--until-found"]);
        let said = said(&output);
        assert!(!output.status.success() && said.contains("FOUND") && said.contains("replay: "), "{fault}: {said}");
        println!("{fault}: {}", said.lines().find(|line| line.contains("FOUND")).unwrap_or_default());
    }
}
