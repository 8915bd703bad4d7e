//! Moves there and back under an application, and the freezes it saw: last acknowledgement at the old place to the first at the
//! new one, over all its writers.

use crate::{median, table::Row};
use causeway_tests::{Application, Cluster, Kind, operation::request};
use std::{path::PathBuf, time::Duration};

/// For readiness: a load that takes the whole machine lets nobody catch up quickly.
const PATIENCE: Duration = Duration::from_secs(300);

/// Moves a database from west to east, back, and so on. The application has made `before` more commits when a move is completed,
/// and `after` more when the next one begins.
pub struct Moves {
    pub database: &'static str,
    pub count: usize,
    pub before: u64,
    pub after: u64,
}

impl Moves {
    /// The freezes in milliseconds; fails unless the application's ledger is whole at `places`, west and east, in the end.
    pub fn freezes(&self, cluster: &Cluster, mut application: Application, places: [PathBuf; 2]) -> Vec<f64> {
        for n in 0..self.count {
            let mut request = request(Kind::Move, &[self.database]);
            if n % 2 == 1 {
                std::mem::swap(&mut request.source, &mut request.destination);
            }
            let op = cluster.start(request);
            op.until_ready_within(PATIENCE);
            // Let some of the ordinary load pass before each completion.
            application.until_more_commits(self.before);
            op.complete();
            let moved = op.until_succeeded();
            eprintln!("  move {n}: {} ms as the coordinator saw it", moved.freeze_ms);
            application.until_more_commits(self.after);
        }
        let history = application.history().to_owned();
        let summary = application.finish();
        cluster.assert_sound(&places[self.count % 2], &history);
        let freezes: Vec<f64> = summary.moves.iter().map(|moved| moved.freeze_ms).collect();
        assert_eq!(freezes.len(), self.count, "the application saw every move");
        freezes
    }
}

/// Rows for the median, named by `load`, and the maximum, each with the milliseconds it has to stay below, if any.
pub fn rows(freezes: &[f64], load: &str, median_max: f64, maximum_max: Option<f64>) -> Vec<Row> {
    let (middle, most) = (median(freezes), freezes.iter().copied().fold(0.0, f64::max));
    let bar = |row: Row, figure: f64, max: f64| row.bar(format!("below {max:.0} ms"), figure < max);
    let row = Row::of(format!("freeze, median of {} moves, {load}", freezes.len()), format!("{middle:.1} ms"));
    let maximum = Row::of("freeze, maximum of them", format!("{most:.1} ms"));
    vec![
        bar(row, middle, median_max),
        match maximum_max {
            Some(max) => bar(maximum, most, max),
            None => maximum,
        },
    ]
}
