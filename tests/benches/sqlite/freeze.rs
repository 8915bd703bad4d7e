//! How long a move freezes an application, as the application sees it.

use crate::{
    Args,
    freezes::{Moves, rows},
    table::Row,
};
use causeway_tests::content;

/// Milliseconds.
const MEDIAN_MAX: f64 = 100.0;

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = args.cluster().both_ways().start();
    let places = [cluster.west().database("freeze.db"), cluster.east().database("freeze.db")];
    content::filled(&places[0], 10);
    let application = cluster.application("freeze.db").with(|options| options.rate = args.rate);
    let moves = Moves { database: "freeze.db", count: args.moves as usize, before: 100, after: 10 };
    let freezes = moves.freezes(&cluster, application.start(), places);
    rows(&freezes, &format!("at {:.0} txn/s", args.rate), MEDIAN_MAX, None)
}
