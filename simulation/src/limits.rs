//! The coordinator's limits of a run: its defaults, but with times that fit into a minute.

use clap::Parser as _;
use coordinator::config::{LimitArgs, Limits};
use rand::{Rng as _, rngs::StdRng};
use std::time::Duration;

#[derive(clap::Parser)]
struct Only {
    #[command(flatten)]
    limits: LimitArgs,
}

/// The limits of a run.
pub fn limits(rng: &mut StdRng) -> Limits {
    let mut limits = Limits::from(&Only::parse_from(["simulation"]).limits);
    limits.running_per_source = rng.random_range(1..=3);
    limits.window = Duration::from_secs(rng.random_range(10..60));
    limits.timeouts.question = Duration::from_millis(rng.random_range(300..2000));
    limits.timeouts.command = Duration::from_millis(rng.random_range(500..5000));
    limits.finish_timeout = Duration::from_millis(rng.random_range(500..5000));
    limits
}
