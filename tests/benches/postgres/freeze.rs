//! How long a move freezes 50 clients at 2,000 transactions a second, as the clients see it: last acknowledgement at the old
//! place to the first at the new one, over all of them.

use crate::{Args, median, table::Row};
use causeway_tests::{Kind, operation::request};

/// Milliseconds.
const MEDIAN_MAX: f64 = 200.0;
const MAXIMUM_MAX: f64 = 600.0;

const CLIENTS: u32 = 50;
const RATE: f64 = 2000.0;

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = super::cluster_both_ways(args);
    cluster.postgres("west").create("freeze");
    let moves = args.moves.min(30) as usize;
    let mut application = cluster
        .application("freeze")
        .with(|options| {
            options.rate = RATE;
            options.writers = CLIENTS;
        })
        .start();
    for n in 0..moves {
        let mut request = request(Kind::Move, &["freeze"]);
        if n % 2 == 1 {
            std::mem::swap(&mut request.source, &mut request.destination);
        }
        let op = cluster.start(request);
        op.until_ready();
        application.until_more_commits(1000);
        op.complete();
        let moved = op.until_succeeded();
        eprintln!("  move {n}: {} ms as the coordinator saw it", moved.freeze_ms);
        application.until_more_commits(100);
    }
    let history = application.history().to_owned();
    let summary = application.finish();
    let last = if moves % 2 == 0 { "west" } else { "east" };
    cluster.assert_sound(&cluster.postgres(last).place("freeze"), &history);
    let freezes: Vec<f64> = summary.moves.iter().map(|moved| moved.freeze_ms).collect();
    assert_eq!(freezes.len(), moves, "the application saw every move");
    let (middle, most) = (median(&freezes), freezes.iter().copied().fold(0.0, f64::max));
    vec![
        Row::of(
            format!("freeze, median of {moves} moves, {CLIENTS} clients at {RATE:.0} txn/s"),
            format!("{middle:.0} ms"),
        )
        .bar(format!("below {MEDIAN_MAX:.0} ms"), middle < MEDIAN_MAX),
        Row::of("freeze, maximum of them", format!("{most:.0} ms"))
            .bar(format!("below {MAXIMUM_MAX:.0} ms"), most < MAXIMUM_MAX),
    ]
}
