//! How long a move freezes an application, as the application sees it: last acknowledgement at the old place to the
//! first at the new one, over all its writers.

use crate::{Args, median, table::Row};
use causeway_tests::{Kind, content, operation::request};

/// Milliseconds.
const MEDIAN_MAX: f64 = 100.0;

pub fn measure(args: &Args) -> Vec<Row> {
    let cluster = args.cluster().both_ways().start();
    content::filled(&cluster.west().database("freeze.db"), 10);
    let mut application = cluster.application("freeze.db").with(|options| options.rate = args.rate).start();
    let places = [cluster.west().database("freeze.db"), cluster.east().database("freeze.db")];
    for n in 0..args.moves as usize {
        let mut request = request(Kind::Move, &["freeze.db"]);
        if n % 2 == 1 {
            std::mem::swap(&mut request.source, &mut request.destination);
        }
        let op = cluster.start(request);
        op.until_ready();
        // Let some of the ordinary load pass before each completion.
        application.until_more_commits(100);
        op.complete();
        let moved = op.until_succeeded();
        eprintln!("  move {n}: {} ms as the coordinator saw it", moved.freeze_ms);
        application.until_more_commits(10);
    }
    let history = application.history().to_owned();
    let summary = application.finish();
    cluster.assert_sound(&places[args.moves as usize % 2], &history);
    let freezes: Vec<f64> = summary.moves.iter().map(|moved| moved.freeze_ms).collect();
    assert_eq!(freezes.len(), args.moves as usize, "the application saw every move");
    let (middle, most) = (median(&freezes), freezes.iter().copied().fold(0.0, f64::max));
    let rate = format!("{:.0} txn/s", args.rate);
    vec![
        Row::of(format!("freeze, median of {} moves at {rate}", freezes.len()), format!("{middle:.1} ms"))
            .bar(format!("below {MEDIAN_MAX:.0} ms"), middle < MEDIAN_MAX),
        Row::of("freeze, maximum of them", format!("{most:.1} ms")),
    ]
}
