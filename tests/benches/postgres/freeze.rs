//! How long a move freezes 50 clients at 2,000 transactions a second, as the clients see it.

use crate::{
    Args,
    freezes::{Moves, rows},
    table::Row,
};

/// Milliseconds.
const MEDIAN_MAX: f64 = 200.0;
const MAXIMUM_MAX: f64 = 600.0;

const CLIENTS: u32 = 50;
const RATE: f64 = 2000.0;

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = super::cluster_both_ways(args);
    cluster.postgres("west").create("freeze");
    let application = cluster.application("freeze").with(|options| (options.rate, options.writers) = (RATE, CLIENTS));
    let places = ["west", "east"].map(|instance| cluster.postgres(instance).place("freeze"));
    let moves = Moves { database: "freeze", count: args.moves.min(30) as usize, before: 1000, after: 100 };
    let freezes = moves.freezes(&cluster, application.start(), places);
    rows(&freezes, &format!("{CLIENTS} clients at {RATE:.0} txn/s"), MEDIAN_MAX, Some(MAXIMUM_MAX))
}
